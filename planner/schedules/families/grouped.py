"""Convolution in groups of channels on the blocked layout: what it computes, its schedule, what is lowered to it.

Groups rarely end on a block of 16 channels.  Outputs of such a group are kept in whole blocks of the group's own,
so that each block of outputs reads the channels of one group; inputs are broadcast one at a time and may start
anywhere.  Groups so small that most of a block would be padding are merged, the weights between them being zero.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te

from planner.schedules import storage
from planner.schedules.blocked import CHANNELS, FeatureMap, blocks_of
from planner.schedules.families.convolution import RUN, ConvolutionRule
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import Kernel
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

GROUPED = "grouped_conv2d"
GROUP_BLOCKS = "group_blocks"


def merged(groups: int, inputs: int, outputs: int) -> int:
    """Choose how many groups are computed as one: as many as make least work, then as fill most lanes.

    Args:
        groups: Groups of the convolution.
        inputs: Input channels of one group.
        outputs: Output channels of one group.

    >>> merged(4, 34, 34), merged(32, 4, 4), merged(2, 48, 128)
    (1, 4, 1)
    """

    def work(merge: int) -> tuple[int, int, int]:
        blocks = groups // merge * blocks_of(merge * outputs)
        return blocks * merge * inputs, blocks, merge

    return min((m for m in range(1, groups + 1) if groups % m == 0), key=work)


def merge(weight: NDArray[np.generic], groups: int, together: int) -> NDArray[np.generic]:
    """Write ``weight[out][in / groups][kh][kw]`` as the weights of fewer groups, zeros between what was apart."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], together * inputs, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        column = group % together * inputs
        rows = slice(group * outputs, (group + 1) * outputs)
        whole[rows, column : column + inputs] = weight[rows]
    return whole


def pack(weight: NDArray[np.generic], output: FeatureMap, inner: int) -> NDArray[np.generic]:
    """Pack ``weight[out][in / groups][kh][kw]`` as ``[block][in / groups / inner][kh][kw][inner][16]``."""
    padded = output.spread(weight)
    _, inputs, height, width = padded.shape
    split = padded.reshape(output.blocks, CHANNELS, inputs // inner, inner, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def grouped_convolution(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window, step: int
) -> te.Tensor:
    """Describe a convolution in groups, blocked in and out.

    Args:
        data: The (already padded) input.
        packed: Weights from :func:`pack`; float32, or an integer type that is widened where it is read.
        source: Size of the input before padding.
        output: Size of the output, its groups those of the convolution.
        window: The sliding window.
        step: Lanes from the first channel of one group in ``data`` to that of the next.

    Returns:
        ``(output.blocks, output.pixels, 16)`` float32.
    """
    _, count, kernel_h, kernel_w, inner_count, _ = (int(n) for n in packed.shape)
    outer = te.reduce_axis((0, count), "channel_group")
    row = te.reduce_axis((0, kernel_h), "kernel_row")
    column = te.reduce_axis((0, kernel_w), "kernel_column")
    inner = te.reduce_axis((0, inner_count), "channel")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    def value(o: Any, p: Any, b: Any) -> Any:
        first = o // output.group_blocks * step + outer * inner_count
        # No run of inner channels crosses a block: their lanes are a constant apart.
        block, lane = first // CHANNELS, first % CHANNELS + inner
        if window.pointwise:
            read = data[block, p, lane]
        else:
            image, y, x = output.place(p)
            place = image, y * down + row * dilate_h, x * across + column * dilate_w
            read = window.read(data, source, (block, *place, lane))
        weight = storage.decode(packed, (o, outer, row, column, inner, b))
        return te.sum(read * weight, axis=[outer, row, column, inner])

    run = output.images * output.pixels if window.pointwise else output.width
    notes = {RUN: run, GROUP_BLOCKS: output.group_blocks}
    return te.compute(output.blocked_shape, value, name=GROUPED, attrs=notes)


class GroupedRule(ConvolutionRule):
    """Tile, unroll and vectorise :func:`grouped_convolution` with whatever epilogue was fused to it."""

    FAMILY = "grouped"
    ANCHOR = GROUPED

    def blocks(self, kernel: Kernel) -> int:
        """Give the blocks of one group: only those read the same input."""
        return int(kernel.annotation(GROUPED, GROUP_BLOCKS))


def lower_conv2d(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a convolution with constant weights in more than one group."""
    source, attrs = call.args[0], call.attrs
    weight = rewriter.constants.of(call.args[1])
    shape, groups = shape_of(source), int(attrs.groups)
    if weight is None or attrs.data_layout != "NCHW" or len(shape) != 4 or groups == 1:
        return False
    if weight.scales is not None and weight.axis != 0:
        return False
    size, output = FeatureMap.of(shape), FeatureMap.of(shape_of(var))
    together = merged(groups, size.channels // groups, output.channels // groups)
    count = groups // together
    output = replace(output, groups=count)
    if source in rewriter.grouped and rewriter.grouped[source][1].groups == count:
        data, size = rewriter.grouped[source]
        step = size.group_blocks * CHANNELS
    else:
        data, step = rewriter.as_blocked(source), size.channels // count
    window = Window.of(attrs, weight.values.shape[2:])
    data = rewriter.padded_input(source, data, size, window)
    inner = gcd(CHANNELS, size.channels // count)
    packed = relax.const(pack(merge(weight.values, groups, together), output, inner))
    result = rewriter.call(
        grouped_convolution, data, packed, hint="grouped_conv2d", pattern=FUSABLE,
        source=size, output=output, window=window, step=step,
    )  # fmt: skip
    rewriter.put(var, rewriter.scaled(result, weight, output), output)
    return True


LOWERINGS = {"relax.nn.conv2d": lower_conv2d}
