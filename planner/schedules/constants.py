"""Weights of a Relax call as numpy arrays, integers kept as integers.

A weight stored as int8 reaches the compiler as ``dequantize(constant int8, scale)``.  Constant folding would
widen it to float32 and lose what was saved, so the layout pass reads through the dequantisation instead: the
kernel keeps the integers, and the scales become one multiplication per output channel in the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from planner.schedules import powers
from planner.schedules.powers import PowerFilters
from planner.schedules.storage import Codes, recognised


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant operand.

    Attributes:
        values: float32, or int8 (a bias: int32) where it is stored so.
        scales: One float32 per entry of ``axis``; None where ``values`` are the weights themselves.
        axis: The axis that ``scales`` run along.
        codes: What ``values`` are stored as, where they are codes of a few bits; a kernel that knows nothing of codes
            reads ``values``: int8, or float32 where groups of them have scales.
    """

    values: NDArray[np.generic]
    scales: NDArray[np.float32] | None = None
    axis: int = 0
    codes: Codes | PowerFilters | None = None

    def transposed(self, axes: tuple[int, ...]) -> Weight:
        """Permute the axes."""
        codes = None if self.codes is None else self.codes.transposed(axes)
        return Weight(self.values.transpose(axes), self.scales, axes.index(self.axis), codes)

    def along(self, axis: int) -> Weight | None:
        """Give the same weights with scales along an axis; None where they vary along another."""
        if self.scales is None or self.axis == axis:
            return self
        if np.any(self.scales != self.scales[0]):
            return None
        return replace(self, scales=np.repeat(self.scales[:1], self.values.shape[axis]), axis=axis)

    def codes_along(self, axis: int) -> Codes | PowerFilters | None:
        """Give the codes that a kernel reads whose inputs lie along an axis; None where there are none such."""
        grouped = self.codes is not None and self.codes.block > 0
        return None if grouped and self.codes is not None and self.codes.axis != axis else self.codes

    def widened(self) -> NDArray[np.generic]:
        """Give the weights as float32, whatever they are stored as."""
        if self.scales is None:
            return self.values.astype(np.float32) if self.values.dtype == np.float16 else self.values
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values.astype(np.float32) * self.scales.reshape(shape)


class Constants:
    """Knows which Relax expressions are constants, through dequantisation and transposition."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._known: dict[Any, Weight] = {}
        self._readers: dict[str, Callable[[relax.Call], Weight | None]] = {
            "relax.call_tir": self._unpacked,
            "relax.astype": self._widened,
            "relax.dequantize": self._dequantised,
            "relax.permute_dims": self._permuted,
            "relax.reshape": self._reshaped,
        }

    def of(self, expression: Any) -> Weight | None:
        """Give the constant that an expression stands for; None where it is none."""
        if isinstance(expression, tvm.ir.Constant):
            return Weight(expression.value.numpy())
        return self._known.get(expression) if isinstance(expression, relax.Var) else None

    def learn(self, var: relax.Var, value: Any) -> bool:
        """Note ``var`` where its value is a dequantised (perhaps transposed) constant.

        Returns:
            Whether it is one; nothing need be emitted for it then.
        """
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            return False
        read = self._readers.get(value.op.name)
        weight = None if read is None else read(value)
        if weight is None:
            return False
        self._known[var] = weight
        return True

    @staticmethod
    def _unpacked(call: relax.Call) -> Weight | None:
        """Read codes, or powers of two."""
        filters = powers.recognised(call)
        if filters is not None:
            return Weight(filters.numbers, filters.scales, 0, filters)
        codes = recognised(call)
        if codes is None:
            return None
        if codes.scales is None or codes.form.scaled:
            return Weight(codes.widened(), codes=codes)
        return Weight(codes.numbers(), codes.scales, codes.outputs, codes)

    def _widened(self, call: relax.Call) -> Weight | None:
        """Read a constant of float16 that is made float32."""
        narrow = self.of(call.args[0])
        if narrow is None or narrow.values.dtype != np.float16 or str(call.ty.dtype) != "float32":
            return None
        return narrow

    def _dequantised(self, call: relax.Call) -> Weight | None:
        """Read integers with one scale, or one for each entry of an axis."""
        stored, scale, zero = (self.of(a) for a in call.args)
        if stored is None or scale is None or zero is None or stored.scales is not None:
            return None
        values = _without_zero(stored.values, zero.values, int(call.attrs.axis))
        if values is None:
            return None
        axis = int(call.attrs.axis) % stored.values.ndim
        scales = np.broadcast_to(scale.values.reshape(-1), (stored.values.shape[axis],))
        return Weight(values, np.ascontiguousarray(scales, np.float32), axis)

    def _permuted(self, call: relax.Call) -> Weight | None:
        """Read a weight whose axes are permuted."""
        inner = self._known.get(call.args[0])
        if inner is None:
            return None
        rank = inner.values.ndim
        axes = call.attrs.axes
        return inner.transposed(
            tuple(int(a) % rank for a in axes) if axes is not None else tuple(reversed(range(rank)))
        )

    def _reshaped(self, call: relax.Call) -> Weight | None:
        """Read a bias, one a channel, with dimensions of 1 around it."""
        inner = self.of(call.args[0])
        if inner is None or inner.scales is None or inner.values.ndim != 1:
            return None
        shape = [int(n) for n in call.ty.shape.values]  # its only axis keeps its length
        if inner.values.size not in shape:
            return None
        return Weight(inner.values.reshape(shape), inner.scales, shape.index(inner.values.size))


def _without_zero(stored: NDArray[np.generic], zero: NDArray[np.generic], axis: int) -> NDArray[np.generic] | None:
    """Give stored integers as those whose zero is 0; None where there are none of 8 bits (or 32, as they are)."""
    if not np.any(zero) and stored.dtype in {np.dtype(np.int8), np.dtype(np.int32)}:
        return stored
    if stored.dtype not in {np.dtype(np.int8), np.dtype(np.uint8)}:
        return None
    shape = [1] * stored.ndim
    shape[axis] = -1 if zero.size > 1 else 1
    moved = stored.astype(np.int16) - zero.astype(np.int16).reshape(shape)
    narrow = moved.astype(np.int8)
    return narrow if np.array_equal(narrow, moved) else None
