"""Convolution and depthwise convolution on the blocked layout: what they compute and how it is scheduled.

The convolution is the direct one of Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions
on SIMD Architectures" (SC 2018): a tile of output pixels times 16 output channels stays in registers while the
reduction streams through weights packed in exactly that order; the epilogue is applied before the tile leaves
the registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, te, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.scheduling import Kernel

CONVOLUTION = "blocked_conv2d"
DEPTHWISE = "blocked_depthwise"
WIDTH = "output_width"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window: kernel, strides, padding (top, left, bottom, right) and dilation."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, attrs: Any, kernel: Sequence[int]) -> Window:
        """Read a window off the attributes of a Relax call."""

        def integers(values: Any) -> tuple[int, ...]:
            return tuple(int(v) for v in values)

        padding = integers(attrs.padding)
        if len(padding) == 2:
            padding = padding * 2
        height, width = integers(kernel)
        strides, dilation = integers(attrs.strides), integers(attrs.dilation)
        return cls(
            kernel=(height, width),
            strides=(strides[0], strides[1]),
            padding=(padding[0], padding[1], padding[2], padding[3]),
            dilation=(dilation[0], dilation[1]),
        )

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel reads the one input pixel of the same index."""
        return self.kernel == (1, 1) and self.strides == (1, 1) and not self.padded

    @property
    def padded(self) -> bool:
        """Whether any side is padded."""
        return any(self.padding)

    def padded_size(self, source: FeatureMap) -> tuple[int, int]:
        """Height and width of the padded input."""
        top, left, bottom, right = self.padding
        return source.height + top + bottom, source.width + left + right


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


def convolution(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window, plain: bool
) -> te.Tensor:
    """Describe a convolution with blocked output.

    Args:
        data: The (already padded) input, blocked or plain NCHW.
        packed: Weights from :func:`blocked.pack_convolution`; float32, or an integer type that is widened
            where it is read.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window.
        plain: Whether ``data`` is NCHW rather than blocked.

    Returns:
        ``(output.blocks, output.pixels, 16)`` float32.
    """
    _, groups, kernel_h, kernel_w, group, _ = (int(n) for n in packed.shape)
    outer = te.reduce_axis((0, groups), "channel_group")
    row = te.reduce_axis((0, kernel_h), "kernel_row")
    column = te.reduce_axis((0, kernel_w), "kernel_column")
    inner = te.reduce_axis((0, group), "channel")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = outer * group + inner
        if window.pointwise and not plain:
            read = data[channel // CHANNELS, p, channel % CHANNELS]
        else:
            y = (p // output.width) * down + row * dilate_h
            x = (p % output.width) * across + column * dilate_w
            if plain:
                read = data[0, channel, y, x]
            elif len(data.shape) == 3:
                read = data[channel // CHANNELS, y * source.width + x, channel % CHANNELS]
            else:
                read = data[channel // CHANNELS, y, x, channel % CHANNELS]
        weight = packed[o, outer, row, column, inner, b]
        if str(packed.dtype) != "float32":
            weight = tirx.Cast("float32", weight)
        return te.sum(read * weight, axis=[outer, row, column, inner])

    return te.compute(output.blocked_shape, value, name=CONVOLUTION, attrs={WIDTH: output.width})


def depthwise(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window
) -> te.Tensor:
    """Describe a depthwise convolution, blocked in and out; arguments as in :func:`convolution`."""
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    def value(o: Any, p: Any, b: Any) -> Any:
        y = (p // output.width) * down + row * dilate_h
        x = (p % output.width) * across + column * dilate_w
        read = data[o, y * source.width + x, b] if len(data.shape) == 3 else data[o, y, x, b]
        weight = packed[o, row, column, b]
        if str(packed.dtype) != "float32":
            weight = tirx.Cast("float32", weight)
        return te.sum(read * weight, axis=[row, column])

    return te.compute(output.blocked_shape, value, name=DEPTHWISE)


class ConvolutionRule(ScheduleRule):
    """Tile, unroll and vectorise :func:`convolution` with whatever epilogue was fused to it."""

    name = "convolution"

    def __init__(self, unit: vectors.VectorUnit) -> None:
        """Remember the vector unit that tiles are chosen for."""
        self.unit = unit

    def describe(self, kernel: Kernel) -> str:
        """Say which tile a kernel gets, as written to the build config."""
        tile = self._tile(kernel)
        return f"convolution tile={tile.pixels}x{tile.blocks * CHANNELS}"

    def matches(self, kernel: Kernel) -> bool:
        """Tell whether this rule is the one for a kernel."""
        return kernel.has(CONVOLUTION)

    def _tile(self, kernel: Kernel) -> vectors.Tile:
        width = int(kernel.annotation(CONVOLUTION, WIDTH))
        blocks, pixels = (kernel.extent(loop) for loop in kernel.loops(CONVOLUTION)[:2])
        return vectors.tile_of(self.unit, blocks=blocks, height=pixels // width, width=width)

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func`` where it is a convolution; None where it is not."""
        kernel = Kernel(func)
        if not self.matches(kernel):
            return None
        sch, block = kernel.sch, kernel.block(CONVOLUTION)
        epilogue = kernel.inline_into_epilogue(CONVOLUTION)
        o, p, b, outer, row, column, inner = sch.get_loops(block)
        tile = self._tile(kernel)
        oo, oi = sch.split(o, [None, tile.blocks])
        po, pi = sch.split(p, [None, tile.pixels])
        group = kernel.extent(inner)
        sch.reorder(oo, po, outer, row, column, inner, pi, oi, b)
        sch.reverse_compute_at(epilogue, po)
        *within, lane = sch.get_loops(epilogue)[2:]
        sch.vectorize(lane)
        for loop in within:
            sch.unroll(loop)
        sch.vectorize(b)
        sch.unroll(pi)
        sch.unroll(oi)
        if group <= CHANNELS:
            sch.unroll(inner)
        if kernel.extent(outer) == 1 and group * kernel.extent(column) <= CHANNELS:
            sch.unroll(column)
        if self.unit.parallel:
            sch.parallel(sch.fuse(oo, po))
        sch.decompose_reduction(block, outer)
        return sch


class DepthwiseRule(ScheduleRule):
    """Schedule :func:`depthwise`: a few pixels of one channel block at a time, the window unrolled."""

    name = "depthwise"

    def __init__(self, unit: vectors.VectorUnit) -> None:
        """Remember the vector unit that tiles are chosen for."""
        self.unit = unit

    def describe(self, kernel: Kernel) -> str:
        """Say which tile a kernel gets, as written to the build config."""
        return f"depthwise tile={self._tile(kernel)}x{CHANNELS}"

    def matches(self, kernel: Kernel) -> bool:
        """Tell whether this rule is the one for a kernel."""
        return kernel.has(DEPTHWISE)

    def _tile(self, kernel: Kernel) -> int:
        return kernel.divisor(kernel.loops(DEPTHWISE)[1], (4, 2, 3, 1))

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func`` where it is a depthwise convolution; None where it is not."""
        kernel = Kernel(func)
        if not self.matches(kernel):
            return None
        sch, block = kernel.sch, kernel.block(DEPTHWISE)
        epilogue = kernel.inline_into_epilogue(DEPTHWISE)
        o, p, b, row, column = sch.get_loops(block)
        po, pi = sch.split(p, [None, self._tile(kernel)])
        sch.reorder(o, po, row, column, pi, b)
        sch.reverse_compute_at(epilogue, po)
        sch.vectorize(sch.get_loops(epilogue)[-1])
        sch.vectorize(b)
        sch.unroll(pi)
        if kernel.extent(row) * kernel.extent(column) <= 32:
            sch.unroll(row)
            sch.unroll(column)
        if self.unit.parallel:
            sch.parallel(o)
        sch.decompose_reduction(block, row)
        return sch
