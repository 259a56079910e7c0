"""Equalisation across layers: channels of a tensor scaled so that one grid serves them all, without a changed value.

Where a tensor runs from layers with weights to layers with weights through operators that are positively homogeneous
(a Relu, a maximum or a mean), its channel c can be divided by any s > 0 if the rows that make it are divided and the
columns that read it multiplied: Nagel, van Baalen, Blankevoort and Welling, *Data-free quantization through weight
equalization and bias correction* (ICCV 2019), section 4.1; Meller, Finkelstein, Almog and Grobman, *Same, same but
different* (ICML 2019).  Weights have a scale for each output here, so that rows gain nothing; what gains are the
activations, which share one.  The factor takes from a channel of wide activations as much as its columns can bear,
s = (r / w)^(1/2) for its range r and that of its columns w, as Xiao, Lin, Seznec et al., *SmoothQuant* (ICML 2023),
equation 4, have it.

Factors are powers of two: a product with one is exact, and so the equalised network computes in float32 what it did
before, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from planner.approximations.base import LayerView
    from planner.graph import Layer, LayerGraph

__all__ = ["Class", "classes", "equalised"]

_FOLLOWING = frozenset({"Relu", "LeakyRelu", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators behind an anchor that let a factor through: homogeneous, and each channel apart."""
_PASSING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
"""Anchors that do."""
_REACH = 6
"""Greatest power of two, either way: what is beyond is dead rather than narrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """Hold tensors that share factors, and the layers whose weights take them in.

    Attributes:
        tensor: The tensor that the class begins with.
        producer: Layer that makes it; its rows are divided.
        consumers: Layers that read one of the tensors; their columns are multiplied.
        channels: Number of factors.

    >>> Class(tensor="t", producer="conv1", consumers=("conv2",), channels=8).channels
    8
    """

    tensor: str
    producer: str
    consumers: tuple[str, ...]
    channels: int

    def __post_init__(self) -> None:
        """Check that somebody reads it."""
        if not self.consumers or self.channels < 1:
            raise InputError(f"tensor {self.tensor!r}: {self.channels} channels read by {self.consumers}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Network:
    """What has to be known of a network."""

    graph: LayerGraph
    views: Mapping[str, LayerView]
    nodes: Mapping[str, onnx.NodeProto] = field(repr=False)
    readers: Mapping[str, Sequence[Layer]] = field(repr=False)
    uses: Mapping[str, int] = field(repr=False)

    @classmethod
    def of(cls, graph: LayerGraph, views: Mapping[str, LayerView]) -> _Network:
        """Look a network over."""
        readers: dict[str, list[Layer]] = {}
        for layer in graph.layers:
            for name in layer.inputs:
                readers.setdefault(name, []).append(layer)
        nodes = {node.name: node for node in graph.model.graph.node}
        uses = Counter(name for node in nodes.values() for name in node.input)
        return cls(graph=graph, views=views, nodes=nodes, readers=readers, uses=uses)

    def operators(self, layer: Layer) -> list[onnx.NodeProto]:
        """Return a layer's operators, its anchor first."""
        return [self.nodes[name] for name in layer.nodes]

    def anchor(self, layer: str) -> onnx.NodeProto:
        """Return the operator that a layer begins with."""
        return self.operators(self.graph.layer(layer))[0]

    def is_depthwise(self, layer: str) -> bool:
        """Tell whether each of a layer's outputs reads one channel, the one of its number."""
        linear = self.views[layer].linear
        return linear is not None and linear.groups == linear.outputs > 1 and linear.weight.shape[1] == 1

    def channels(self, layer: Layer) -> int:
        """Return a layer's outputs where it has weights of its own that factors can go into, else 0."""
        linear, anchor = self.views[layer.name].linear, self.operators(layer)[0]
        if linear is None or anchor.op_type not in {"Conv", "Gemm"}:
            return 0
        suited = linear.groups == 1 or self.is_depthwise(layer.name)
        return linear.outputs if suited and all(self.uses[name] == 1 for name in anchor.input[1:] if name) else 0

    def is_open(self, layer: Layer) -> bool:
        """Tell whether a layer has one output, and nothing behind its anchor that holds a factor back."""
        following = [node.op_type for node in self.operators(layer)[1:]]
        return len(layer.outputs) == 1 and _FOLLOWING.issuperset(following)

    def takes_in(self, layer: Layer, tensor: str) -> bool:
        """Tell whether a layer with weights reads a tensor, and reads it by its anchor alone."""
        anchor, *following = self.operators(layer)
        alone = anchor.input[0] == tensor and all(tensor not in node.input for node in following)
        return alone and self.channels(layer) > 0


def classes(graph: LayerGraph, views: Mapping[str, LayerView]) -> tuple[Class, ...]:
    """Find the tensors whose channels can be scaled.

    Args:
        graph: The network.
        views: What is known of its layers.

    Returns:
        The classes in topological order. A tensor that is added to another, joined with one or the network's output
        is in none, nor is one that goes through anything but what is listed in this module.
    """
    network = _Network.of(graph, views)
    found = []
    for layer in graph.layers:
        channels = network.channels(layer) if network.is_open(layer) else 0
        consumers = _consumers(network, layer.outputs[0]) if channels else []
        if consumers:
            tensor = layer.outputs[0]
            found.append(Class(tensor=tensor, producer=layer.name, consumers=tuple(consumers), channels=channels))
    return tuple(found)


def _consumers(network: _Network, tensor: str) -> list[str]:
    """Return the layers with weights that a tensor comes to; none where it also comes to anything else."""
    if tensor == network.graph.output_name:
        return []
    found: list[str] = []
    for layer in network.readers.get(tensor, ()):
        if network.takes_in(layer, tensor):
            found.append(layer.name)
        elif layer.op in _PASSING and network.is_open(layer):
            behind = _consumers(network, layer.outputs[0])
            if not behind:
                return []
            found += behind
        else:
            return []
    return found


def equalised(
    graph: LayerGraph,
    views: Mapping[str, LayerView],
    arrays: Mapping[str, NDArray[Any]],
    values: Callable[[str], NDArray[np.float32]],
) -> dict[str, NDArray[Any]]:
    """Return the constants of a network with equalised channels.

    Args:
        graph: The network.
        views: What is known of its layers.
        arrays: Its constants.
        values: Gives a tensor between layers on calibration images, ``[image][channel]...``.

    Returns:
        The same constants; weights and biases of the layers at either end of a class are scaled.
    """
    network, new = _Network.of(graph, views), dict(arrays)
    for group in classes(graph, views):
        columns = np.zeros(group.channels)
        for name in group.consumers:
            if network.is_depthwise(name):
                columns[:] = 1.0  # each output has a scale of its own and reads one channel: nothing is lost
            else:
                columns = np.maximum(columns, _columns(new[network.anchor(name).input[1]], group.channels))
        factors = _factors(_ranges(values(group.tensor), group.channels), columns)
        if np.all(factors == 1):
            continue
        for name in network.anchor(group.producer).input[1:]:
            if name:
                new[name] = _scaled(new[name], 1 / factors, axis=0)
        for name in group.consumers:
            weight = network.anchor(name).input[1]
            if network.is_depthwise(name):
                new[weight] = _scaled(new[weight], factors, axis=0)
            else:
                each = np.repeat(factors, new[weight].shape[1] // group.channels)
                new[weight] = _scaled(new[weight], each, axis=1)
    return new


def _ranges(values: NDArray[np.float32], channels: int) -> NDArray[np.float64]:
    """Return the greatest magnitude in each channel; of a flat tensor, in its share of it."""
    across = np.abs(values.reshape(len(values), channels, -1)).max(axis=(0, 2))
    ranges: NDArray[np.float64] = across.astype(np.float64)
    return ranges


def _columns(weight: NDArray[np.float32], channels: int) -> NDArray[np.float64]:
    """Return how large the weights are that read each channel, as shares of the greatest of their output."""
    flat = np.abs(weight).reshape(len(weight), channels, -1).max(axis=2).astype(np.float64)
    shares = flat / np.maximum(flat.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    greatest: NDArray[np.float64] = shares.max(axis=0)
    return greatest


def _factors(ranges: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the factor of each channel, a power of two; 1 for channels that are never anything but nought."""
    live = (ranges > 0) & (columns > 0)
    if not live.any():
        return np.ones(len(ranges), np.float32)
    wanted = np.zeros(len(ranges))
    wanted[live] = 0.5 * np.log2(ranges[live] / columns[live])
    powers = np.clip(np.rint(wanted - np.median(wanted[live])), -_REACH, _REACH)
    return np.where(live, np.exp2(powers), 1.0).astype(np.float32)


def _scaled(array: NDArray[Any], factors: NDArray[Any], *, axis: int) -> NDArray[Any]:
    shape = [1] * array.ndim
    shape[axis] = -1
    result: NDArray[Any] = (array * factors.reshape(shape)).astype(array.dtype)
    return result
