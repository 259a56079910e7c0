"""Filter sampling: a convolution keeps some rows and columns of its filters, and the rest is made up for by those.

Sharif et al., *ApproxTuner: a compiler and runtime system for adaptive approximations* (PPoPP 2021), section 2.4,
sample the elements of a filter at a regular distance and scale the sum up. Here whole rows and columns are kept, side
by side or at equal distances, so that what is left is again a convolution, and a smaller one; which, is decided by the
outputs on calibration inputs, and instead of one factor for all every weight is fitted by least squares to what the
whole filter gives (`planner.refit.Aim`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement, exact
from planner.refit import solve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from planner.linear import Linear, Moments

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "Kept", "apply", "keeps", "offer"]

KIND = "structure"
CHOICES = ("sample@0.67", "sample@0.5", "sample@0.34")
ON_REQUEST = ("sample@0.34",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Say which rows (or columns) of a filter are kept, and what the smaller filter's frame of zeros is.

    Attributes:
        first: The first row kept.
        count: How many are.
        distance: Rows of the filter from one to the next.
        pads: Zeros before and behind the input's rows.
    """

    first: int
    count: int
    distance: int
    pads: tuple[int, int]

    @property
    def indices(self) -> NDArray[np.int64]:
        """The rows kept."""
        return self.first + self.distance * np.arange(self.count)


def _ways(view: LayerView, linear: Linear, axis: int) -> Iterator[Kept]:
    """List the ways to keep some rows (or columns) that leave the size of the output as it is.

    Depthwise filters and others in groups are kept without gaps, the form that their kernels are made for.
    """
    length, stride, dilation = linear.weight.shape[2 + axis], linear.strides[axis], linear.dilations[axis]
    size, made = view.input_shape[2 + axis], view.output_shape[2 + axis]
    for count in range(1, length + 1):
        widest = (length - 1) // (count - 1) if count > 1 and linear.groups == 1 else 1
        for distance in range(1, widest + 1):
            for first in range(length - (count - 1) * distance):
                before = linear.pads[axis] - first * dilation
                reach = (count - 1) * distance * dilation + 1
                behind = max(0, (made - 1) * stride + reach - before - size)
                if before >= 0 and (size + before + behind - reach) // stride + 1 == made:
                    yield Kept(first=first, count=count, distance=distance, pads=(before, behind))


def keeps(view: LayerView, share: float) -> list[tuple[Kept, Kept]]:
    """List the rows and columns of a convolution's filters that may be kept together: the most that a share allows.

    Args:
        view: The layer.
        share: Share of a filter's elements.

    Returns:
        Ways to keep rows and columns, of one number of elements; none where no way leaves as few.
    """
    linear = view.linear
    if linear is None or not linear.is_conv:
        return []
    limit = share * linear.weight.shape[2] * linear.weight.shape[3]
    found = list(product(_ways(view, linear, 0), _ways(view, linear, 1)))
    most = max(
        (rows.count * columns.count for rows, columns in found if rows.count * columns.count <= limit), default=0
    )
    return [(rows, columns) for rows, columns in found if rows.count * columns.count == most]


def offer(view: LayerView) -> Offer:
    """Offer the shares that leave different numbers of elements."""
    linear = view.linear
    if linear is None or not linear.is_conv:
        return Offer(reason=f"{view.op} has no filters of rows and columns")
    height, width = linear.weight.shape[2:]
    if height * width == 1:
        return Offer(reason="its filters are a single element each")
    if view.first:
        return Offer(reason="it is the first convolution, which costs much accuracy and little time")
    choices: dict[int, str] = {}
    for name in CHOICES:
        for rows, columns in keeps(view, _share(name))[:1]:
            choices.setdefault(rows.count * columns.count, name)
    if not choices:
        return Offer(reason=f"no smaller part of its {height}x{width} filters gives an output of the same size")
    return Offer(choices=tuple(choices.values()))


def apply(context: Context, choice: str) -> Replacement:
    """Keep the rows and columns that do best, and fit their weights."""
    from onnx import helper

    aim = context.aim()
    cross = (aim.wanted.swapaxes(1, 2) @ aim.rows).astype(np.float64) / aim.rows.shape[1]
    candidates: list[tuple[float, int, Linear, NDArray[np.int64]]] = []
    for way in keeps(context.view, _share(choice)):
        small, products = _smaller(context.biased, *way)
        part = replace(aim.moments, gram=aim.gram[:, products][:, :, products], cross=cross[:, :, products])
        candidates.append((_missed(solve(small, part), part), len(candidates), small, products))
    _, _, small, products = min(candidates, key=lambda candidate: candidate[:2])
    fitted = aim.reading(np.ascontiguousarray(aim.rows[:, :, products])).fit(small)
    new = exact(context.anchor, fitted)
    values = {item.name: helper.get_attribute_value(item) for item in new.nodes[0].attribute}
    values.pop("auto_pad", None)
    values |= {"kernel_shape": list(fitted.weight.shape[2:])}
    values |= {"pads": list(fitted.pads), "dilations": list(fitted.dilations)}
    name = f"{context.view.name}.sampled"
    node = helper.make_node("Conv", list(new.nodes[0].input), list(context.anchor.output), name=name, **values)
    return replace(new, nodes=(node,))


def _smaller(linear: Linear, rows: Kept, columns: Kept) -> tuple[Linear, NDArray[np.int64]]:
    """Return a convolution with some rows and columns of its filters, and which of its products those are."""
    weight = linear.weight[:, :, rows.indices][:, :, :, columns.indices]
    places = np.arange(linear.depth).reshape(linear.weight.shape[1:])
    products = places[:, rows.indices][:, :, columns.indices].ravel()
    small = replace(
        linear,
        weight=np.ascontiguousarray(weight),
        pads=(rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]),
        dilations=(linear.dilations[0] * rows.distance, linear.dilations[1] * columns.distance),
    )
    return small, np.append(products, linear.depth)


def _missed(linear: Linear, moments: Moments) -> float:
    """Return the mean square of what fitted weights miss, less what is the same for all."""
    if linear.bias is None or moments.cross is None:
        raise ValueError("what weights miss is counted with their bias and against targets")
    weights = linear.matrix.reshape(linear.groups, -1, linear.depth)
    full = np.concatenate([weights, linear.bias.reshape(linear.groups, -1, 1)], axis=2).astype(np.float64)
    return float(np.sum((full @ moments.gram - 2 * moments.cross) * full))


def _share(choice: str) -> float:
    return float(choice.partition("@")[2])
