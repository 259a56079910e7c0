"""Changes of layout: between plain NCHW and blocked, and into a frame of zeros."""

from __future__ import annotations

from typing import Any

from tvm import te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.window import Window


def pad(data: te.Tensor, source: FeatureMap, window: Window) -> te.Tensor:
    """Surround a blocked (or plain ``[C, H, W]``-indexed) map with zeros.

    Args:
        data: ``(blocks, pixels, 16)`` or ``(1, C, H, W)``.
        source: Its size.
        window: Whose padding to add.

    Returns:
        ``(blocks, height', width', 16)`` or ``(1, C, height', width')``.
    """
    top, left, _, _ = window.padding
    height, width = window.padded_size(source)

    def inside(row: Any, column: Any) -> Any:
        return te.all(row >= top, row < source.height + top, column >= left, column < source.width + left)

    if len(data.shape) == 3:
        return te.compute(
            (source.blocks, height, width, CHANNELS),
            lambda c, h, w, i: te.if_then_else(inside(h, w), data[c, (h - top) * source.width + (w - left), i], 0.0),
            name="pad",
        )
    return te.compute(
        (1, source.channels, height, width),
        lambda n, c, h, w: te.if_then_else(inside(h, w), data[n, c, h - top, w - left], 0.0),
        name="pad",
    )


def to_blocked(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather NCHW into the blocked layout, zeros in the channels that pad the last block."""
    last = size.channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = o * CHANNELS + b
        read = data[0, te.min(channel, last), p // size.width, p % size.width]
        if size.channels % CHANNELS == 0:
            return read
        return te.if_then_else(channel <= last, read, 0.0)

    return te.compute(size.blocked_shape, value, name="to_blocked")


def to_plain(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather the blocked layout back into NCHW."""
    return te.compute(
        size.plain_shape,
        lambda _, c, h, w: data[c // CHANNELS, h * size.width + w, c % CHANNELS],
        name="to_plain",
    )
