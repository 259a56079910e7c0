"""Convolution of bytes on the blocked layout: what it computes and how it is scheduled.

The loops are those of :mod:`convolution`; the innermost step takes four input channels at once, by whatever
dot product of bytes the target has (:mod:`targets`).  Dense layers are convolutions whose window is the
whole map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import s_tir, te, tirx

from planner.schedules import codes, storage
from planner.schedules.blocked import CHANNELS, FeatureMap, blocks_of, pad_first_axis
from planner.schedules.int8 import products, targets
from planner.schedules.int8.targets import ByteUnit, Instruction
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.vectors import VectorUnit
from planner.schedules.window import Window

INT8_CONVOLUTION = "int8_conv2d"
RUN = "pixels_equally_far_apart"
FITS = "pairs_fit"
PAIRED = "pairs_of_16_bits"
SIGNED = "signed_bytes"

_QUAD = targets.CHANNELS
_ON_STACK = 16
"""Accumulators of 16 int32 that TVM keeps on the stack (1 KiB), from where LLVM moves them to registers."""

_CANDIDATES = 8
_MANY = 2
"""Tiles of pixels from which on weights are better unpacked before they are multiplied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one step, of a word with the weights in a register's lanes, takes in vector instructions.

    Attributes:
        multiplications: Those that only two ports can do.
        others: All else.
        per_word: What prepares a word, for all weights that it meets.
        per_weights: What prepares a register of weights, for all words that it meets.
        registers: Registers besides the accumulators.
        latency: Cycles from one accumulator to the next.
    """

    multiplications: int = 1
    others: int = 0
    per_word: int = 0
    per_weights: int = 0
    registers: int = 2
    latency: int = 5


_STEPS = {
    Instruction.PORTABLE: _Step(multiplications=4, others=12),
    Instruction.PMADDWD: _Step(multiplications=2, others=2, per_weights=2, registers=4, latency=1),
    Instruction.PMADDUBSW: _Step(multiplications=2, others=1, registers=4, latency=1),
    Instruction.VPDPBUSD: _Step(),
    Instruction.SDOT: _Step(latency=4),
}


def pack(weight: NDArray[np.int8], *, paired: bool = False, words: bool = False) -> NDArray[np.int8]:
    """Pack ``weight[out][in][kh][kw]`` in the order in which the kernel streams through it.

    Args:
        weight: The weights.
        paired: Whether the kernel multiplies 16-bit pairs instead of quads of bytes.
        words: Whether its input is of words of four channels, whose pairs are the first and third, and the others.

    Returns:
        ``[out / 16][in / 16][kh][kw][quads][16 * 4]``: for each quad of input channels the four weights of each of
        16 output channels side by side, or two for each and then the other two; zeros where channels were padded.
        A single block of input channels has as many quads as it needs.
    """
    outputs, inputs, height, width = weight.shape
    groups = blocks_of(inputs)
    quads = CHANNELS // _QUAD if groups > 1 else -(-inputs // _QUAD)
    padded = pad_first_axis(weight, blocks_of(outputs) * CHANNELS)
    padded = pad_first_axis(padded.transpose(1, 0, 2, 3), groups * quads * _QUAD).transpose(1, 0, 2, 3)
    split = padded.reshape(-1, CHANNELS, groups, quads, _QUAD, height, width)
    ordered = split.transpose(0, 2, 5, 6, 3, 1, 4)
    if paired:
        pairs = ordered.reshape(*ordered.shape[:6], 2, 2)
        ordered = np.moveaxis(pairs, -1 if words else -2, 5)
    return np.ascontiguousarray(ordered.reshape(*ordered.shape[:5], CHANNELS * _QUAD))


def lay_out(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """Lay ``weight[out][in][kh][kw]`` out as :func:`pack` does, with every channel of its own in front of the lanes.

    Returns:
        ``[out / 16][in / 16][kh][kw][4 * quads][16]``.
    """
    outputs, inputs, height, width = weight.shape
    groups, deep = blocks_of(inputs), _QUAD * quads_of(inputs)
    padded = pad_first_axis(weight, blocks_of(outputs) * CHANNELS)
    padded = pad_first_axis(padded.transpose(1, 0, 2, 3), groups * deep).transpose(1, 0, 2, 3)
    split = padded.reshape(-1, CHANNELS, groups, deep, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def quads_of(inputs: int) -> int:
    """Give the quads in each block of so many input channels."""
    return CHANNELS // _QUAD if inputs > CHANNELS else -(-inputs // _QUAD)


def convolution(
    data: te.Tensor,
    *packed: te.Tensor,
    source: FeatureMap,
    output: FeatureMap,
    window: Window,
    fits: bool,
    paired: bool,
    dtype: str,
    form: codes.Form | None = None,
) -> te.Tensor:
    """Describe a convolution of bytes.

    Args:
        data: The (already padded) input: ``(blocks, pixels, 16)`` or ``(blocks, height, width, 16)`` bytes (where
            they are paired, widened to int16), or, for up to four channels, words of four bytes with 1 in place
            of 16.
        packed: Weights from :func:`pack`; or what :meth:`storage.Codes.packed` makes of them by :func:`lay_out`.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window.
        fits: What :func:`targets.pairs_fit` says of the weights and the input.
        paired: Whether weights are packed as pairs.
        dtype: Of the input's bytes, ``uint8`` or ``int8``.
        form: How to read codes, where weights are codes.

    Returns:
        ``(output.blocks, output.pixels, 16)`` int32.
    """
    blocks, groups, kernel_h, kernel_w, *_ = (int(n) for n in packed[0].shape)
    quads = quads_of(source.channels)
    outer = te.reduce_axis((0, groups), "channel_block")
    row = te.reduce_axis((0, kernel_h), "kernel_row")
    column = te.reduce_axis((0, kernel_w), "kernel_column")
    quad = te.reduce_axis((0, quads), "quad")
    inner = te.reduce_axis((0, _QUAD), "channel")
    (down, across), (dilate_h, dilate_w) = window.strides, window.dilation

    weights = packed[0]
    if form is not None:
        shape = (blocks, groups, kernel_h, kernel_w, _QUAD * quads, CHANNELS)
        place = codes.figures_of_channels(form, packed, CHANNELS)
        decoder = codes.Decoder.of(form, packed, shape, place)
        weights = storage.unpacked_words(decoder, (*shape[:4], quads, CHANNELS), paired=paired)

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
        half, place = (inner % 2, inner // 2) if words else (inner // 2, inner % 2)
        if form is None:
            lane_of_weight = half * 2 * CHANNELS + b * 2 + place if paired else b * _QUAD + inner
            weight = weights[o, outer, row, column, quad, lane_of_weight]
        else:
            element = weights[o, outer, row, column, quad, half * CHANNELS + b if paired else b]
            shift = tirx.Cast(str(weights.dtype), (place if paired else inner) * 8)
            weight = tirx.Cast("int8", element >> shift)
        product = tirx.Cast("int32", byte) * tirx.Cast("int32", weight)
        return te.sum(product, axis=[outer, row, column, quad, inner])

    run = output.pixels if window.pointwise else output.width
    return te.compute(
        output.blocked_shape,
        value,
        name=INT8_CONVOLUTION,
        attrs={RUN: run, FITS: int(fits), PAIRED: int(paired), SIGNED: int(dtype == "int8")},
    )


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
        return self._ranked(kernel)[0]

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List the tiles of least cost."""
        return self._ranked(kernel)[:_CANDIDATES]

    def _instruction(self, kernel: Kernel) -> Instruction:
        """Choose the instruction that is exact for a kernel's numbers."""
        keys = (FITS, PAIRED, SIGNED)
        fits, paired, signed = (bool(int(kernel.annotation(INT8_CONVOLUTION, key))) for key in keys)
        return self.bytes.instruction(fits=fits, paired=paired, signed=signed)

    def _ranked(self, kernel: Kernel) -> list[Parameters]:
        """Rank all tiles whose accumulators stay on the stack by their cost."""
        blocks, pixels = (kernel.extent(loop) for loop in kernel.loops(INT8_CONVOLUTION)[:2])
        run = int(kernel.annotation(INT8_CONVOLUTION, RUN))
        instruction = self._instruction(kernel)
        coded = kernel.has(storage.UNPACKED)
        # Unpacked weights of a few blocks take no more than an eighth of what all would as float32.
        most = max(1, blocks // 2) if coded else blocks
        tiles = [
            (tile, block)
            for tile in range(1, min(pixels, _ON_STACK) + 1)
            for block in range(1, min(most, _ON_STACK // tile) + 1)
            if blocks % block == 0
        ]

        def cost(tile: int, block: int) -> float:
            """Add up the cost of all tiles of pixels, of which the last may be smaller."""
            whole, rest = divmod(pixels, tile)
            total = whole * tile * self._cost(instruction, tile, block, run)
            return total + (rest * self._cost(instruction, rest, block, run) + 0.5 if rest else 0.0)

        tiles.sort(key=lambda pair: cost(*pair))
        quads = kernel.extent(kernel.loops(INT8_CONVOLUTION)[-2])
        # Sums of pairs in a longer body make the compiler add up first what it should keep in registers.
        unrolled = 1 if instruction is Instruction.PMADDWD else quads
        fixed = {"quads": unrolled, "instruction": int(instruction), "lanes": self.bytes.lanes}
        return [
            {"pixels": tile, "blocks": block, **fixed}
            | ({storage.UNPACK_ONCE: int(pixels > _MANY * tile)} if coded else {})
            for tile, block in tiles
        ]

    def _cost(self, instruction: Instruction, pixels: int, blocks: int, run: int) -> float:
        """Estimate the cycles that a step of one pixel and one block of 16 channels takes.

        The machine has four vector pipes, two of which multiply, and two loads a cycle.  A tile of ``p`` pixels and
        ``b`` blocks loads ``p`` words and ``b`` blocks of weights for ``p * b`` steps.  Accumulators that outgrow the
        registers are loaded and stored by each step; few of them wait for one another.
        """
        step, parts = _STEPS[instruction], CHANNELS // self.bytes.lanes
        accumulators = pixels * blocks * parts
        every = accumulators * (step.multiplications + step.others)
        every += pixels * step.per_word + blocks * parts * step.per_weights
        cycles = max(
            accumulators * step.multiplications / 2, every / 4, (pixels + blocks * parts) / 2, float(step.latency)
        )
        spilled = 1.25 * max(0, accumulators + step.registers - self.bytes.registers)
        pointers = 0.0 if run % pixels == 0 or pixels % run == 0 else 0.1 * pixels
        return (cycles + spilled + pointers + 0.05) / (pixels * blocks) + 0.001 * blocks

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a convolution; ``pixels`` times ``blocks`` of 16 channels are in registers.

        Raises:
            ValueError: The instruction that was written down is not exact for these numbers.
        """
        instruction = Instruction(parameters["instruction"])
        if instruction not in {Instruction.PORTABLE, self._instruction(kernel)}:
            raise ValueError(f"{self.text(parameters)!r} names an instruction that is not exact for this kernel")
        tail = kernel.extent(kernel.loops(INT8_CONVOLUTION)[1]) % parameters["pixels"]
        if tail:
            kernel = kernel.narrowed()
        sch, block = kernel.sch, kernel.block(INT8_CONVOLUTION)
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
        for loop in (pi, oi):
            sch.unroll(loop)
        if kernel.extent(outer) == 1 and kernel.extent(quad) * kernel.extent(column) <= CHANNELS // _QUAD:
            sch.unroll(column)
        _, unrolled = sch.split(quad, [None, parameters["quads"]])
        sch.unroll(unrolled)
        storage.settle(kernel, parameters, oo, unrolled)
        if tail:
            sch.annotate(po, "pragma_loop_partition_hint", 1)  # the last tile gets code of its own, without conditions
        if self.unit.parallel:
            sch.parallel(oo if tail or storage.UNPACK_ONCE in parameters else sch.fuse(oo, po))
        if instruction is Instruction.PORTABLE:
            sch.unroll(inner)
            sch.vectorize(b)
        start = sch.decompose_reduction(block, outer)
        if instruction is not Instruction.PORTABLE:
            sch.vectorize(sch.get_loops(start)[-1])
            products.take_products(sch, inner, instruction, parameters["lanes"])
        return sch
