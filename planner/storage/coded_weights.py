"""Weights as codes of few bits in ONNX: written as operators that give them back as float32, and read from those.

ONNX has tensors of 4 bits and scales for blocks of them. What it has no type for is written with operators that every
runtime knows: codes lie in planes of bytes, 1, 2 or 4 bits of a code in each, and come out by shifts and masks; then
they count from the middle, or choose from a table. Multipliers of groups and the scales of outputs are two
``DequantizeLinear`` in a row, the scale of the second being what the first gives: double quantisation, Dettmers,
Pagnoni, Holtzman and Zettlemoyer, *QLoRA: efficient finetuning of quantized LLMs* (NeurIPS 2023), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.draft import attributes
from planner.errors import InputError
from planner.storage import code_planes
from planner.storage.code_planes import PLANES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

__all__ = ["Coded", "read"]

_WHOLE_BITS = 4
"""Bits of the whole numbers that ONNX has a type for."""

_INT8, _INT32 = 3, 6
"""Numbers of these types in ONNX."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """Hold a layer's weights as codes.

    Attributes:
        codes: uint8 ``[output][input]...``, each below 2 to the power of ``bits``.
        bits: 1 to 4.
        scale: float32 ``[output]``.
        table: int8, what each code stands for in units of the scale; None where that is the code less half of what
            there are.
        multipliers: uint8 ``[output][group]...``, what numbers are multiplied by; None where there are no groups.
        block: Inputs in a group; 0 where there are none.

    >>> coded = Coded(codes=np.array([[9, 7]], np.uint8), bits=4, scale=np.array([0.5], np.float32))
    >>> coded.values.tolist()
    [[0.5, -0.5]]
    """

    codes: NDArray[np.uint8] = field(repr=False)
    bits: int
    scale: NDArray[np.float32] = field(repr=False)
    table: NDArray[np.int8] | None = field(default=None, repr=False)
    multipliers: NDArray[np.uint8] | None = field(default=None, repr=False)
    block: int = 0

    def __post_init__(self) -> None:
        """Check that codes fit their bits, and that there are as many tables, multipliers and scales as they need."""
        if self.bits not in PLANES or (self.codes.size and int(self.codes.max()) >> self.bits):
            raise InputError(f"codes up to {int(self.codes.max(initial=0))} in {self.bits} bits; expected 1 to 4 bits")
        if self.scale.shape != self.codes.shape[:1]:
            raise InputError(f"{self.scale.shape} scales for {self.codes.shape[0]} outputs; expected one for each")
        if self.table is not None and (self.table.shape != (1 << self.bits,) or self.multipliers is not None):
            raise InputError(f"a table of {self.table.shape} entries; expected {1 << self.bits}, without multipliers")
        if self.multipliers is not None:
            groups = -(-self.codes.shape[1] // max(1, self.block))
            if self.multipliers.shape != (self.codes.shape[0], groups, *self.codes.shape[2:]):
                raise InputError(f"multipliers of shape {self.multipliers.shape} for groups of {self.block} inputs")

    @property
    def numbers(self) -> NDArray[np.int8]:
        """The whole numbers of 8 bits that codes stand for, ``[output][input]...``."""
        if self.table is not None:
            return self.table[self.codes]
        numbers = self.codes.astype(np.int16) - (1 << (self.bits - 1))
        if self.multipliers is not None:
            numbers *= np.repeat(self.multipliers, self.block, axis=1)[:, : self.codes.shape[1]]
        return numbers.astype(np.int8)

    @property
    def values(self) -> NDArray[np.float32]:
        """The weights, ``[output][input]...``."""
        return self.numbers * self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))

    def written(self, weight: str, output: str) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
        """Write the weights as ONNX.

        Args:
            weight: What the weights were called; names of nodes and constants begin with it.
            output: Name of the tensor that is to hold them as float32.

        Returns:
            Nodes in topological order, and the constants they read.
        """
        from onnx import helper

        scale = f"{weight}.scale"
        nodes, arrays = self._numbered(weight)
        numbers = nodes[-1].output[0] if nodes else f"{weight}.int4"
        arrays[scale] = self.scale
        settings: dict[str, Any] = {"axis": 0}
        if self.multipliers is not None:
            arrays[f"{weight}.multipliers"] = self.multipliers
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{weight}.multipliers", scale],
                    [f"{weight}.scales"],
                    name=f"{weight}.rescale",
                    axis=0,
                )
            )
            scale, settings = f"{weight}.scales", {"axis": 1, "block_size": self.block}
        last = helper.make_node("DequantizeLinear", [numbers, scale], [output], name=f"{weight}.dequantize", **settings)
        return [*nodes, last], arrays

    def _numbered(self, weight: str) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
        """Write the numbers, without multipliers: none where a constant of 4 bits holds them, else the last output."""
        from onnx import TensorProto, helper

        if self.bits == _WHOLE_BITS and self.table is None:
            kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
            return [], {f"{weight}.int4": (self.codes.astype(np.int8) - 8).astype(kind)}
        nodes, arrays, codes = code_planes.written(weight, self.codes, self.bits)

        def add(op: str, inputs: Sequence[str], role: str, **settings: Any) -> str:
            nodes.append(helper.make_node(op, list(inputs), [f"{weight}.{role}"], name=f"{weight}.{role}", **settings))
            return f"{weight}.{role}"

        index = add("Cast", [codes], "index", to=TensorProto.INT32)
        if self.table is not None:
            arrays[f"{weight}.table"] = self.table
            add("Gather", [f"{weight}.table", index], "numbers")
        else:
            arrays[f"{weight}.half"] = np.array(1 << (self.bits - 1), np.int32)
            add("Cast", [add("Sub", [index, f"{weight}.half"], "centred")], "numbers", to=TensorProto.INT8)
        return nodes, arrays


def read(output: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> Coded | None:
    """Read weights that `Coded.written` wrote.

    Args:
        output: Name of the tensor that holds them as float32.
        makers: The node that makes each tensor that is made from constants alone.
        constants: Those constants.

    Returns:
        The weights; None where they are written in some other way.
    """
    node = makers[output]
    settings = attributes(node)
    if node.op_type != "DequantizeLinear" or len(node.input) != 2:
        return None
    numbers = _numbers(node.input[0], makers, constants)
    if numbers is None:
        return None
    codes, bits, table = numbers
    scale, block, multipliers = node.input[1], settings.get("block_size", 0), None
    if block:
        second = makers.get(scale)
        if second is None or second.op_type != "DequantizeLinear" or len(second.input) != 2:
            return None
        multipliers, scale = constants.get(second.input[0]), second.input[1]
        if multipliers is None or multipliers.dtype != np.uint8 or attributes(second).get("axis", 1) != 0:
            return None
    scales = constants.get(scale)
    if scales is None or scales.dtype != np.float32 or scales.shape != codes.shape[:1]:
        return None
    if settings.get("axis", 1) != int(block > 0):
        return None
    return Coded(codes=codes, bits=bits, scale=scales, table=table, multipliers=multipliers, block=block)


def _numbers(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.uint8], int, NDArray[np.int8] | None] | None:
    """Read codes, their bits and their table from what gives whole numbers."""
    if name in constants:
        stored = constants[name]
        if stored.dtype.name != "int4":
            return None
        return (stored.astype(np.int8) + 8).astype(np.uint8), _WHOLE_BITS, None
    last = makers.get(name)
    if last is None:
        return None
    table, half = None, None
    if last.op_type == "Gather":
        table, source = constants.get(last.input[0]), makers.get(last.input[1])
        size = 0 if table is None or table.dtype != np.int8 or table.ndim != 1 else len(table)
    else:
        centred = makers.get(last.input[0])
        if last.op_type != "Cast" or attributes(last)["to"] != _INT8 or centred is None or centred.op_type != "Sub":
            return None
        half, source = constants.get(centred.input[1]), makers.get(centred.input[0])
        size = 0 if half is None or half.size != 1 else 2 * int(half)
    bits = next((n for n in PLANES if 1 << n == size), 0)
    if not bits or source is None or source.op_type != "Cast" or attributes(source)["to"] != _INT32:
        return None
    codes = code_planes.computed(source.input[0], makers, constants)
    return None if codes is None or codes.dtype != np.uint8 or int(codes.max()) >> bits else (codes, bits, table)
