"""Weights of a Relax call as numpy arrays, integers kept as integers.

A weight stored as int8 reaches the compiler as ``dequantize(constant int8, scale)``.  Constant folding would
widen it to float32 and lose what was saved, so the layout pass reads through the dequantisation instead: the
kernel keeps the integers, and the scales become one multiplication per output channel in the epilogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant operand.

    Attributes:
        values: float32, or int8 where it is stored so.
        scales: One float32 per entry of ``axis``; None where ``values`` are the weights themselves.
        axis: The axis that ``scales`` run along.
    """

    values: NDArray[np.generic]
    scales: NDArray[np.float32] | None = None
    axis: int = 0

    def transposed(self, axes: tuple[int, ...]) -> Weight:
        """Permute the axes."""
        return Weight(self.values.transpose(axes), self.scales, axes.index(self.axis))

    def widened(self) -> NDArray[np.generic]:
        """Give the weights as float32, whatever they are stored as."""
        if self.scales is None:
            return self.values
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values.astype(np.float32) * self.scales.reshape(shape)


class Constants:
    """Knows which Relax expressions are constants, through dequantisation and transposition."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._known: dict[Any, Weight] = {}

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
        if value.op.name == "relax.dequantize":
            stored, scale, zero = (self.of(a) for a in value.args)
            if stored is None or scale is None or zero is None or stored.scales is not None:
                return False
            if np.any(zero.values) or stored.values.dtype != np.int8:
                return False
            axis = int(value.attrs.axis) % stored.values.ndim
            scales = np.broadcast_to(scale.values.reshape(-1), (stored.values.shape[axis],))
            self._known[var] = Weight(stored.values, np.ascontiguousarray(scales, np.float32), axis)
            return True
        if value.op.name == "relax.permute_dims":
            inner = self.of(value.args[0])
            if inner is None or inner.scales is None:
                return False
            rank = inner.values.ndim
            axes = value.attrs.axes
            order = tuple(int(a) % rank for a in axes) if axes is not None else tuple(reversed(range(rank)))
            self._known[var] = inner.transposed(order)
            return True
        return False
