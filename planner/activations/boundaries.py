"""Where layers meet: rounding a tensor to bytes, and reading it back, as the formats of the two layers ask for.

A layer that writes bytes ends in ``QuantizeLinear``; one that reads a tensor of bytes begins with
``DequantizeLinear``, whatever it computes with.  One that wants bytes and is given float32 rounds for itself.  The
operators belong to the layer at whose end they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.activations.grids import Grid

if TYPE_CHECKING:
    import onnx

    from planner.graph import Layer

__all__ = ["Joined", "Rounding", "join"]

FLOAT = "float32"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined:
    """Hold the nodes of a layer with what turns its tensors from one format into another.

    Attributes:
        nodes: The nodes, the layer's own first.
        arrays: The constants that were added.
    """

    nodes: tuple[onnx.NodeProto, ...] = field(repr=False)
    arrays: dict[str, NDArray[Any]] = field(repr=False)


class Rounding:
    """Write the operators that round tensors to grids and read them back."""

    def __init__(self, layer: str) -> None:
        """Begin with no operators; their names begin with the layer's."""
        self.layer = layer
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}

    def quantise(self, source: str, target: str, grid: Grid, dtype: str) -> None:
        """Round a tensor: cut it to what the format holds where that is less than a byte, then quantise."""
        from onnx import helper

        name = self._name(target)
        if dtype != "int8":
            bounds = [f"{name}.least", f"{name}.greatest"]
            self.arrays |= {bounds[0]: np.array(grid.least, np.float32), bounds[1]: np.array(grid.greatest, np.float32)}
            cut = f"{name}.cut"
            self.nodes.append(helper.make_node("Clip", [source, *bounds], [cut], name=f"{name}.clip"))
            source = cut
        inputs = [source, *self._grid(name, grid)]
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [target], name=f"{name}.quantize"))

    def dequantise(self, source: str, target: str, grid: Grid) -> None:
        """Read bytes back."""
        from onnx import helper

        name = self._name(target)
        inputs = [source, *self._grid(name, grid)]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [target], name=f"{name}.dequantize"))

    def settled(self, tensor: str) -> str:
        """Say that numbers read back are float32 from here on.

        A compiler that finds bytes multiplied by stored integers takes its integer kernels, whatever was measured.
        """
        from onnx import TensorProto, helper

        name = f"{tensor}.settled"
        self.nodes.append(helper.make_node("Cast", [tensor], [name], name=name, to=TensorProto.FLOAT))
        return name

    def _name(self, target: str) -> str:
        return target if target.startswith(f"{self.layer}.") else f"{self.layer}.{target}"

    def _grid(self, name: str, grid: Grid) -> list[str]:
        names = [f"{name}.scale", f"{name}.zero"]
        self.arrays |= {names[0]: np.array(grid.scale, np.float32), names[1]: np.array(grid.zero, np.uint8)}
        return names


def join(
    layer: Layer,
    nodes: Sequence[onnx.NodeProto],
    *,
    stored: Mapping[str, str],
    reads: str,
    writes: str,
    grid: Callable[[str, str], Grid],
    open_ended: bool = False,
) -> Joined:
    """Put a layer's nodes between the formats of its tensors.

    Args:
        layer: The layer.
        nodes: What it computes, from and to float32.
        stored: Format of the tensors that it reads, where that is not float32.
        reads: The format that it wants.
        writes: The format that it gives.
        grid: Gives the grid of a tensor in a format.
        open_ended: Leave its tensors float32 at both ends, rounded to what they would be: for running the layer by
            itself on numbers that were read back already.

    Returns:
        The nodes and the constants that came with them.
    """
    rounding = Rounding(layer.name)
    renamed: dict[str, str] = {}
    for tensor in layer.inputs:
        # Others may read the same tensor in the same way: the copies carry the name of the layer.
        current, given = tensor, stored.get(tensor, FLOAT)
        if given != FLOAT and not open_ended:
            current = f"{layer.name}.{tensor}.{given}.real"
            rounding.dequantise(tensor, current, grid(tensor, given))
            if reads == FLOAT:
                current = rounding.settled(current)
        if reads not in {given, FLOAT}:
            whole = f"{layer.name}.{tensor}.{reads}"
            rounding.quantise(current, whole, grid(tensor, reads), reads)
            current = f"{whole}.real"
            rounding.dequantise(whole, current, grid(tensor, reads))
        if current != tensor:
            renamed[tensor] = current
    for tensor in layer.outputs if writes != FLOAT else ():
        renamed[tensor] = f"{tensor}.{FLOAT}"
        whole = f"{tensor}.{writes}" if open_ended else tensor
        rounding.quantise(renamed[tensor], whole, grid(tensor, writes), writes)
        if open_ended:
            rounding.dequantise(whole, tensor, grid(tensor, writes))
    return Joined(nodes=(*(_renamed(node, renamed) for node in nodes), *rounding.nodes), arrays=rounding.arrays)


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    if not any(name in names for name in (*node.input, *node.output)):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy
