"""Depthwise convolution on the blocked layout: what it computes, how it is scheduled, what is lowered to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te, tirx

from planner.schedules import storage, vectors
from planner.schedules.blocked import FeatureMap, pack_depthwise
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

DEPTHWISE = "blocked_depthwise"
WIDTH = "output_width"
FRAMED = "reads_beyond_the_map"
_UNROLLED = 32
"""Pixels of the largest kernel whose steps are all written out."""


def depthwise(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window
) -> te.Tensor:
    """Describe a depthwise convolution.

    The input is not padded: what lies beyond its edges is known to be zero where it is read.  The loops are cut where
    the edges begin, so that the inner part of the map does not ask.

    Args:
        data: ``(blocks, pixels, 16)`` float32.
        packed: Weights from :func:`blocked.pack_depthwise`; float32, or an integer type that is widened where it is
            read.
        source: Size of the input.
        output: Size of the output.
        window: The sliding window.

    Returns:
        ``(blocks, output pixels, 16)`` float32.
    """
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation
    top, left, _, _ = window.padding
    framed = window.padded

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        y, x = y * down + row * dilate_h - top, x * across + column * dilate_w - left
        read = data[o, (image * source.height + y) * source.width + x, b]
        if framed:
            inside = te.all(y >= 0, y < source.height, x >= 0, x < source.width)
            read = te.if_then_else(inside, read, tirx.const(0, "float32"))
        weight = storage.decode(packed, (o, row, column, b))
        return te.sum(read * weight, axis=[row, column])

    notes = {WIDTH: output.width, FRAMED: int(framed)}
    return te.compute(output.blocked_shape, value, name=DEPTHWISE, attrs=notes)


class DepthwiseRule(FamilyRule):
    """Schedule :func:`depthwise`: some pixels of a row of one channel block at a time, the window unrolled."""

    FAMILY = "depthwise"
    ANCHOR = DEPTHWISE

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many pixels of a row are accumulated at once, and whether blocks are spread over threads."""
        width = int(kernel.annotation(DEPTHWISE, WIDTH))
        work = 1
        for loop in kernel.loops(DEPTHWISE):
            work *= kernel.extent(loop)
        return {
            "pixels": vectors.pixels_of_row(self.unit, width),
            "frame": int(kernel.annotation(DEPTHWISE, FRAMED)),
            "threads": int(self.unit.worth_threads(work)),
        }

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List other numbers of pixels, up to those whose sums fill the registers."""
        default = self.default(kernel)
        widths = vectors.rows_of_pixels(self.unit, int(kernel.annotation(DEPTHWISE, WIDTH)))
        return [default, *({**default, "pixels": n} for n in widths if n != default["pixels"])]

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a depthwise convolution.

        ``pixels`` of 16 channels are in registers; with ``frame`` rows and columns are cut where the window leaves
        the map; ``threads`` says whether blocks are spread over them.
        """
        sch, block = kernel.sch, kernel.block(DEPTHWISE)
        width = int(kernel.annotation(DEPTHWISE, WIDTH))
        epilogue = kernel.inline_into_epilogue(DEPTHWISE)
        o, p, b, row, column = sch.get_loops(block)
        y, x = sch.split(p, [None, width])
        xo, xi = sch.split(x, [None, parameters["pixels"]])
        sch.reorder(o, y, xo, row, column, xi, b)
        sch.reverse_compute_at(epilogue, xo)
        *within, lane = sch.get_loops(epilogue)[3:]
        sch.vectorize(lane)
        sch.vectorize(b)
        for loop in (*within, xi):
            sch.unroll(loop)
        if kernel.extent(row) * kernel.extent(column) <= _UNROLLED:
            sch.unroll(row)
            sch.unroll(column)
        if parameters["frame"]:
            sch.annotate(y, "pragma_loop_partition_hint", 1)
        if parameters["frame"] or width % parameters["pixels"]:
            sch.annotate(xo, "pragma_loop_partition_hint", 1)
        if parameters["threads"]:
            sch.parallel(o)
        sch.decompose_reduction(block, row)
        return sch


def lower_conv2d(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a convolution with constant weights that has one filter a channel."""
    source, attrs = call.args[0], call.attrs
    weight = rewriter.constants.of(call.args[1])
    shape = shape_of(source)
    if weight is None or attrs.data_layout != "NCHW" or len(shape) != 4:
        return False
    size, output = FeatureMap.of(shape), FeatureMap.of(shape_of(var))
    if int(attrs.groups) == 1 or not int(attrs.groups) == size.channels == output.channels:
        return False
    if weight.scales is not None and weight.axis != 0:
        return False
    window = Window.of(attrs, weight.values.shape[2:])
    packed = relax.const(pack_depthwise(weight.values))
    result = rewriter.call(
        depthwise, rewriter.as_blocked(source), packed, hint="depthwise", pattern=FUSABLE,
        source=size, output=output, window=window,
    )  # fmt: skip
    rewriter.blocked[var] = (rewriter.scaled(result, weight, output), output)
    return True


LOWERINGS = {"relax.nn.conv2d": lower_conv2d}
