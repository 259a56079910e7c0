"""Pooling on the blocked layout: sliding maximum and mean, and the mean over the whole map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te, tirx

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

POOL = "blocked_pool"
WIDTH = "output_width"
FRAMED = "reads_beyond_the_map"
_UNROLLED = 25
"""Pixels of the largest window whose steps are all written out."""


def _overhangs(source: FeatureMap, output: FeatureMap, window: Window) -> bool:
    """Tell whether any window reaches beyond the map; rounding the size up makes some reach beyond the padding."""
    top, left, _, _ = window.padding
    ends = [
        (count - 1) * stride + dilation * (kernel - 1) - before
        for count, stride, dilation, kernel, before in zip(
            (output.height, output.width), window.strides, window.dilation, window.kernel, (top, left), strict=True
        )
    ]
    return top > 0 or left > 0 or ends[0] >= source.height or ends[1] >= source.width


def _notes(source: FeatureMap, output: FeatureMap, window: Window) -> dict[str, int]:
    return {WIDTH: output.width, FRAMED: int(_overhangs(source, output, window))}


def maximum(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window) -> te.Tensor:
    """Describe a sliding maximum.

    What lies beyond the edge is the least of numbers; the loops are cut where the edges begin, so that the inner part
    of the map does not ask, and no padded copy is needed.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    top, left, _, _ = window.padding

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        y = y * window.strides[0] + row * window.dilation[0] - top
        x = x * window.strides[1] + column * window.dilation[1] - left
        read = data[o, (image * source.height + y) * source.width + x, b]
        if _overhangs(source, output, window):
            inside = te.all(y >= 0, y < source.height, x >= 0, x < source.width)
            read = te.if_then_else(inside, read, te.min_value(str(data.dtype)))
        return te.max(read, axis=[row, column])

    return te.compute(output.blocked_shape, value, name=POOL, attrs=_notes(source, output, window))


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

    def corner(p: Any) -> tuple[Any, Any, Any]:
        image, y, x = output.place(p)
        return image, y * window.strides[0] - top, x * window.strides[1] - left

    def total(o: Any, p: Any, b: Any) -> Any:
        image, y, x = corner(p)
        y, x = y + row * window.dilation[0], x + column * window.dilation[1]
        inside = te.all(y >= 0, y < source.height, x >= 0, x < source.width)
        read = data[o, (image * source.height + y) * source.width + x, b]
        if _overhangs(source, output, window):
            read = te.if_then_else(inside, read, 0.0)
        return te.sum(read, axis=[row, column])

    summed = te.compute(output.blocked_shape, total, name=POOL, attrs=_notes(source, output, window))

    def taps(first: Any, low: int, high: int, kernel: int, dilation: int) -> Any:
        if dilation == 1:
            return te.min(first + kernel, high) - te.max(first, low)
        before = (te.max(low - first, 0) + dilation - 1) // dilation
        return te.min((te.max(high - first, 0) + dilation - 1) // dilation, kernel) - before

    def count(p: Any) -> Any:
        _, y, x = corner(p)
        low_y, low_x = (-top, -left) if count_padding else (0, 0)
        high_y = source.height + (bottom if count_padding else 0)
        high_x = source.width + (right if count_padding else 0)
        rows = taps(y, low_y, high_y, window.kernel[0], window.dilation[0])
        columns = taps(x, low_x, high_x, window.kernel[1], window.dilation[1])
        return tirx.Cast("float32", rows * columns)

    return te.compute(output.blocked_shape, lambda o, p, b: summed[o, p, b] / count(p), name="pool_divide")


def global_mean(data: te.Tensor, *, source: FeatureMap) -> te.Tensor:
    """Describe the mean over all pixels of each image, ``(blocks, images, 16)``."""
    count = source.height * source.width
    pixel = te.reduce_axis((0, count), "pixel")
    summed = te.compute(
        (source.blocks, source.images, CHANNELS),
        lambda o, n, b: te.sum(data[o, n * count + pixel, b], axis=[pixel]),
        name=POOL,
    )
    return te.compute(
        summed.shape,
        lambda o, n, b: summed[o, n, b] * tirx.const(1.0 / count, "float32"),
        name="pool_scale",
    )


class PoolingRule(FamilyRule):
    """Schedule a pooling: some pixels of a row of one channel block at a time, the window unrolled."""

    FAMILY = "pooling"
    ANCHOR = POOL

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many pixels of a row are reduced at once, and whether blocks are spread over threads."""
        notes = kernel.annotations(POOL)
        width = int(notes.get(WIDTH, 1))
        work = 1
        for loop in kernel.loops(POOL):
            work *= kernel.extent(loop)
        return {
            "width": width,
            "pixels": vectors.pixels_of_row(self.unit, width),
            "frame": int(notes.get(FRAMED, 0)),
            "threads": int(self.unit.worth_threads(work)),
        }

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List other numbers of pixels, up to those whose sums fill the registers."""
        default = self.default(kernel)
        widths = vectors.rows_of_pixels(self.unit, default["width"])
        return [default, *({**default, "pixels": n} for n in widths if n != default["pixels"])]

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a pooling.

        ``pixels`` of a row of ``width`` are in registers; with ``frame`` rows and columns are cut where the window
        leaves the map; ``threads`` says whether blocks are spread over them.
        """
        sch, block = kernel.sch, kernel.block(POOL)
        epilogue = kernel.inline_into_epilogue(POOL)
        o, p, b, *reduced = sch.get_loops(block)
        y, x = sch.split(p, [None, parameters["width"]])
        xo, xi = sch.split(x, [None, parameters["pixels"]])
        sch.reorder(o, y, xo, *reduced, xi, b)
        sch.reverse_compute_at(epilogue, xo)
        *within, lane = sch.get_loops(epilogue)[3:]
        sch.vectorize(lane)
        sch.vectorize(b)
        for loop in (*within, xi):
            sch.unroll(loop)
        if len(reduced) > 1 and kernel.extent(reduced[0]) * kernel.extent(reduced[1]) <= _UNROLLED:
            for loop in reduced:
                sch.unroll(loop)
        if parameters["frame"]:
            sch.annotate(y, "pragma_loop_partition_hint", 1)
        if parameters["frame"] or parameters["width"] % parameters["pixels"]:
            sch.annotate(xo, "pragma_loop_partition_hint", 1)
        if parameters["threads"]:
            sch.parallel(o)
        sch.decompose_reduction(block, reduced[0])
        return sch


def lower_pool(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a sliding maximum or mean of a map that is blocked already."""
    source, attrs = call.args[0], call.attrs
    if not rewriter.in_blocks(source) or attrs.layout != "NCHW":
        return False
    averages = call.op.name.endswith("avg_pool2d")
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    output = replace(FeatureMap.of(shape_of(var)), groups=size.groups)
    window = Window.of(attrs, attrs.pool_size)
    common = {"source": size, "output": output, "window": window}
    if averages:
        count = bool(attrs.count_include_pad)
        result = rewriter.call(mean, data, hint="avg_pool", pattern=FUSABLE, count_padding=count, **common)
    else:
        result = rewriter.call(maximum, data, hint="max_pool", pattern=FUSABLE, **common)
    rewriter.put(var, result, output)
    return True


def lower_global_pool(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower the mean over all pixels."""
    source = call.args[0]
    shape = shape_of(var)
    if not rewriter.in_blocks(source) or len(shape) != 4 or shape[2:] != [1, 1]:
        return False
    if call.op.name == "relax.mean" and sorted(int(a) % 4 for a in call.attrs.axis) != [2, 3]:
        return False
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    output = replace(FeatureMap.of(shape), groups=size.groups)
    result = rewriter.call(global_mean, data, hint="global_pool", pattern=FUSABLE, source=size)
    rewriter.put(var, result, output)
    return True


LOWERINGS = {
    "relax.nn.max_pool2d": lower_pool,
    "relax.nn.avg_pool2d": lower_pool,
    "relax.nn.adaptive_avg_pool2d": lower_global_pool,
    "relax.mean": lower_global_pool,
}
