"""Depthwise convolution of bytes on the blocked layout; scheduled as :mod:`depthwise` schedules that of float32."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from planner.schedules.blocked import FeatureMap
from planner.schedules.depthwise import DEPTHWISE
from planner.schedules.window import Window


def depthwise(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window
) -> te.Tensor:
    """Describe a depthwise convolution of bytes.

    Args:
        data: The (already padded) input, ``(blocks, pixels, 16)`` or ``(blocks, rows, columns, 16)`` bytes.
        packed: int8 weights from :func:`blocked.pack_depthwise`.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window.

    Returns:
        ``(output.blocks, output.pixels, 16)`` int32.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        y, x = y * down + row * dilate_h, x * across + column * dilate_w
        read = window.read(data, source, (o, image, y, x, b))
        product = tirx.Cast("int32", read) * tirx.Cast("int32", packed[o, row, column, b])
        return te.sum(product, axis=[row, column])

    return te.compute(output.blocked_shape, value, name=DEPTHWISE)
