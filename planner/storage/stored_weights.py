"""Weights of a layer that ONNX stores in fewer bytes than the importer knows: codes of few bits, or scales for groups.

They are taken out of the layer before it is imported and brought into the module as
:class:`planner.schedules.storage.Codes`, which kernels read as they are.
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
from planner.schedules.powers import PowerFilters
from planner.schedules.storage import Codes
from planner.segments import Segment
from planner.storage import coded_weights, power_weights

__all__ = ["emit", "read"]

_HALF_BYTES = frozenset({"int4", "uint4"})


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
        The layer without what widens them, whose results are inputs now, and ``values``.
    """
    makers = _from_constants(segment)
    stored = {name for node in makers.values() for name in node.input if name in segment.initialisers}
    constants = {name: numpy_helper.to_array(segment.initialisers[name]) for name in stored}
    used = {name for node in segment.nodes if node.output[0] not in makers for name in node.input} | {*segment.outputs}
    widened = {name: _weights(name, makers, constants) for name in makers if name in used}
    taken = {name: weights for name, weights in widened.items() if weights is not None}
    if not taken:
        return segment, values
    hint = naming.tag(*place, "weights")
    for name, weights in taken.items():
        if isinstance(weights, Codes | PowerFilters):
            values[name] = weights.emit(builder, hint)
        else:
            values[name] = builder.emit(relax.const(weights), name_hint=hint)
    kept = [node for node in segment.nodes if node.output[0] not in taken]
    while True:
        still_read = {name for node in kept for name in node.input} | set(segment.outputs)
        needed = [node for node in kept if node.output[0] not in makers or still_read.intersection(node.output)]
        if len(needed) == len(kept):
            break
        kept = needed
    rest = {name: constant for name, constant in segment.initialisers.items() if name in still_read}
    return replace(segment, nodes=tuple(kept), inputs=(*segment.inputs, *taken), initialisers=rest), values


def _from_constants(segment: Segment) -> dict[str, onnx.NodeProto]:
    """Give the nodes of a layer that read nothing but constants, or what such nodes make, by what they make."""
    makers: dict[str, onnx.NodeProto] = {}
    waiting = list(segment.nodes)
    while waiting:
        ready = [n for n in waiting if all(i in makers or i in segment.initialisers for i in n.input if i)]
        if not ready:
            break
        makers |= {name: node for node in ready for name in node.output}
        waiting = [node for node in waiting if node not in ready]
    return makers


def _weights(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]
) -> Codes | PowerFilters | NDArray[np.float32] | None:
    """Read weights in a form that the importer does not know; None where it is another one."""
    node = makers[name]
    coded = coded_weights.read(name, makers, constants)
    if coded is not None:
        return Codes(
            codes=coded.codes,
            bits=coded.bits,
            axis=1,
            table=coded.table,
            figures=coded.multipliers,
            block=coded.block,
            scales=coded.scale,
            outputs=0,
        )
    powers = power_weights.read(name, makers, constants)
    if powers is not None:
        return PowerFilters(
            codes=powers.codes,
            places=powers.places,
            basis=powers.basis,
            scales=powers.scale,
            kept=powers.kept,
            numbers=powers.numbers,
        )
    if node.op_type != "DequantizeLinear" or any(i not in constants for i in node.input if i):
        return None
    settings = attributes(node)
    if not settings.get("block_size", 0) and constants[node.input[0]].dtype.name not in _HALF_BYTES:
        return None
    arrays = [constants[i] for i in node.input if i]
    return read(*arrays, axis=settings.get("axis", 1), block=settings.get("block_size", 0))


@dataclass(frozen=True, slots=True)
class _Figures:
    """Scales or zero points, one for each group, or for each entry of an axis, or one in all."""

    array: NDArray[Any]
    axis: int
    block: int

    def spread(self, shape: Sequence[int]) -> NDArray[Any]:
        """Repeat each figure for its numbers."""
        if self.block:
            full: NDArray[Any] = np.repeat(self.array, self.block, axis=self.axis)
            return full[tuple(slice(size) for size in shape)]
        aligned = self.array.reshape([-1 if i == self.axis and self.array.ndim else 1 for i in range(len(shape))])
        return np.broadcast_to(aligned, shape)


def read(
    stored: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None = None, *, axis: int, block: int
) -> Codes | NDArray[np.float32]:
    """Read the constants of a ``DequantizeLinear``.

    Args:
        stored: Whole numbers of 4 or 8 bits.
        scale: One scale in all, one for each entry of ``axis``, or one for each group of ``block`` along it.
        zero: The numbers that stand for 0, as many as there are scales; 0 where there are none.
        axis: The axis.
        block: Numbers in a group; 0 where there are no groups.

    Returns:
        The codes; or the weights as float32 where the numbers, less those that stand for 0, do not fit their bits.
    """
    shape = stored.shape
    axis %= stored.ndim
    scales = _Figures(scale.astype(np.float32), axis, block)
    bits = 8 if stored.dtype in {np.dtype(np.int8), np.dtype(np.uint8)} else 4
    half = 1 << (bits - 1)
    numbers = stored.astype(np.int16)
    if zero is not None:
        numbers = numbers - _Figures(zero.astype(np.int16), axis, block).spread(shape)
    if numbers.min() < -half or numbers.max() >= half:
        widened: NDArray[np.float32] = numbers.astype(np.float32) * scales.spread(shape)
        return widened
    codes = (numbers + half).astype(np.uint8)
    if block:
        return Codes(codes=codes, bits=bits, axis=axis, figures=scales.array, block=block)
    along = next(i for i in (1, 0) if i != axis or len(shape) == 1)
    each = np.ascontiguousarray(np.broadcast_to(scales.array.reshape(-1), (shape[axis],)))
    return Codes(codes=codes, bits=bits, axis=along, scales=each, outputs=axis)
