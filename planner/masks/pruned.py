"""A network without some of its channels: its operators, its weights, and its tensors on the calibration images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import LayerView
from planner.approximations.prune import Criterion, kept, without
from planner.calibration import Calibration
from planner.layering import ELEMENTWISE
from planner.linear import Linear, Moments, output_rows, sample
from planner.masks.classes import masks_of
from planner.masks.thinning import thinner

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from planner.activations.grids import Grid
    from planner.choices import Choice

__all__ = ["Pruned", "pruned"]

Float32 = NDArray[np.float32]
Indices = NDArray[np.int64]


def pruned(
    calibration: Calibration,
    choices: Mapping[str, Choice],
    criterion: Criterion = "surgeon",
    *,
    exact: Calibration | None = None,
) -> Calibration:
    """Return a calibration of the network without the channels that choices remove; the same where they remove none.

    Args:
        calibration: The whole network on the calibration images.
        choices: The choice of every layer.
        criterion: By what channels are chosen.
        exact: The network as it is given, where the other is a form of it that computes the same with other weights:
            channels are chosen on it, so that they are the same for all forms.

    Raises:
        InputError: The layers of a class do not agree on its share, or it cannot keep less than all its channels.
    """
    shares = masks_of(calibration.graph).shares(choices)
    return Pruned(calibration, shares, criterion, exact or calibration) if shares else calibration


class Pruned(Calibration):
    """Show a network without some of its channels as if it had never had them.

    Its tensors are those of the exact network without the removed channels, and layers ought to give on them what
    they give in the exact network.  Weights that read removed channels are fitted to that.

    Attributes:
        channels: The channels that each class keeps, by its name.
    """

    def __init__(self, whole: Calibration, shares: Mapping[str, str], criterion: Criterion, exact: Calibration) -> None:
        """Choose the channels that stay, and fit the weights that read them."""
        vars(self).update(vars(whole))  # it is the same network; what differs is overridden below
        self._whole = whole
        masks = masks_of(whole.graph)
        self.channels: dict[str, Indices] = {}
        self._left: dict[str, Indices] = {}
        for found in masks.classes:
            if found.name in shares:
                self.channels[found.name] = kept(exact, found, shares[found.name], criterion)
                for tensor, places in found.places.items():
                    self._left[tensor] = np.flatnonzero(np.isin(places, self.channels[found.name]))
        self.arrays = dict(whole.arrays)
        self.views = {name: self._view(view) for name, view in whole.views.items()}
        anchors = {layer.nodes[0]: layer.name for layer in whole.graph.layers}
        self._nodes = [self._sliced(node, anchors.get(node.name, "")) for node in whole.nodes]
        self._anchors = {node.name: node for node in self._nodes}
        self._targets = {}
        self._moments = {}

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The operators of the network without its channels."""
        return self._nodes

    def exact(self, tensor: str) -> Float32:
        """Return the channels that are left of a tensor, as the exact network computes them, ``[image][...]``."""
        whole = self._whole.exact(tensor)
        return whole[:, self._left[tensor]] if tensor in self._left else whole

    def grid(self, tensor: str, dtype: str) -> Grid:
        """Return the grid of a tensor; channels that are removed leave it as it is."""
        return self._whole.grid(tensor, dtype)

    def moments(self, layer: str) -> Moments:
        """Return the second moments of the inputs that are left to a layer, as the exact network gives them."""
        columns, whole = self._columns(layer), self._whole.moments(layer)
        if self._groups(layer) is not None:
            return replace(whole, gram=whole.gram[self._groups(layer)])
        if columns is None:
            return whole
        used = np.append(columns, whole.gram.shape[1] - 1)
        return replace(whole, gram=whole.gram[:, used[:, None], used])

    def targets(self, layer: str) -> Float32:
        """Return what the exact network's anchor gives at the sampled positions, ``[group][row][output]``."""
        if layer not in self._targets:
            view, whole = self.views[layer], self._whole.views[layer]
            if view.linear is None or whole.linear is None:
                return self._whole.targets(layer)
            anchor = self._anchors[self.graph.layer(layer).nodes[0]]
            count = len(self.images)
            positions = sample(view.linear, view.output_shape, count, rows=self.rows)
            if len(positions) == len(sample(whole.linear, whole.output_shape, count, rows=self.rows)):
                rows = self._whole.targets(layer)
            else:
                rows = output_rows(whole.linear, self._whole.exact(anchor.input[0]), positions, whole.output_shape)
            left = self._left.get(anchor.output[0])
            if left is not None:
                rows = rows[left] if whole.linear.groups > 1 else rows[:, :, left]
            self._targets[layer] = rows
        return self._targets[layer]

    def _view(self, view: LayerView) -> LayerView:
        """Show a layer without the channels that are gone, and put its weights among the constants."""
        anchor = self._whole.anchor(view.name)
        linear = None if view.linear is None else self._linear(view.name, view.linear)
        if linear is not None and linear is not view.linear:
            self.arrays[anchor.input[1]] = linear.weight
            if linear.bias is not None:
                self.arrays[anchor.input[2]] = linear.bias
        return thinner(view, self.graph, self._left, linear)

    def _linear(self, layer: str, linear: Linear) -> Linear:
        columns, rows = self._columns(layer), self._left.get(self._whole.anchor(layer).output[0])
        if columns is not None:
            linear = without(linear, self._whole.moments(layer), columns)
        if rows is None:
            return linear
        return replace(
            linear,
            weight=np.ascontiguousarray(linear.weight[rows]),
            bias=None if linear.bias is None else linear.bias[rows],
            groups=len(rows) if linear.groups > 1 else 1,
        )

    def _columns(self, layer: str) -> Indices | None:
        """Return the products that are left to each output of a layer; None where it reads all its channels."""
        linear = self._whole.views[layer].linear
        left = self._left.get(self._whole.anchor(layer).input[0])
        if linear is None or left is None or linear.groups > 1:
            return None
        each = linear.depth // linear.weight.shape[1]
        columns: Indices = (left[:, None] * each + np.arange(each)).ravel()
        return columns

    def _groups(self, layer: str) -> Indices | None:
        linear = self._whole.views[layer].linear
        return self._left.get(self._whole.anchor(layer).input[0]) if linear is not None and linear.groups > 1 else None

    def _sliced(self, node: onnx.NodeProto, layer: str) -> onnx.NodeProto:
        """Return a node that does without the channels that are gone."""
        left = self._left.get(node.output[0])
        linear = self.views[layer].linear if layer else None
        if left is None or (linear is not None and linear.groups == 1):
            return node
        copy = type(node)()
        copy.CopyFrom(node)
        if linear is not None:
            next(item for item in copy.attribute if item.name == "group").i = linear.groups
            return copy
        for index, name in enumerate(node.input):
            if name not in self._whole.arrays:
                continue
            array = self._slice(node, index, self._whole.arrays[name], left)
            if array is not None:
                copy.input[index] = f"{node.name}.{name}.kept"
                self.arrays[copy.input[index]] = array
        return copy

    def _slice(self, node: onnx.NodeProto, index: int, array: NDArray[Any], left: Indices) -> NDArray[Any] | None:
        """Return what is left of a constant that a node reads; None where it does not depend on channels."""
        shape = self.graph.shapes[node.output[0]]
        if node.op_type in {"BatchNormalization", "InstanceNormalization"}:
            return array[left]
        if node.op_type == "Reshape" and array[1] > 0:
            return np.array([*array[:1], len(left), *array[2:]], array.dtype)
        axis = array.ndim - len(shape) + 1
        if node.op_type in ELEMENTWISE and axis >= 0 and array.shape[axis] == shape[1]:
            return np.take(array, left, axis=axis)
        return None
