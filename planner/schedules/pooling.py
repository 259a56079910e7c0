"""Pooling on the blocked layout: sliding maximum and mean, and the mean over the whole map."""

from __future__ import annotations

from typing import Any

from tvm import s_tir, te, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.convolution import Window
from planner.schedules.scheduling import Kernel

POOL = "blocked_pool"


def maximum(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window) -> te.Tensor:
    """Describe a sliding maximum.

    Indices beyond the edge are moved onto it: the edge pixel lies in the same window, so that the maximum is
    unchanged and no padded copy is needed.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    top, left, _, _ = window.padding

    def value(o: Any, p: Any, b: Any) -> Any:
        y = (p // output.width) * window.strides[0] + row * window.dilation[0] - top
        x = (p % output.width) * window.strides[1] + column * window.dilation[1] - left
        y = te.min(te.max(y, 0), source.height - 1)
        x = te.min(te.max(x, 0), source.width - 1)
        return te.max(data[o, y * source.width + x, b], axis=[row, column])

    return te.compute(output.blocked_shape, value, name=POOL)


def mean(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window, count_padding: bool) -> te.Tensor:
    """Describe a sliding mean.

    Args:
        data: ``(blocks, pixels, 16)``.
        source: Size of the input.
        output: Size of the output.
        window: The sliding window.
        count_padding: Whether padded zeros count in the divisor.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    top, left, bottom, right = window.padding

    def corner(p: Any) -> tuple[Any, Any]:
        return (p // output.width) * window.strides[0] - top, (p % output.width) * window.strides[1] - left

    def total(o: Any, p: Any, b: Any) -> Any:
        y, x = corner(p)
        y, x = y + row * window.dilation[0], x + column * window.dilation[1]
        inside = te.all(y >= 0, y < source.height, x >= 0, x < source.width)
        read = data[o, y * source.width + x, b]
        overhangs = (output.height - 1) * window.strides[0] + window.kernel[0] > source.height + top or (
            output.width - 1
        ) * window.strides[1] + window.kernel[1] > source.width + left
        if window.padded or overhangs:
            read = te.if_then_else(inside, read, 0.0)
        return te.sum(read, axis=[row, column])

    summed = te.compute(output.blocked_shape, total, name=POOL)

    def count(p: Any) -> Any:
        y, x = corner(p)
        low_y, low_x = (-top, -left) if count_padding else (0, 0)
        high_y = source.height + (bottom if count_padding else 0)
        high_x = source.width + (right if count_padding else 0)
        rows = te.min(y + window.kernel[0], high_y) - te.max(y, low_y)
        columns = te.min(x + window.kernel[1], high_x) - te.max(x, low_x)
        return tirx.Cast("float32", rows * columns)

    return te.compute(output.blocked_shape, lambda o, p, b: summed[o, p, b] / count(p), name="pool_divide")


def global_mean(data: te.Tensor, *, source: FeatureMap) -> te.Tensor:
    """Describe the mean over all pixels, ``(blocks, 1, 16)``."""
    pixel = te.reduce_axis((0, source.pixels), "pixel")
    summed = te.compute(
        (source.blocks, 1, CHANNELS), lambda o, _, b: te.sum(data[o, pixel, b], axis=[pixel]), name=POOL
    )
    return te.compute(
        summed.shape,
        lambda o, _, b: summed[o, 0, b] * tirx.const(1.0 / source.pixels, "float32"),
        name="pool_scale",
    )


class PoolingRule(ScheduleRule):
    """Vectorise a pooling over the channels of a block; one pixel of it stays in registers."""

    name = "pooling"

    def __init__(self, unit: vectors.VectorUnit) -> None:
        """Remember the vector unit."""
        self.unit = unit

    def describe(self, kernel: Kernel) -> str:
        """Say how a kernel is scheduled, as written to the build config."""
        return f"pooling 1x{CHANNELS}"

    def matches(self, kernel: Kernel) -> bool:
        """Tell whether this rule is the one for a kernel."""
        return kernel.has(POOL)

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func`` where it is a pooling; None where it is not."""
        kernel = Kernel(func)
        if not self.matches(kernel):
            return None
        sch, block = kernel.sch, kernel.block(POOL)
        epilogue = kernel.inline_into_epilogue(POOL)
        o, p, b, *reduced = sch.get_loops(block)
        sch.reorder(o, p, *reduced, b)
        sch.reverse_compute_at(epilogue, p)
        sch.vectorize(sch.get_loops(epilogue)[-1])
        sch.vectorize(b)
        if len(reduced) > 1 and kernel.extent(reduced[0]) * kernel.extent(reduced[1]) <= 16:
            for loop in reduced:
                sch.unroll(loop)
        if self.unit.parallel:
            sch.parallel(sch.fuse(o, p))
        sch.decompose_reduction(block, reduced[0])
        return sch
