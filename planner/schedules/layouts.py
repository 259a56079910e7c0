"""Changes of layout: between plain NCHW and blocked, between groups of channels, and into a frame of zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.window import Window

GATHER = "gather_channels"
PARTS = "gathered_parts"
PAD = "frame_of_zeros"


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
        return te.compute(
            (source.blocks, source.images * height, width, CHANNELS), blocked, name=PAD, attrs={"plain": 0}
        )
    return te.compute(
        (source.images, source.channels, height, width),
        lambda n, c, h, w: te.if_then_else(inside(h, w), data[n, c, h - top, w - left], 0.0),
        name=PAD,
        attrs={"plain": 1},
    )


def to_blocked(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather NCHW into the blocked layout, zeros in the channels that pad a block."""
    last = size.group_channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        group, channel = size.channel(o, b)
        image, row, column = size.place(p)
        read = data[image, group * size.group_channels + te.min(channel, last), row, column]
        return read if size.full else te.if_then_else(channel <= last, read, 0.0)

    return te.compute(size.blocked_shape, value, name="to_blocked")


def to_plain(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather the blocked layout back into NCHW."""
    return te.compute(
        size.plain_shape,
        lambda n, c, h, w: data[size.slot(c)[0], (n * size.height + h) * size.width + w, size.slot(c)[1]],
        name="to_plain",
    )


def gather(size: FeatureMap, read: Callable[[Any, Any], Any], parts: int = 1) -> te.Tensor:
    """Describe a map whose channels are gathered, zeros where they pad a block.

    Args:
        size: Size of the map.
        read: Gives the value of a channel at a pixel.
        parts: Maps that it is gathered from.
    """
    last = size.group_channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        group, channel = size.channel(o, b)
        found = read(group * size.group_channels + te.min(channel, last), p)
        return found if size.full else te.if_then_else(channel <= last, found, 0.0)

    return te.compute(size.blocked_shape, value, name=GATHER, attrs={PARTS: parts})


def regroup(data: te.Tensor, *, source: FeatureMap, output: FeatureMap) -> te.Tensor:
    """Describe a blocked map with other groups of channels."""

    def read(channel: Any, p: Any) -> Any:
        block, lane = source.slot(channel)
        return data[block, p, lane]

    return gather(output, read)
