"""Cutting a network into its layers, each an ONNX model that runs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEDULE = "blinkplan.schedule"
"""Key of the ``metadata_props`` of an ONNX node that say by which algorithm its kernel computes it."""
WINOGRAD = "winograd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One network to be built or run, and whose nodes are whose.

    Attributes:
        name: Name of the network, and of its function in a built module.
        model: An ``onnx.ModelProto`` with static shapes and batch 1.
        nodes: Names of the nodes of each layer, layers in topological order, every node in exactly one.
    """

    name: str
    model: Any
    nodes: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        """Refuse layers that do not hold every node exactly once."""
        listed = sorted(name for names in self.nodes.values() for name in names)
        present = sorted(node.name for node in self.model.graph.node)
        if listed != present:
            odd = sorted(set(listed) ^ set(present)) or ["a node is listed twice"]
            raise ValueError(f"{self.name}: the layers must hold every node exactly once, not so: {odd[:5]}")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in topological order."""
        return tuple(self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One layer cut out of its network.

    Attributes:
        layer: Its name.
        nodes: Its nodes in topological order.
        inputs: Tensors that it reads and does not make, constants aside.
        outputs: Tensors that others read, or that leave the network.
        initialisers: Constants that it reads, by name.
    """

    layer: str
    nodes: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    initialisers: Mapping[str, Any]

    @property
    def winograd(self) -> bool:
        """Whether a node asks to be computed by Winograd's algorithm."""
        return any(p.key == SCHEDULE and p.value == WINOGRAD for node in self.nodes for p in node.metadata_props)


class Network:
    """A network whose shapes are inferred, ready to be cut."""

    def __init__(self, entry: Entry) -> None:
        """Infer the shapes of ``entry.model``."""
        import onnx

        self.entry = entry
        self.model = onnx.shape_inference.infer_shapes(entry.model, strict_mode=True, data_prop=True)
        graph = self.model.graph
        self.initialisers = {i.name: i for i in graph.initializer}
        self.infos = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
        (self.input,) = (i.name for i in graph.input if i.name not in self.initialisers)
        (self.output,) = (o.name for o in graph.output)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Give the static shape of a tensor."""
        return tuple(d.dim_value for d in self.infos[tensor].type.tensor_type.shape.dim)

    def segments(self) -> list[Segment]:
        """Cut the network into its layers, in topological order."""
        graph = self.model.graph
        owner = {name: layer for layer, names in self.entry.nodes.items() for name in names}
        readers: dict[str, set[str]] = {self.output: {""}}
        members: dict[str, list[Any]] = {layer: [] for layer in self.entry.nodes}
        for node in graph.node:
            members[owner[node.name]].append(node)
            for name in node.input:
                readers.setdefault(name, set()).add(owner[node.name])
        found = []
        for layer, nodes in members.items():
            made = [o for node in nodes for o in node.output]
            read = [i for node in nodes for i in node.input if i]
            found.append(
                Segment(
                    layer=layer,
                    nodes=tuple(nodes),
                    inputs=tuple(dict.fromkeys(i for i in read if i not in made and i not in self.initialisers)),
                    outputs=tuple(o for o in made if readers.get(o, set()) - {layer}),
                    initialisers={i: self.initialisers[i] for i in read if i in self.initialisers},
                )
            )
        return found

    def extract(self, segment: Segment, *, open_constants: Sequence[str] = ()) -> Any:
        """Make an ``onnx.ModelProto`` of one layer.

        Args:
            segment: The layer.
            open_constants: Constants that become inputs instead, after the real inputs.
        """
        from onnx import helper

        opened = [segment.initialisers[name] for name in open_constants]
        graph = helper.make_graph(
            list(segment.nodes),
            segment.layer,
            [self.infos[i] for i in segment.inputs]
            + [helper.make_tensor_value_info(c.name, c.data_type, list(c.dims)) for c in opened],
            [self.infos[o] for o in segment.outputs],
            [v for k, v in segment.initialisers.items() if k not in open_constants],
        )
        model = helper.make_model(graph, opset_imports=list(self.model.opset_import))
        model.ir_version = self.model.ir_version
        return model
