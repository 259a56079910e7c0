"""Convolution on the blocked layout: what it computes, how it is scheduled, what is lowered to it.

The convolution is the direct one of Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions
on SIMD Architectures" (SC 2018): a tile of output pixels times 16 output channels stays in registers while the
reduction streams through weights packed in exactly that order; the epilogue is applied before the tile leaves
the registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te

from planner.schedules import storage, vectors
from planner.schedules.blocked import CHANNELS, FeatureMap, pack_convolution
from planner.schedules.codes import Form
from planner.schedules.powers import PowersForm
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

CONVOLUTION = "blocked_conv2d"
RUN = "pixels_equally_far_apart"
_CANDIDATES = 12
_SHARE = 8
_MANY = 2
"""Tiles of pixels from which on weights are better unpacked before they are multiplied."""


def convolution(
    data: te.Tensor,
    *packed: te.Tensor,
    source: FeatureMap,
    output: FeatureMap,
    window: Window,
    plain: bool,
    form: Form | PowersForm | None = None,
) -> te.Tensor:
    """Describe a convolution with blocked output.

    Args:
        data: The (already padded) input, blocked or plain NCHW.
        packed: Weights from :func:`blocked.pack_convolution`, stored in any way that :func:`storage.decode` knows; or
            what :meth:`storage.Codes.packed` makes of them.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window.
        plain: Whether ``data`` is NCHW rather than blocked.
        form: How to read codes, where weights are codes.

    Returns:
        ``(output.blocks, output.pixels, 16)`` float32.
    """
    blocks, groups, kernel_h, kernel_w, *_ = (int(n) for n in packed[0].shape)
    group = source.channels // groups
    outer = te.reduce_axis((0, groups), "channel_group")
    row = te.reduce_axis((0, kernel_h), "kernel_row")
    column = te.reduce_axis((0, kernel_w), "kernel_column")
    inner = te.reduce_axis((0, group), "channel")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation
    weights = packed[0]
    if form is not None:
        shape = (blocks, groups, kernel_h, kernel_w, group, CHANNELS)
        weights = storage.unpacked(form.decoder(packed, shape, group), shape)

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = outer * group + inner
        if window.pointwise and not plain:
            read = data[channel // CHANNELS, p, channel % CHANNELS]
        else:
            image, y, x = output.place(p)
            y, x = y * down + row * dilate_h, x * across + column * dilate_w
            if plain:
                read = data[image, channel, y, x]
            else:
                read = window.read(data, source, (channel // CHANNELS, image, y, x, channel % CHANNELS))
        weight = storage.decode(weights, (o, outer, row, column, inner, b))
        return te.sum(read * weight, axis=[outer, row, column, inner])

    run = output.width if plain or not window.pointwise else output.images * output.pixels
    return te.compute(output.blocked_shape, value, name=CONVOLUTION, attrs={RUN: run})


class ConvolutionRule(FamilyRule):
    """Tile, unroll and vectorise :func:`convolution` with whatever epilogue was fused to it."""

    FAMILY = "convolution"
    ANCHOR = CONVOLUTION

    def blocks(self, kernel: Kernel) -> int:
        """Give the 16-channel blocks of the output that read the same input."""
        return kernel.extent(kernel.loops(self.ANCHOR)[0])

    def default(self, kernel: Kernel) -> Parameters:
        """Choose the tile of output that is accumulated at once, and how far the reduction is unrolled."""
        _, pixels, _, _, row, column, _ = (kernel.extent(loop) for loop in kernel.loops(self.ANCHOR))
        tile = vectors.tile_of(
            self.unit,
            blocks=self._unpacked_blocks(kernel) if kernel.has(storage.UNPACKED) else self.blocks(kernel),
            pixels=pixels,
            run=int(kernel.annotation(self.ANCHOR, RUN)),
            window=row * column,
        )
        return self._with(kernel, tile)

    def _unpacked_blocks(self, kernel: Kernel) -> int:
        """Give the most blocks whose weights, unpacked, take no more than an eighth of all of them; at least one."""
        blocks = self.blocks(kernel)
        return next(few for few in range(max(1, blocks // _SHARE), 0, -1) if blocks % few == 0)

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List the default, other tiles that fill the registers, and other unrolling."""
        default = self.default(kernel)
        blocks, pixels = self.blocks(kernel), kernel.extent(kernel.loops(self.ANCHOR)[1])
        fitting = vectors.tiles(self.unit, blocks=blocks, pixels=pixels)
        widest = {tile.blocks: tile for tile in fitting}
        even = {tile.blocks: tile for tile in fitting if pixels % tile.pixels == 0}
        found = [default, *(self._with(kernel, tile) for tile in (*widest.values(), *even.values()))]
        group = kernel.extent(kernel.loops(self.ANCHOR)[-1])
        found += [{**default, "unroll": unroll} for unroll in (1, 2, 4, 8) if group % unroll == 0]
        return [p for index, p in enumerate(found) if p not in found[:index]][:_CANDIDATES]

    def _with(self, kernel: Kernel, tile: vectors.Tile) -> Parameters:
        """Complete a tile."""
        unroll = kernel.divisor(kernel.loops(self.ANCHOR)[-1], range(vectors.unrolling(self.unit), 0, -1))
        many = kernel.extent(kernel.loops(self.ANCHOR)[1]) > _MANY * tile.pixels
        unpacking = {storage.UNPACK_ONCE: int(many)} if kernel.has(storage.UNPACKED) else {}
        operations = 2 * math.prod(kernel.extent(loop) for loop in kernel.loops(self.ANCHOR))
        parts = 0
        if self.unit.worth_waking(operations):
            count, pixels, *_ = (kernel.extent(loop) for loop in kernel.loops(self.ANCHOR))
            whole = pixels % tile.pixels == 0 and not unpacking
            parts = vectors.parts(self.unit, count // tile.blocks, pixels // tile.pixels) if whole else 1
        return {"pixels": tile.pixels, "blocks": tile.blocks, "unroll": unroll, "parts": parts, **unpacking}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a convolution.

        ``pixels`` times ``blocks`` of 16 channels are in registers; ``unroll`` input channels are one step of the
        innermost loop.  Each row of tiles, where all are whole, is cut into so many ``parts``, which are spread over
        threads; 0 means that one thread computes all.
        """
        tail = kernel.extent(kernel.loops(self.ANCHOR)[1]) % parameters["pixels"]
        if tail:
            kernel = kernel.narrowed()
        sch, block = kernel.sch, kernel.block(self.ANCHOR)
        epilogue = kernel.inline_into_epilogue(self.ANCHOR)
        o, p, b, outer, row, column, inner = sch.get_loops(block)
        oo, oi = sch.split(o, [None, parameters["blocks"]])
        po, pi = sch.split(p, [None, parameters["pixels"]])
        rolled, unrolled = sch.split(inner, [None, parameters["unroll"]])
        sch.reorder(oo, po, outer, row, column, rolled, unrolled, pi, oi, b)
        storage.settle(kernel, parameters, oo)
        outside = [oo, po]
        if parameters["parts"] > 1 and not tail:  # taking the tail apart is wrong for parts that begin behind it
            part, po = sch.split(po, [parameters["parts"], None])
            outside = [sch.fuse(oo, part), po]
        if parameters["parts"]:
            sch.parallel(outside[0])
        sch.reverse_compute_at(epilogue, outside[-1])
        *within, lane = sch.get_loops(epilogue)[len(outside) :]
        sch.vectorize(lane)
        for loop in [*within, pi, oi, unrolled]:
            sch.unroll(loop)
        sch.vectorize(b)
        if tail:
            sch.annotate(po, "pragma_loop_partition_hint", 1)  # the last tile gets code of its own, without conditions
        sch.decompose_reduction(block, outer)
        return sch


def lower_conv2d(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower an ungrouped convolution with constant weights."""
    source, attrs = call.args[0], call.attrs
    constant = rewriter.constants.of(call.args[1])
    weight = None if constant is None else constant.along(0)
    shape = shape_of(source)
    if weight is None or attrs.data_layout != "NCHW" or len(shape) != 4 or int(attrs.groups) != 1:
        return False
    size, output = FeatureMap.of(shape), FeatureMap.of(shape_of(var))
    window = Window.of(attrs, weight.values.shape[2:])
    plain = source not in rewriter.blocked and size.channels < CHANNELS
    data = rewriter.as_plain(source) if plain else rewriter.as_blocked(source)
    data = rewriter.padded_input(source, data, size, window)
    coded = weight.codes_along(1)
    packed = (pack_convolution(weight.values),) if coded is None else coded.packed(pack_convolution)
    result = rewriter.call(
        convolution, data, *(relax.const(array) for array in packed), hint="conv2d", pattern=FUSABLE,
        source=size, output=output, window=window, plain=plain, form=None if coded is None else coded.form,
    )  # fmt: skip
    rewriter.blocked[var] = (rewriter.scaled(result, weight, output), output)
    return True


LOWERINGS = {"relax.nn.conv2d": lower_conv2d}
