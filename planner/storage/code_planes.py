"""Codes of few bits in ONNX: planes of bytes, and the shifts and masks that take them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.draft import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

__all__ = ["PLANES", "computed", "written"]

PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,)}
"""Bits of a code that each plane holds, the lowest first."""
_BYTE = 8
_ENDS = 4
"""Operands of a Slice along one axis."""


def written(
    name: str, codes: NDArray[np.uint8], bits: int
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], str]:
    """Write codes as ONNX.

    Args:
        name: What names of nodes and constants begin with.
        codes: uint8 ``[output][input]...``, each of so many bits.
        bits: 1 to 4.

    Returns:
        Nodes in topological order, the constants they read, and the name of the uint8 tensor that holds the codes.
    """
    from onnx import helper

    outputs, inputs, *taps = codes.shape
    widths = PLANES[bits]
    full = -(-inputs * min(widths) // _BYTE) * _BYTE // min(widths)
    padded = np.pad(codes, [(0, 0), (0, full - inputs), *[(0, 0)] * len(taps)])
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, NDArray[Any]] = {f"{name}.shape": np.array([outputs, full, *taps], np.int64)}

    def add(op: str, operands: Sequence[str], role: str, **settings: str) -> str:
        nodes.append(helper.make_node(op, list(operands), [f"{name}.{role}"], name=f"{name}.{role}", **settings))
        return f"{name}.{role}"

    found, low = "", 0
    for width in widths:
        each, mask = _BYTE // width, (1 << width) - 1
        shifts = (np.arange(each, dtype=np.uint8) * width).reshape(each, *[1] * len(taps))
        field = (padded >> low & mask).reshape(outputs, full // each, each, *taps)
        plane = f"plane{low}"
        arrays |= {
            f"{name}.{plane}": np.bitwise_or.reduce(field << shifts, axis=2, keepdims=True),
            f"{name}.{plane}.shifts": shifts,
            f"{name}.{plane}.mask": np.array(mask, np.uint8),
        }
        taken = add("BitShift", [f"{name}.{plane}", f"{name}.{plane}.shifts"], f"{plane}.bits", direction="RIGHT")
        taken = add("BitwiseAnd", [taken, f"{name}.{plane}.mask"], f"{plane}.masked")
        taken = add("Reshape", [taken, f"{name}.shape"], f"{plane}.flat")
        if found:
            arrays[f"{name}.{plane}.place"] = np.array(low, np.uint8)
            taken = add("BitShift", [taken, f"{name}.{plane}.place"], f"{plane}.high", direction="LEFT")
            taken = add("BitwiseOr", [found, taken], f"{plane}.joined")
        found, low = taken, low + width
    if full != inputs:
        arrays |= {
            f"{name}.first": np.array([0], np.int64),
            f"{name}.behind": np.array([inputs], np.int64),
            f"{name}.axis": np.array([1], np.int64),
        }
        found = add("Slice", [found, f"{name}.first", f"{name}.behind", f"{name}.axis"], "codes")
    return nodes, arrays, found


def computed(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]
) -> NDArray[Any] | None:
    """Compute what planes are taken apart to; None where anything else has a part in it."""
    if name in constants:
        return constants[name]
    node = makers.get(name)
    if node is None:
        return None
    values = [computed(item, makers, constants) for item in node.input]
    operands = [value for value in values if value is not None]
    if len(operands) < len(values):
        return None
    if node.op_type == "BitShift":
        shift = np.left_shift if attributes(node)["direction"] == b"LEFT" else np.right_shift
        shifted: NDArray[Any] = shift(*operands)
        return shifted
    if node.op_type in {"BitwiseAnd", "BitwiseOr"}:
        joined: NDArray[Any] = (np.bitwise_and if node.op_type == "BitwiseAnd" else np.bitwise_or)(*operands)
        return joined
    if node.op_type == "Reshape":
        return operands[0].reshape([int(size) for size in operands[1]])
    if node.op_type == "Slice" and len(operands) == _ENDS:
        within = [slice(None)] * operands[0].ndim
        for first, behind, axis in zip(*operands[1:], strict=True):
            within[int(axis)] = slice(int(first), int(behind))
        return operands[0][tuple(within)]
    return None
