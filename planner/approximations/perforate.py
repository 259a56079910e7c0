"""Perforation: a convolution computes its output on a grid of rows and columns, and the rest is interpolated.

Figurnov, Ibraimova, Vetrov and Kohli, *PerforatedCNNs: acceleration through elimination of redundant convolutions*
(NIPS 2016), with the mask of a regular grid and linear interpolation instead of the nearest computed value; rows,
columns and where they begin as in Sharif et al., *ApproxTuner* (PPoPP 2021), section 2.4. Interpolating outputs is the
same as convolving interpolated inputs, and so the filters can be fitted by least squares to what the whole map ought to
be (`planner.refit.Aim`), computed and interpolated places alike.

``rows`` and ``cols`` compute every second row or column, ``both`` a quarter of the places, ``thirds`` every third row.
A figure at the end, ``rows1``, says at which row or column the grid begins, where it is not the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement, exact
from planner.linear import input_rows, sample

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "structure"
_STEPS = {"rows": (2, 1), "cols": (1, 2), "both": (2, 2), "thirds": (3, 1)}
ON_REQUEST = ("perforate@rows1", "perforate@cols1", "perforate@both1", "perforate@thirds1", "perforate@thirds2")
CHOICES = (*(f"perforate@{name}" for name in _STEPS), *ON_REQUEST)

_LEAST_LENGTH = 4
_LEAST_DEPTH = 32
"""Products for one output value from which on a convolution takes longer than interpolating its output does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Say which rows (or columns) of an output are computed: ``first``, ``first + step``, ...

    Where the grid does not begin at row 0, the row one step before is computed too, from the padding for the most part,
    so that nothing has to be made up at the beginning.
    """

    length: int
    step: int
    phase: int

    @property
    def first(self) -> int:
        """The first row computed; negative for one before the output."""
        return self.phase - self.step if self.phase else 0

    @property
    def computed(self) -> int:
        """Number of rows computed."""
        return -(-(self.length - self.first) // self.step)

    @property
    def aligned(self) -> bool:
        """Whether the last row computed is the last row."""
        return self.first + (self.computed - 1) * self.step == self.length - 1

    def neighbours(self, places: NDArray[np.int64]) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], ...]:
        """Return which rows each row is interpolated from, and with what weight."""
        if self.step == 1:
            return ((places, np.ones(len(places), np.float32)),)
        before = (places - self.first) // self.step
        after = np.minimum(before + 1, self.computed - 1)
        share = ((places - self.first) % self.step / self.step).astype(np.float32)
        return (self.first + before * self.step, 1 - share), (self.first + after * self.step, share)


def _axes(view: LayerView, choice: str) -> tuple[_Axis, _Axis]:
    name = choice.partition("@")[2]
    phase = int(name[-1]) if name[-1].isdigit() else 0
    lengths, steps = view.output_shape[2:], _STEPS[name.rstrip("012")]
    rows, columns = (
        _Axis(length=length, step=step, phase=phase if step > 1 else 0)
        for length, step in zip(lengths, steps, strict=True)
    )
    return rows, columns


def offer(view: LayerView) -> Offer:
    """Offer every grid for convolutions that take longer than interpolation, if it has four rows or columns."""
    linear = view.linear
    if linear is None or not linear.is_conv:
        return Offer(reason=f"{view.op} is no 2-D convolution with constant weights")
    if linear.depth < _LEAST_DEPTH:
        return Offer(reason=f"an output is a sum of {linear.depth} products; interpolating pays from {_LEAST_DEPTH} on")
    choices = []
    for choice in CHOICES:
        axes = _axes(view, choice)
        least = min((axis.length for axis in axes if axis.step > 1), default=0)
        fewer = np.prod([axis.computed for axis in axes]) < np.prod([axis.length for axis in axes])
        if least >= _LEAST_LENGTH and fewer:
            choices.append(choice)
    if not choices:
        rows, columns = view.output_shape[2:]
        return Offer(reason=f"its output has {rows} rows and {columns} columns; at least {_LEAST_LENGTH} are needed")
    return Offer(choices=tuple(choices))


def apply(context: Context, choice: str) -> Replacement:
    """Fit the anchor's filters to a map that is interpolated, and let them compute the grid only."""
    from onnx import helper

    rows, columns = _axes(context.view, choice)
    anchor, name = context.anchor, context.view.name
    linear = context.aim().reading(_interpolated(context, rows, columns)).fit(context.biased)
    ends = [_pads(context, axis, index) for index, axis in enumerate((rows, columns))]
    values = {item.name: helper.get_attribute_value(item) for item in anchor.attribute}
    values["strides"] = [linear.strides[0] * rows.step, linear.strides[1] * columns.step]
    values["pads"] = [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]
    values.pop("auto_pad", None)
    whole = exact(anchor, linear)
    conv = helper.make_node("Conv", list(whole.nodes[0].input), [f"{name}.grid"], name=f"{name}.perforated", **values)
    nodes, arrays = _enlarged(context, rows, columns)
    return Replacement(nodes=(conv, *nodes), arrays={**whole.arrays, **arrays})


def _pads(context: Context, axis: _Axis, index: int) -> tuple[int, int]:
    """Return the zeros before and behind the input's rows, or columns, that the grid needs."""
    linear = context.linear
    stride = linear.strides[index]
    before = linear.pads[index] - axis.first * stride
    kernel = (linear.weight.shape[2 + index] - 1) * linear.dilations[index] + 1
    reach = (axis.computed - 1) * axis.step * stride + kernel
    return before, max(0, reach - before - context.view.input_shape[2 + index])


def _interpolated(context: Context, rows: _Axis, columns: _Axis) -> NDArray[np.float32]:
    """Return the inputs of each sampled output as the interpolation mixes them, ``[group][row][product + 1]``."""
    linear, shape, inputs = context.linear, context.view.output_shape, context.present
    image, row, column = np.unravel_index(
        sample(linear, shape, len(inputs), rows=context.rows), (len(inputs), *shape[2:])
    )
    # A row before the first one reads the padding above: in a map shifted down by that much, it is a row like others.
    ahead = (-rows.first, -columns.first)
    shifted = np.pad(
        inputs, [(0, 0), (0, 0), *((n * stride, 0) for n, stride in zip(ahead, linear.strides, strict=True))]
    )
    size = (len(inputs), shape[2] + ahead[0], shape[3] + ahead[1])
    mixed: NDArray[np.float32] | float = 0.0
    for y, down in rows.neighbours(row):
        for x, across in columns.neighbours(column):
            flat = np.ravel_multi_index((image, y + ahead[0], x + ahead[1]), size)
            found = np.concatenate(list(input_rows(linear, shifted, flat, (1, shape[1], *size[1:]))), axis=1)
            mixed = mixed + found * (down * across)[None, :, None]
    return np.asarray(mixed, np.float32)


def _enlarged(context: Context, rows: _Axis, columns: _Axis) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
    """Return the nodes that make the whole map of the grid."""
    from onnx import helper

    name, target = context.view.name, context.anchor.output[0]
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, NDArray[Any]] = {}
    source = f"{name}.grid"
    spread = {index: axis for index, axis in ((2, rows), (3, columns)) if axis.step > 1}
    # Linear interpolation between corners ends at the last row. Otherwise it goes on behind it, as far as a whole step.
    for corners in (True, False):
        chosen = {index: axis for index, axis in spread.items() if (axis.aligned and not axis.phase) == corners}
        if not chosen:
            continue
        scales = np.ones(4, np.float32)
        for index, axis in chosen.items():
            # Halfway between lengths, so that rounding down gives the length whatever the precision.
            scales[index] = (axis.length + 0.5) / axis.computed if corners else axis.step
        kind = "corners" if corners else "steps"
        arrays[f"{name}.{kind}.scales"] = scales
        nodes.append(
            helper.make_node(
                "Resize",
                [source, "", f"{name}.{kind}.scales"],
                [f"{name}.{kind}"],
                name=f"{name}.interpolate.{kind}",
                mode="linear",
                coordinate_transformation_mode="align_corners" if corners else "asymmetric",
            )
        )
        source = f"{name}.{kind}"
    surplus = {
        index: axis
        for index, axis in spread.items()
        if not (axis.aligned and not axis.phase) and (axis.phase or axis.computed * axis.step != axis.length)
    }
    if surplus:
        begins = [-axis.first for axis in surplus.values()]
        stops = [axis.length - axis.first for axis in surplus.values()]
        for role, numbers in (("begins", begins), ("ends", stops), ("axes", list(surplus))):
            arrays[f"{name}.cut.{role}"] = np.array(numbers, np.int64)
        inputs = [source, *(f"{name}.cut.{role}" for role in ("begins", "ends", "axes"))]
        nodes.append(helper.make_node("Slice", inputs, [target], name=f"{name}.cut"))
    nodes[-1].output[0] = target
    return nodes, arrays
