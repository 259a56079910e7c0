"""Convolution of bytes on the blocked layout: what it computes and how it is scheduled.

The loops are those of :mod:`convolution`; the innermost step takes four input channels at once, by whatever
dot product of bytes the target has (:mod:`int8_targets`).  Dense layers are convolutions whose window is the
whole map.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import s_tir, sym, te, tirx

from planner.schedules import int8_targets
from planner.schedules.blocked import CHANNELS, FeatureMap, blocks_of, pad_first_axis
from planner.schedules.int8_targets import ByteUnit, Instruction
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.vectors import VectorUnit
from planner.schedules.window import Window

INT8_CONVOLUTION = "int8_conv2d"
WIDTH = "output_width"
FITS = "pairs_fit"

_QUAD = int8_targets.CHANNELS
_ON_STACK = 16
"""Accumulators of 16 int32 that TVM keeps on the stack (1 KiB), from where LLVM moves them to registers."""

_COSTS = {Instruction.PMADDUBSW: (3, 4), Instruction.PMADDWD: (4, 6)}
"""What a step takes besides a single instruction: half-cycles, and registers that are no accumulators."""


def pack(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Pack ``weight[out][in][kh][kw]`` in the order in which the kernel streams through it.

    Returns:
        ``[out / 16][in / 16][kh][kw][quads][16 * 4]``: for each quad of input channels the four weights of each of
        16 output channels side by side; zeros where channels were padded.  A single block of input channels has
        as many quads as it needs.
    """
    outputs, inputs, height, width = weight.shape
    groups = blocks_of(inputs)
    quads = CHANNELS // _QUAD if groups > 1 else -(-inputs // _QUAD)
    padded = pad_first_axis(weight, blocks_of(outputs) * CHANNELS)
    padded = pad_first_axis(padded.transpose(1, 0, 2, 3), groups * quads * _QUAD).transpose(1, 0, 2, 3)
    split = padded.reshape(-1, CHANNELS, groups, quads, _QUAD, height, width)
    ordered = split.transpose(0, 2, 5, 6, 3, 1, 4)
    return np.ascontiguousarray(ordered.reshape(*ordered.shape[:5], CHANNELS * _QUAD))


def convolution(
    data: te.Tensor,
    packed: te.Tensor,
    *,
    source: FeatureMap,
    output: FeatureMap,
    window: Window,
    fits: bool,
    dtype: str,
) -> te.Tensor:
    """Describe a convolution of bytes.

    Args:
        data: The (already padded) input: ``(blocks, pixels, 16)`` or ``(blocks, height, width, 16)`` bytes, or,
            for up to four channels, words of four bytes with 1 in place of 16.
        packed: Weights from :func:`pack`.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window.
        fits: What :func:`int8_targets.pairs_fit` says of the weights and the input.
        dtype: Of the input's bytes, ``uint8`` or ``int8``.

    Returns:
        ``(output.blocks, output.pixels, 16)`` int32.
    """
    _, groups, kernel_h, kernel_w, quads, _ = (int(n) for n in packed.shape)
    outer = te.reduce_axis((0, groups), "channel_block")
    row = te.reduce_axis((0, kernel_h), "kernel_row")
    column = te.reduce_axis((0, kernel_w), "kernel_column")
    quad = te.reduce_axis((0, quads), "quad")
    inner = te.reduce_axis((0, _QUAD), "channel")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    words = str(data.dtype) == "int32"
    lane = 0 if words else quad * _QUAD + inner

    def value(o: Any, p: Any, b: Any) -> Any:
        if window.pointwise:
            read = data[outer, p, lane]
        else:
            image, y, x = output.place(p)
            y, x = y * down + row * dilate_h, x * across + column * dilate_w
            read = window.read(data, source, (outer, image, y, x, lane))
        byte = tirx.Cast(dtype, read >> (inner * 8)) if words else read
        weight = packed[o, outer, row, column, quad, b * _QUAD + inner]
        product = tirx.Cast("int32", byte) * tirx.Cast("int32", weight)
        return te.sum(product, axis=[outer, row, column, quad, inner])

    return te.compute(output.blocked_shape, value, name=INT8_CONVOLUTION, attrs={WIDTH: output.width, FITS: int(fits)})


class Int8ConvolutionRule(FamilyRule):
    """Tile and unroll :func:`convolution`, and put the target's dot product into its innermost step."""

    FAMILY = "int8_convolution"
    ANCHOR = INT8_CONVOLUTION

    def __init__(self, unit: VectorUnit, byte_unit: ByteUnit) -> None:
        """Remember the units that parameters are chosen for."""
        super().__init__(unit)
        self.bytes = byte_unit

    def default(self, kernel: Kernel) -> Parameters:
        """Choose the tile with the lowest cost, and the instruction."""
        return min(self.candidates(kernel), key=lambda parameters: self._cost(kernel, parameters))

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List all tiles that divide the output and whose accumulators stay on the stack."""
        blocks, pixels = (kernel.extent(loop) for loop in kernel.loops(INT8_CONVOLUTION)[:2])
        fits = bool(int(kernel.annotation(INT8_CONVOLUTION, FITS)))
        instruction = self.bytes.instruction(fits=fits)
        for tile in range(1, min(pixels, _ON_STACK) + 1):
            for block in range(1, _ON_STACK // tile + 1):
                if pixels % tile == 0 and blocks % block == 0:
                    yield {
                        "pixels": tile,
                        "blocks": block,
                        "instruction": int(instruction),
                        "lanes": self.bytes.lanes,
                    }

    def _cost(self, kernel: Kernel, parameters: Parameters) -> float:
        """Estimate the cycles that one product of a pixel and a block of channels takes on a two-port machine.

        A tile of ``p`` pixels and ``b`` blocks loads ``p`` words and ``b`` blocks of weights for ``p * b`` steps, at
        two loads a cycle; some eight independent accumulators hide an instruction's latency; accumulators that
        outgrow the registers are stored and loaded again.
        """
        pixels, blocks, instruction = parameters["pixels"], parameters["blocks"], Instruction(parameters["instruction"])
        width = int(kernel.annotation(INT8_CONVOLUTION, WIDTH))
        parts = CHANNELS // self.bytes.lanes
        multiplications, kept = _COSTS.get(instruction, (1, 2))
        steps = pixels * blocks
        registers = steps * parts
        room = self.bytes.registers - kept
        work = steps * parts * multiplications / 2
        loads = (pixels + blocks * parts) / 2
        latency = max(0.0, 8 - registers) * 0.5
        spilled = max(0, registers - room) * 1.5
        pointers = 0.0 if width % pixels == 0 or pixels % width == 0 else 0.1 * pixels
        return (max(work, loads) + latency + spilled + pointers) / steps + 0.02 / steps + 0.001 * blocks

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a convolution; ``pixels`` times ``blocks`` of 16 channels are in registers."""
        sch, block = kernel.sch, kernel.block(INT8_CONVOLUTION)
        instruction = Instruction(parameters["instruction"])
        epilogue = kernel.inline_into_epilogue(INT8_CONVOLUTION)
        o, p, b, outer, row, column, quad, inner = sch.get_loops(block)
        oo, oi = sch.split(o, [None, parameters["blocks"]])
        po, pi = sch.split(p, [None, parameters["pixels"]])
        sch.reorder(oo, po, outer, row, column, quad, pi, oi, inner, b)
        sch.reverse_compute_at(epilogue, po)
        *within, lane = sch.get_loops(epilogue)[2:]
        sch.vectorize(lane)
        for loop in within:
            sch.unroll(loop)
        for loop in (pi, oi, quad):
            sch.unroll(loop)
        if kernel.extent(outer) == 1 and kernel.extent(quad) * kernel.extent(column) <= CHANNELS // _QUAD:
            sch.unroll(column)
        if self.unit.parallel:
            sch.parallel(sch.fuse(oo, po))
        if instruction is Instruction.PORTABLE:
            sch.unroll(inner)
            sch.vectorize(b)
        start = sch.decompose_reduction(block, outer)
        if instruction is not Instruction.PORTABLE:
            sch.vectorize(sch.get_loops(start)[-1])
            _take_dot_product(sch, inner, instruction, parameters["lanes"])
        return sch


def _take_dot_product(sch: s_tir.Schedule, loop: Any, instruction: Instruction, lanes: int) -> None:
    """Replace the loops over a quad and over 16 lanes by dot products.

    Args:
        sch: The schedule.
        loop: The outer of the two.
        instruction: What to replace them with.
        lanes: Accumulators in a register.
    """
    nest = sch.get(loop)
    realised = nest.body.body
    update = realised.block
    within = (nest.loop_var, nest.body.loop_var)
    pairs = list(zip(update.iter_vars, realised.iter_values, strict=True))
    kept = [(axis, value) for axis, value in pairs if not any(value.same_as(var) for var in within)]
    analyzer = sym.Analyzer()
    for axis, _ in pairs:
        if not any(axis.same_as(other) for other, _ in kept):
            analyzer.bind(axis.var, tirx.const(0, "int32"))
    (written,) = update.writes
    data, packed = (region for region in update.reads if not region.source.same_as(written.source))
    sums, activations, weights = (
        [analyzer.simplify(r.min) for r in region.region] for region in (written, data, packed)
    )

    def lanes_of(region: Any, index: list[Any], start: int, count: int) -> tuple[Any, list[Any]]:
        return region.source, [*index[:-1], tirx.Ramp(index[-1] + start, 1, count)]

    if str(data.source.dtype) == "int32":
        word = tirx.BufferLoad(data.source, activations)
    else:
        word = tirx.reinterpret("int32", tirx.BufferLoad(*lanes_of(data, activations, 0, _QUAD)))
    stores = []
    for start in range(0, CHANNELS, lanes):
        place = lanes_of(written, sums, start, lanes)
        bytes_of = tirx.BufferLoad(*lanes_of(packed, weights, start * _QUAD, lanes * _QUAD))
        added = int8_targets.accumulate(instruction, lanes, tirx.BufferLoad(*place), word, bytes_of)
        stores.append(tirx.BufferStore(place[0], added, place[1]))

    def whole(region: Any, index: list[Any], count: int) -> Any:
        ranges = [tvm.ir.Range.from_min_extent(i, 1) for i in index[:-1]]
        return tirx.BufferRegion(region.source, [*ranges, tvm.ir.Range.from_min_extent(index[-1], count)])

    output = whole(written, sums, CHANNELS)
    word_bytes = 1 if str(data.source.dtype) == "int32" else _QUAD
    block = s_tir.SBlock(
        [axis for axis, _ in kept],
        [output, whole(data, activations, word_bytes), whole(packed, weights, CHANNELS * _QUAD)],
        [output],
        f"{INT8_CONVOLUTION}_dot",
        tirx.SeqStmt(stores) if len(stores) > 1 else stores[0],
    )
    always = tirx.const(1, "bool")
    realised = s_tir.SBlockRealize([value for _, value in kept], always, block)
    sch.state.replace(sch.get_sref(loop), realised, {update: block})
