"""Depthwise convolution on the blocked layout: what it computes, how it is scheduled, what is lowered to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te, tirx

from planner.schedules.blocked import FeatureMap, pack_depthwise
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

DEPTHWISE = "blocked_depthwise"


def depthwise(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window
) -> te.Tensor:
    """Describe a depthwise convolution, blocked in and out; arguments as :func:`.convolution.convolution` has them."""
    row = te.reduce_axis((0, window.kernel[0]), "kernel_row")
    column = te.reduce_axis((0, window.kernel[1]), "kernel_column")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        read = window.read(data, source, (o, image, y * down + row * dilate_h, x * across + column * dilate_w, b))
        weight = packed[o, row, column, b]
        if str(packed.dtype) != "float32":
            weight = tirx.Cast("float32", weight)
        return te.sum(read * weight, axis=[row, column])

    return te.compute(output.blocked_shape, value, name=DEPTHWISE)


class DepthwiseRule(FamilyRule):
    """Schedule :func:`depthwise`: a few pixels of one channel block at a time, the window unrolled."""

    FAMILY = "depthwise"
    ANCHOR = DEPTHWISE

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many pixels are accumulated at once."""
        return {"pixels": kernel.divisor(kernel.loops(DEPTHWISE)[1], (4, 2, 3, 1))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a depthwise convolution; ``pixels`` of 16 channels are in registers."""
        sch, block = kernel.sch, kernel.block(DEPTHWISE)
        epilogue = kernel.inline_into_epilogue(DEPTHWISE)
        o, p, b, row, column = sch.get_loops(block)
        po, pi = sch.split(p, [None, parameters["pixels"]])
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
    data = rewriter.padded_input(source, rewriter.as_blocked(source), size, window)
    packed = relax.const(pack_depthwise(weight.values))
    result = rewriter.call(
        depthwise, data, packed, hint="depthwise", pattern=FUSABLE, source=size, output=output, window=window
    )
    rewriter.blocked[var] = (rewriter.scaled(result, weight, output), output)
    return True


LOWERINGS = {"relax.nn.conv2d": lower_conv2d}
