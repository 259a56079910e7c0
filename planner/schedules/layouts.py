"""Changes of layout: between plain NCHW and blocked, and into a frame of zeros."""

from __future__ import annotations

from typing import Any

from tvm import te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.window import Window


def pad(data: te.Tensor, source: FeatureMap, window: Window) -> te.Tensor:
    """Surround a blocked (or plain ``[C, H, W]``-indexed) map with zeros.

    Args:
        data: ``(blocks, pixels, 16)`` or ``(N, C, H, W)``.
        source: Its size.
        window: Whose padding to add.

    Returns:
        ``(blocks, N * height', width', 16)``, each image in a frame of its own, or ``(N, C, height', width')``.
    """
    top, left, _, _ = window.padding
    height, width = window.padded_size(source)

    def inside(row: Any, column: Any) -> Any:
        return te.all(row >= top, row < source.height + top, column >= left, column < source.width + left)

    def blocked(c: Any, h: Any, w: Any, i: Any) -> Any:
        image, row = (0, h) if source.images == 1 else (h // height, h % height)
        read = data[c, (image * source.height + row - top) * source.width + (w - left), i]
        return te.if_then_else(inside(row, w), read, 0.0)

    if len(data.shape) == 3:
        return te.compute((source.blocks, source.images * height, width, CHANNELS), blocked, name="pad")
    return te.compute(
        (source.images, source.channels, height, width),
        lambda n, c, h, w: te.if_then_else(inside(h, w), data[n, c, h - top, w - left], 0.0),
        name="pad",
    )


def to_blocked(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather NCHW into the blocked layout, zeros in the channels that pad the last block."""
    last = size.channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = o * CHANNELS + b
        image, row, column = size.place(p)
        read = data[image, te.min(channel, last), row, column]
        if size.channels % CHANNELS == 0:
            return read
        return te.if_then_else(channel <= last, read, 0.0)

    return te.compute(size.blocked_shape, value, name="to_blocked")


def to_plain(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather the blocked layout back into NCHW."""
    return te.compute(
        size.plain_shape,
        lambda n, c, h, w: data[c // CHANNELS, (n * size.height + h) * size.width + w, c % CHANNELS],
        name="to_plain",
    )
