"""Depthwise convolution of bytes on the blocked layout; scheduled as :mod:`depthwise` schedules that of float32."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from planner.schedules.blocked import FeatureMap
from planner.schedules.families.depthwise import DEPTHWISE, FRAMED, WIDTH
from planner.schedules.window import Window


def depthwise(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window, zero: int
) -> te.Tensor:
    """Describe a depthwise convolution of bytes.

    The input is not padded; what lies beyond its edges is the byte that stands for 0.

    Args:
        data: ``(blocks, pixels, 16)`` bytes.
        packed: int8 weights from :func:`blocked.pack_depthwise`.
        source: Size of the input.
        output: Size of the output.
        window: The sliding window.
        zero: The byte that stands for 0.

    Returns:
        ``(output.blocks, output.pixels, 16)`` int32.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation
    top, left, _, _ = window.padding

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        y, x = y * down + row * dilate_h - top, x * across + column * dilate_w - left
        read = data[o, (image * source.height + y) * source.width + x, b]
        if window.padded:
            inside = te.all(y >= 0, y < source.height, x >= 0, x < source.width)
            read = te.if_then_else(inside, read, tirx.const(zero, str(data.dtype)))
        product = tirx.Cast("int32", read) * tirx.Cast("int32", packed[o, row, column, b])
        return te.sum(product, axis=[row, column])

    notes = {WIDTH: output.width, FRAMED: int(window.padded)}
    return te.compute(output.blocked_shape, value, name=DEPTHWISE, attrs=notes)
