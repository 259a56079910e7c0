"""Weights of a layer that ONNX stores in fewer bytes than the importer knows: 4 bits, or scales for groups.

They are taken out of the layer before it is imported and brought into the module as
:class:`planner.schedules.storage.Groups`, which kernels read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from tvm import relax

from planner.draft import attributes
from planner.schedules import naming
from planner.schedules.storage import Groups
from planner.segments import Segment

__all__ = ["emit", "read"]

_HALF_BYTES = frozenset({onnx.TensorProto.INT4, onnx.TensorProto.UINT4})


def emit(
    builder: relax.BlockBuilder, place: tuple[int, int], segment: Segment, values: dict[str, Any]
) -> tuple[Segment, dict[str, Any]]:
    """Emit such weights of a layer.

    Args:
        builder: What builds the function that the layer is part of.
        place: Numbers of the network and of the layer.
        segment: The layer.
        values: What stands for each tensor made so far; those of the weights are added to it.

    Returns:
        The layer without their ``DequantizeLinear``, whose outputs are inputs now, and ``values``.
    """
    taken = [node for node in segment.nodes if _is_taken(node, segment.initialisers)]
    if not taken:
        return segment, values
    for node in taken:
        arrays = [numpy_helper.to_array(segment.initialisers[name]) for name in node.input if name]
        settings = attributes(node)
        weights = read(*arrays, axis=settings.get("axis", 1), block=settings.get("block_size", 0))
        hint = naming.tag(*place, "weights")
        if isinstance(weights, Groups):
            values[node.output[0]] = weights.emit(builder, hint)
        else:
            values[node.output[0]] = builder.emit(relax.const(weights), name_hint=hint)
    names = {node.name for node in taken}
    kept = tuple(node for node in segment.nodes if node.name not in names)
    still_read = {name for node in kept for name in node.input}
    rest = {name: constant for name, constant in segment.initialisers.items() if name in still_read}
    inputs = (*segment.inputs, *(node.output[0] for node in taken))
    return replace(segment, nodes=kept, inputs=inputs, initialisers=rest), values


def _is_taken(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Tell whether a node gives weights from constants in a form that the importer does not know."""
    if node.op_type != "DequantizeLinear" or any(name not in constants for name in node.input if name):
        return False
    return bool(attributes(node).get("block_size", 0)) or constants[node.input[0]].data_type in _HALF_BYTES


@dataclass(frozen=True, slots=True)
class _Figures:
    """Scales or zero points, one for each group, brought to the rank of the weights."""

    array: NDArray[Any]
    axis: int
    block: int

    @classmethod
    def of(cls, array: NDArray[Any], shape: Sequence[int], axis: int, block: int) -> _Figures:
        """Read figures of one for each group, or for each entry of an axis, or of one in all."""
        if array.ndim == len(shape):
            return cls(array, axis, block)
        along = next(i for i in (1, 0) if i != axis or len(shape) == 1)
        aligned = array.reshape([-1 if i == axis and array.ndim else 1 for i in range(len(shape))])
        full = np.broadcast_to(aligned, [1 if i == along else size for i, size in enumerate(shape)])
        return cls(full, along, shape[along])

    def spread(self, shape: Sequence[int]) -> NDArray[Any]:
        """Repeat each figure for the numbers of its group."""
        full: NDArray[Any] = np.repeat(self.array, self.block, axis=self.axis)
        return full[tuple(slice(size) for size in shape)]


def read(
    stored: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None = None, *, axis: int, block: int
) -> Groups | NDArray[np.float32]:
    """Read the constants of a ``DequantizeLinear``.

    Args:
        stored: Whole numbers of 4 or 8 bits.
        scale: One scale in all, one for each entry of ``axis``, or one for each group of ``block`` along it.
        zero: The numbers that stand for 0, as many as there are scales; 0 where there are none.
        axis: The axis.
        block: Numbers in a group; 0 where there are no groups.

    Returns:
        The groups; or the weights as float32 where the numbers, less those that stand for 0, do not fit their bits.
    """
    shape = stored.shape
    axis %= stored.ndim
    scales = _Figures.of(scale.astype(np.float32), shape, axis, block)
    bits = 8 if stored.dtype in {np.dtype(np.int8), np.dtype(np.uint8)} else 4
    numbers = stored.astype(np.int16)
    if zero is not None:
        numbers = numbers - _Figures.of(zero.astype(np.int16), shape, axis, block).spread(shape)
    if numbers.min() < -(1 << (bits - 1)) or numbers.max() >= 1 << (bits - 1):
        widened: NDArray[np.float32] = numbers.astype(np.float32) * scales.spread(shape)
        return widened
    whole = numbers.astype(np.int8)
    return Groups(whole=whole, scales=scales.array, axis=scales.axis, block=scales.block, bits=bits)
