"""The layer graph: what a network is made of, as far as planning needs to know.

It is read from ONNX, the source of truth: layer names are the names of the source's nodes, and they stay the
same through folding, rewriting, measuring, planning and building.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import InputError
from planner.folding import fold
from planner.layering import (
    Shape,
    boundaries,
    bytes_of,
    group,
    held_types,
    live_bytes,
    multiply_accumulates,
    parameters_of,
)
from planner.source import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["Edge", "Layer", "LayerGraph", "from_folded", "read"]

_SEQUENCE_DIMS = 3
_FLOAT = 1
"""ONNX's number for float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Describe one layer: an anchor operator with its fused epilogue.

    Attributes:
        name: Name of the anchor node in the source; unnamed there, ``<op>_<topological index>``.
        op: ONNX operator of the anchor.
        nodes: Names of the nodes in ``LayerGraph.model``, anchor first, then the epilogue in topological
            order.
        inputs: Tensors it reads from other layers or from the network's input.
        outputs: Tensors that other layers, or the network's output, read from it.
        input_shapes: Their shapes at batch 1.
        output_shapes: Their shapes at batch 1.
        parameter_bytes: Bytes of its weights and biases.
        activation_bytes: Bytes alive while it runs: its inputs and outputs, and other tensors live across it.
        macs: Multiply-accumulate operations at batch 1.

    >>> Layer(
    ...     name="relu1",
    ...     op="Relu",
    ...     nodes=("relu1",),
    ...     inputs=("x",),
    ...     outputs=("y",),
    ...     input_shapes=((1, 8),),
    ...     output_shapes=((1, 8),),
    ...     parameter_bytes=0,
    ...     activation_bytes=64,
    ...     macs=0,
    ... ).op
    'Relu'
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    parameter_bytes: int
    activation_bytes: int
    macs: int

    def __post_init__(self) -> None:
        """Check that the layer has nodes and outputs, and a shape for each tensor."""
        if not self.nodes or not self.outputs:
            raise InputError(f"layer {self.name!r} has {len(self.nodes)} nodes and {len(self.outputs)} outputs")
        if len(self.inputs) != len(self.input_shapes) or len(self.outputs) != len(self.output_shapes):
            raise InputError(f"layer {self.name!r}: expected one shape for each of its inputs and outputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Connect two layers by the tensor that one makes and the other reads.

    >>> Edge(source="conv1", target="pool1", tensor="t").tensor
    't'
    """

    source: str
    target: str
    tensor: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerGraph:
    """Hold a folded network and its layers.

    Attributes:
        name: Name of the model.
        model: The folded network: static shapes at batch 1, every node named uniquely.
        layers: Its layers in topological order; every node of ``model`` belongs to exactly one.
        edges: What connects the layers.
        input_name: Name of the tensor that it reads.
        input_shape: Its shape at batch 1: ``(1, C, H, W)`` of an image, ``(1, length, width)`` of a sequence.
        output_name: Name of the tensor of class scores.
        classes: Number of classes: of values that it gives, where it is no classifier.
        shapes: Shape of every tensor of ``model`` at batch 1, initialisers included.
        source_digest: SHA-256 of the source file.

    >>> read("data/models/missing.onnx")
    Traceback (most recent call last):
    ...
    planner.errors.InputError: data/models/missing.onnx: there is no such file; expected an ONNX model
    """

    name: str
    model: onnx.ModelProto = field(repr=False)
    layers: tuple[Layer, ...] = field(repr=False)
    edges: tuple[Edge, ...] = field(repr=False)
    input_name: str
    input_shape: Shape
    output_name: str
    classes: int
    shapes: Mapping[str, Shape] = field(repr=False)
    source_digest: str

    @property
    def structure_digest(self) -> str:
        """SHA-256 of all but the name and the values of floating-point constants: what time and bytes depend on."""
        from onnx import TensorProto

        floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
        digest = hashlib.sha256(repr(self.input_shape).encode())
        for node in self.model.graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        for item in self.model.graph.initializer:
            digest.update(repr((item.name, item.data_type, list(item.dims))).encode())
            if item.data_type not in floating:
                digest.update(item.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def __post_init__(self) -> None:
        """Check that names are unique and that every node belongs to exactly one layer."""
        if not self.name or "=" in self.name or "," in self.name:
            raise InputError(f"model name {self.name!r}: expected a name without '=' and ','")
        owned = [name for layer in self.layers for name in layer.nodes]
        if sorted(owned) != sorted(node.name for node in self.model.graph.node):
            raise InputError(f"model {self.name!r}: every node must belong to exactly one layer")

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights and biases of the folded network."""
        return sum(layer.parameter_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Greatest number of bytes alive while any layer runs."""
        return max(layer.activation_bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return sum(layer.macs for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """Return a layer by its name.

        Raises:
            InputError: There is no such layer; the message lists those that exist.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        existing = ", ".join(layer.name for layer in self.layers)
        raise InputError(f"model {self.name!r} has no layer {name!r}; it has: {existing}")

    def __str__(self) -> str:
        """Write the layers as a table."""
        head = ("layer", "operator", "epilogue", "output", "MACs", "weights B", "live B")
        operators = {node.name: node.op_type for node in self.model.graph.node}
        rows = [
            (
                layer.name,
                layer.op,
                "+".join(operators[name] for name in layer.nodes[1:]),
                "x".join(str(length) for length in layer.output_shapes[0][1:]),
                f"{layer.macs:,}",
                f"{layer.parameter_bytes:,}",
                f"{layer.activation_bytes:,}",
            )
            for layer in self.layers
        ]
        rows.append(("total", "", "", "", f"{self.macs:,}", f"{self.parameter_bytes:,}", f"{self.activation_bytes:,}"))
        width = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        left = 4
        lines = [
            "  ".join(
                cell.ljust(size) if column < left else cell.rjust(size)
                for column, (cell, size) in enumerate(zip(row, width, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        shape = "x".join(str(length) for length in self.input_shape)
        return "\n".join([f"{self.name}: {len(self.layers)} layers, input {shape}, {self.classes} classes", *lines])


def read(
    path: str | os.PathLike[str], *, name: str | None = None, input_shape: tuple[int, ...] | None = None
) -> LayerGraph:
    """Read an ONNX classifier, fold it and group it into layers.

    Args:
        path: The ONNX file.
        name: Name of the model; the file's name without its suffix if None.
        input_shape: Shape ``(1, C, H, W)`` of an image or ``(1, length, width)`` of a sequence, needed where the
            file leaves a size other than the batch open.

    Returns:
        The layer graph.

    Raises:
        InputError: The file is missing, is not a complete ONNX model, holds an operator that cannot be run,
            is not of known sizes, or gives an image something else than class scores.
    """
    draft, digest = load(Path(path), input_shape)
    folded = fold(draft)
    return from_folded(folded, name=name or Path(path).stem, shapes=draft.shapes, source_digest=digest, where=str(path))


def from_folded(
    model: onnx.ModelProto, *, name: str, shapes: Mapping[str, Shape], source_digest: str, where: str
) -> LayerGraph:
    """Group a folded model into layers.

    Args:
        model: The folded model.
        name: Name of the model.
        shapes: Shape of every tensor at batch 1.
        source_digest: SHA-256 of the file it came from.
        where: What error messages name as the source.

    Returns:
        The layer graph.

    Raises:
        InputError: The output is not one row of class scores.
    """
    proto = model.graph
    constants = {item.name: item.data_type for item in proto.initializer}
    sizes = {item.name: bytes_of(prod(item.dims), item.data_type) for item in proto.initializer}
    groups = group(proto.node, set(constants))
    output = proto.output[0].name
    ends = boundaries(groups, set(constants), output)
    types = held_types(proto.node, constants)
    between = {tensor for reads, makes in ends for tensor in (*reads, *makes)}
    sizes_between = {tensor: bytes_of(prod(shapes[tensor]), types.get(tensor, _FLOAT)) for tensor in between}
    alive = live_bytes(ends, sizes_between, output)
    layers = [
        Layer(
            name=nodes[0].name,
            op=nodes[0].op_type,
            nodes=tuple(node.name for node in nodes),
            inputs=reads,
            outputs=makes,
            input_shapes=tuple(shapes[tensor] for tensor in reads),
            output_shapes=tuple(shapes[tensor] for tensor in makes),
            parameter_bytes=sum(sizes[tensor] for tensor in parameters_of(nodes, constants)),
            activation_bytes=live,
            macs=sum(multiply_accumulates(node, shapes) for node in nodes),
        )
        for nodes, (reads, makes), live in zip(groups, ends, alive, strict=True)
    ]
    source = {tensor: layer.name for layer in layers for tensor in layer.outputs}
    edges = tuple(
        Edge(source=source[tensor], target=layer.name, tensor=tensor)
        for layer in layers
        for tensor in layer.inputs
        if tensor in source
    )
    shape = shapes[output]
    classes = prod(shape[1:])
    # What a sequence is turned into need not be class scores: its time and its bytes are known all the same.
    scores = max(shape[1:], default=0) == classes or len(shapes[proto.input[0].name]) == _SEQUENCE_DIMS
    if len(shape) < 2 or shape[0] != 1 or not scores:
        raise InputError(f"{where}: output {output!r} has shape {shape}; expected class scores, (1, classes)")
    return LayerGraph(
        name=name,
        model=model,
        layers=tuple(layers),
        edges=edges,
        input_name=proto.input[0].name,
        input_shape=shapes[proto.input[0].name],
        output_name=output,
        classes=classes,
        shapes=shapes,
        source_digest=source_digest,
    )
