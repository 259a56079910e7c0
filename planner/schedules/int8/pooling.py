"""Pooling of bytes on the blocked layout; scheduled as :mod:`pooling` schedules that of float32."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from planner.schedules.blocked import FeatureMap
from planner.schedules.families.pooling import FRAMED, POOL, WIDTH, maximum
from planner.schedules.window import Window

__all__ = ["maximum", "total"]


def total(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window) -> te.Tensor:
    """Describe the sum of the bytes under a window that never overhangs the map, as int32."""
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        y = y * window.strides[0] + row * window.dilation[0]
        x = x * window.strides[1] + column * window.dilation[1]
        read = data[o, (image * source.height + y) * source.width + x, b]
        return te.sum(tirx.Cast("int32", read), axis=[row, column])

    return te.compute(output.blocked_shape, value, name=POOL, attrs={WIDTH: output.width, FRAMED: 0})
