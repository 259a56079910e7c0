"""Following channels one by one through the operators of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.calibration import arrays_of, opset_of
from planner.draft import attributes
from planner.layering import ELEMENTWISE
from planner.linear import linear_of
from planner.masks.classes import ChannelClass, Masks

if TYPE_CHECKING:
    import onnx

    from planner.graph import LayerGraph

__all__ = ["follow"]

Indices = NDArray[np.int64]

_BY_CHANNEL = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"})
_NORMALISED = frozenset({"BatchNormalization", "InstanceNormalization"})
_RELABELLED = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_REDUCED = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceSumSquare"})
_MIXED: Mapping[str, str] = {
    "LRN": "normalises each channel by its neighbours",
    "Transpose": "moves channels to another axis",
    "MatMul": "multiplies tensors whose channels are followed no further",
    "Split": "takes channels apart",
    "Slice": "takes channels apart",
}
_NOT_OPEN = 13
"""From this operator set on, a softmax is over one axis alone."""


class _Sets:
    """Sets of numbers that are joined, and why some of them must stay whole."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.blocked: list[tuple[int, str]] = []

    def fresh(self, count: int) -> Indices:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, some: Sequence[int], others: Sequence[int]) -> None:
        for one, other in zip(some, others, strict=True):
            first, second = sorted((self.find(one), self.find(other)))
            self.parent[second] = first

    def block(self, items: Indices, reason: str) -> None:
        self.blocked.extend((int(item), reason) for item in items[:1])


class _Follower:
    """Walks through a network and keeps which channel is where."""

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph
        self.arrays = arrays_of(graph.model)
        self.opset = opset_of(graph.model)
        self.layer = {name: layer.name for layer in graph.layers for name in layer.nodes}
        self.read = Counter(name for node in graph.model.graph.node for name in node.input if name)
        self.constants = set(self.arrays)
        self.sets = _Sets()
        self.tensors: dict[str, Indices] = {}
        self.maker: list[str] = []
        self.consumers: dict[str, Indices] = {}
        self.block_all(graph.input_name, "it is what the network is given")
        for node in graph.model.graph.node:
            self.visit(node)
        self.sets.block(self.tensors[graph.output_name], "it is what the network gives")

    def shape(self, tensor: str) -> tuple[int, ...]:
        return tuple(self.graph.shapes[tensor])

    def make(self, tensor: str, layer: str) -> Indices:
        """Give a tensor channels that no other has."""
        shape = self.shape(tensor)
        found = self.sets.fresh(shape[1] if len(shape) > 1 else prod(shape))
        self.maker.extend([layer] * len(found))
        self.tensors[tensor] = found
        return found

    def block_all(self, tensor: str, reason: str, layer: str = "") -> None:
        """Give a tensor channels, all of which have to stay."""
        found = self.make(tensor, layer)
        self.sets.join(found[1:].tolist(), found[:-1].tolist())
        self.sets.block(found, reason)

    def visit(self, node: onnx.NodeProto) -> None:
        reads = [name for name in node.input if name and name not in self.constants]
        made = [name for name in node.output if name]
        if not reads:
            self.constants.update(made)
            return
        ends = self.passed(node, reads)
        if len(made) > 1:
            ends = "gives several tensors"
        elif any(name in self.constants and name not in self.arrays for name in node.input):
            ends = "reads constants that have to be computed"
        if isinstance(ends, str):
            reason = f"{node.op_type} in layer {self.layer[node.name]!r} {ends}"
            for name in reads:
                self.sets.block(self.tensors[name], reason)
            for name in made:
                self.block_all(name, reason, self.layer[node.name])
        else:
            self.tensors[made[0]] = ends

    def passed(self, node: onnx.NodeProto, reads: Sequence[str]) -> Indices | str:
        """Return the channels that a node gives, or why that is not known."""
        op, target = node.op_type, node.output[0]
        if op in {"Conv", "Gemm"}:
            return self.weighted(node)
        if op in ELEMENTWISE:
            return self.elementwise(reads, self.shape(target))
        if op in _BY_CHANNEL or op in _NORMALISED or op == "Resize":
            settings = node.input[3] if op == "Resize" and len(node.input) > 3 else ""
            if len(reads) > 1 or settings or self.shape(reads[0])[1] != self.shape(target)[1]:
                return "is given more than channels one by one"
            return self.tensors[reads[0]]
        if op == "Concat":
            return self.concatenated(node, reads)
        if op in _RELABELLED:
            return self.relabelled(self.tensors[reads[0]], self.shape(reads[0]), self.shape(target))
        rules: dict[str, Callable[[], bool]] = {
            **dict.fromkeys(_REDUCED, lambda: self.keeps_axes(node)),
            **dict.fromkeys(("Softmax", "LogSoftmax"), lambda: self.keeps_axis(node)),
            "Pad": lambda: self.keeps_pads(node),
        }
        if op in rules:
            return self.tensors[reads[0]] if rules[op]() else "is over channels"
        return _MIXED.get(op, "may mix channels")

    def weighted(self, node: onnx.NodeProto) -> Indices | str:
        linear = linear_of(node, self.arrays)
        layer, source = self.layer[node.name], node.input[0]
        if linear is None:
            return "has weights that are not constant, or of another form than rows and columns"
        if any(self.read[name] > 1 for name in node.input[1:] if name):
            return "has weights that another operator reads too"
        if linear.weight.ndim == 2 and len(self.shape(source)) != 2:
            return "multiplies along another axis than that of channels"
        if linear.groups == 1:
            self.consumers[layer] = self.tensors[source]
            return self.make(node.output[0], layer)
        if linear.groups == linear.outputs and linear.weight.shape[1] == 1:
            return self.tensors[source]
        return f"has {linear.groups} groups of channels"

    def elementwise(self, reads: Sequence[str], shape: tuple[int, ...]) -> Indices | str:
        whole = [name for name in reads if self.shape(name)[1:2] == shape[1:2]]
        if len(shape) < 2 or len(whole) < len(reads) or any(len(self.shape(name)) != len(shape) for name in reads):
            return "spreads a tensor over channels"
        first = self.tensors[whole[0]]
        for name in whole[1:]:
            self.sets.join(first.tolist(), self.tensors[name].tolist())
        return first

    def concatenated(self, node: onnx.NodeProto, reads: Sequence[str]) -> Indices | str:
        rank = len(self.shape(reads[0]))
        axis = attributes(node)["axis"] % rank
        if len(reads) < len(node.input):
            return "joins constants to channels"
        if axis == 1:
            return np.concatenate([self.tensors[name] for name in reads])
        return self.elementwise(reads, self.shape(node.output[0])) if axis else "joins images"

    @staticmethod
    def relabelled(found: Indices, shape: tuple[int, ...], target: tuple[int, ...]) -> Indices | str:
        each = prod(shape[2:])
        if len(target) > 1 and target[0] == shape[0]:
            if target[1] == shape[1]:
                return found
            if target[1] == shape[1] * each:
                return np.repeat(found, each)
            if each == 1 and shape[1] % target[1] == 0:
                rows = found.reshape(target[1], -1)
                if (rows == rows[:, :1]).all():
                    return rows[:, 0]
        return "takes channels apart"

    def keeps_axes(self, node: onnx.NodeProto) -> bool:
        rank = len(self.shape(node.input[0]))
        axes: Any = attributes(node).get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in self.arrays:
            axes = self.arrays[node.input[1]].tolist()
        return axes is not None and len(axes) > 0 and all(axis % rank > 1 for axis in axes)

    def keeps_axis(self, node: onnx.NodeProto) -> bool:
        rank = len(self.shape(node.input[0]))
        return self.opset >= _NOT_OPEN and attributes(node).get("axis", -1) % rank > 1

    def keeps_pads(self, node: onnx.NodeProto) -> bool:
        pads: Any = self.arrays.get(node.input[1]) if len(node.input) > 1 else attributes(node).get("pads")
        plain = pads is not None and len(node.input) < 4
        return plain and not pads[1] and not pads[len(pads) // 2 + 1]


def follow(graph: LayerGraph) -> Masks:
    """Find the classes of a network's channels; see `planner.masks.classes.masks_of`."""
    follower = _Follower(graph)
    sets, tensors = follower.sets, follower.tensors
    roots = np.array([sets.find(item) for item in range(len(sets.parent))], np.int64)
    tensors = {name: roots[found] for name, found in tensors.items()}
    together = _Sets()
    together.fresh(len(roots))
    for found in tensors.values():
        unique = np.unique(found)
        together.join(unique[1:].tolist(), unique[:-1].tolist())
    home = np.array([together.find(item) for item in range(len(roots))], np.int64)
    reasons: dict[int, str] = {}
    for item, reason in sets.blocked:
        reasons.setdefault(int(home[roots[item]]), reason)
    makers: dict[int, dict[str, None]] = {}
    for item, layer in enumerate(follower.maker):
        makers.setdefault(int(roots[item]), {})[layer] = None
    by_class: dict[int, list[str]] = {}
    for name, found in tensors.items():
        by_class.setdefault(int(home[found[0]]), []).append(name)
    anchors = {layer.name: layer.nodes[0] for layer in graph.layers}
    nodes = {node.name: node for node in graph.model.graph.node}
    of_tensor: dict[str, ChannelClass] = {}
    classes = []
    for key, names in by_class.items():
        members = set(names)
        passers = [
            layer
            for layer, anchor in anchors.items()
            if members.intersection(nodes[anchor].input)
            and members.intersection(nodes[anchor].output)
            and layer not in follower.consumers
        ]
        channels = np.unique(np.concatenate([tensors[name] for name in names]))
        made = [tuple(makers[int(root)]) for root in channels]
        classes.append(
            ChannelClass(
                name=next((layer for layers in made for layer in layers if layer), names[0]),
                tensors=tuple(names),
                producers=tuple(dict.fromkeys(layer for layers in made for layer in layers if layer)),
                consumers=tuple(layer for layer, found in follower.consumers.items() if home[roots[found[0]]] == key),
                passers=tuple(passers),
                families=tuple(
                    np.array([place for place, layers in enumerate(made) if layers == family], np.int64)
                    for family in dict.fromkeys(made)
                ),
                places={name: np.searchsorted(channels, tensors[name]) for name in names},
                reason=reasons.get(key, "" if len(channels) > 1 else "it has one channel"),
            )
        )
        of_tensor |= dict.fromkeys(names, classes[-1])
    return Masks(
        network=graph.name,
        classes=tuple(classes),
        reads={
            layer: of_tensor[name]
            for layer, anchor in anchors.items()
            for name in [next((item for item in nodes[anchor].input if item in of_tensor), "")]
            if name
        },
        writes={layer.name: of_tensor[layer.outputs[0]] for layer in graph.layers},
    )
