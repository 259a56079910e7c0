"""The blocked activation layout: 16 channels side by side, one group of them after the other.

A feature map of ``C`` channels and ``H`` x ``W`` pixels is kept as ``[ceil(C / 16)][H * W][16]`` float32; the
images of a batch lie one after the other along the pixels, ``[ceil(C / 16)][N * H * W][16]``, so that whatever
treats pixels alike needs not know of them.  Where a convolution has groups of channels that do not end on a
block, its output is kept with each group in whole blocks of its own.
Sixteen float32 are one cache line, one AVX-512 register or two AVX2 registers, so that every kernel
reads and writes whole registers and needs no shuffle.  Channels that pad the last group hold whatever the
producer computed from zero weights and zero biases; no consumer lets them reach a real output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = 16
"""Channels in one block; float32 lanes of a cache line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """Size of an activation tensor, and how it lies in memory when blocked.

    Attributes:
        channels: Real channels.
        height: Rows.
        width: Columns.
        images: Images of the batch.
        groups: Groups of channels that each start on a block.

    Examples:
        >>> FeatureMap(channels=20, height=7, width=7).blocked_shape
        (2, 49, 16)
        >>> FeatureMap.of((3, 20, 7, 7)).blocked_shape
        (2, 147, 16)
        >>> FeatureMap(channels=68, height=7, width=7, groups=2).blocks
        6
    """

    channels: int
    height: int
    width: int
    images: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that no tensor has."""
        if min(self.channels, self.height, self.width, self.images) < 1:
            raise ValueError(f"sizes of a feature map are positive, got {self}")
        if self.channels % self.groups:
            raise ValueError(f"groups of a feature map are of one size, got {self}")

    @classmethod
    def of(cls, shape: Sequence[int]) -> FeatureMap:
        """Give the size of an NCHW tensor from its shape."""
        images, channels, height, width = shape
        return cls(channels=channels, height=height, width=width, images=images)

    @property
    def group_channels(self) -> int:
        """Channels of one group."""
        return self.channels // self.groups

    @property
    def group_blocks(self) -> int:
        """Blocks of one group."""
        return blocks_of(self.group_channels)

    @property
    def blocks(self) -> int:
        """Blocks of 16 channels."""
        return self.groups * self.group_blocks

    @property
    def full(self) -> bool:
        """Whether no block is padded."""
        return self.group_channels % CHANNELS == 0

    def slot(self, channel: Any) -> tuple[Any, Any]:
        """Give the block and the lane where a channel lies."""
        if self.groups == 1:
            return channel // CHANNELS, channel % CHANNELS
        within = channel % self.group_channels
        return channel // self.group_channels * self.group_blocks + within // CHANNELS, within % CHANNELS

    def channel(self, block: Any, lane: Any) -> tuple[Any, Any]:
        """Give the group of a block and lane, and the channel within that group, which may be one that pads it."""
        if self.groups == 1:
            return 0, block * CHANNELS + lane
        return block // self.group_blocks, block % self.group_blocks * CHANNELS + lane

    def spread(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Append zeros to each group along the first axis, one entry a channel, until it fills its blocks."""
        rest = values.shape[1:]
        grouped = np.moveaxis(values.reshape(self.groups, self.group_channels, *rest), 0, 1)
        padded = np.moveaxis(pad_first_axis(grouped, self.group_blocks * CHANNELS), 1, 0)
        return padded.reshape(self.blocks * CHANNELS, *rest)

    @property
    def rows(self) -> int:
        """Rows of all images."""
        return self.images * self.height

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.rows * self.width

    def place(self, pixel: Any) -> tuple[Any, Any, Any]:
        """Give the image, row and column of a pixel index; the image is the number 0 where there is but one."""
        if self.images == 1:
            return 0, pixel // self.width, pixel % self.width
        row = pixel // self.width
        return row // self.height, row % self.height, pixel % self.width

    @property
    def blocked_shape(self) -> tuple[int, int, int]:
        """Shape of the blocked tensor, ``(blocks, pixels, 16)``."""
        return (self.blocks, self.pixels, CHANNELS)

    @property
    def plain_shape(self) -> tuple[int, int, int, int]:
        """Shape of the same tensor as NCHW."""
        return (self.images, self.channels, self.height, self.width)


def blocks_of(channels: int) -> int:
    """Give the number of 16-channel groups that hold ``channels``."""
    return -(-channels // CHANNELS)


def pad_first_axis(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Append zeros along the first axis until it has ``size`` entries."""
    if array.shape[0] == size:
        return array
    widths = [(0, size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, widths)


def per_channel(values: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    """Lay one value per channel out so that it broadcasts over a blocked tensor: ``(blocks, 1, 16)``."""
    return pad_first_axis(values.reshape(-1), blocks_of(channels) * CHANNELS).reshape(-1, 1, CHANNELS)


def pack_convolution(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """Pack ``weight[out][in][kh][kw]`` in the order in which the kernel streams through it.

    Returns:
        ``[out / 16][in / g][kh][kw][g][16]`` with ``g`` = 16 where that divides the input channels, else the
        whole of them; dtype unchanged.
    """
    padded = pad_first_axis(weight, blocks_of(weight.shape[0]) * CHANNELS)
    outputs, inputs, height, width = padded.shape
    group = CHANNELS if inputs % CHANNELS == 0 else inputs
    split = padded.reshape(outputs // CHANNELS, CHANNELS, inputs // group, group, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def pack_dense(weight: NDArray[np.generic], columns: int) -> NDArray[np.generic]:
    """Pack ``weight[out][in]`` as ``[out / columns][in][columns]``, zero-padded in the last block."""
    blocks = -(-weight.shape[0] // columns)
    padded = pad_first_axis(weight, blocks * columns)
    return np.ascontiguousarray(padded.reshape(blocks, columns, -1).transpose(0, 2, 1))


def pack_depthwise(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """Pack ``weight[channels][1][kh][kw]`` as ``[channels / 16][kh][kw][16]``."""
    padded = pad_first_axis(weight[:, 0], blocks_of(weight.shape[0]) * CHANNELS)
    return np.ascontiguousarray(padded.reshape(-1, CHANNELS, *weight.shape[2:]).transpose(0, 2, 3, 1))
