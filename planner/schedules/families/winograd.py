"""Winograd's algorithm F(2x2, 3x3) on the blocked layout: what it computes, its schedule, what is lowered to it.

The method is that of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): a tile of 2x2
outputs needs 16 multiplications a channel where the direct convolution needs 36.  Tiles of 4x4 inputs are transformed,
multiplied position by position with transformed weights (16 matrix products), and transformed back.  All of it is one
kernel that works through the map a few rows of tiles at a time, so that what lies between the steps stays in the
cache; the epilogue is applied on the way out.  The transforms add and halve only, which keeps the error near that of
the direct sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, s_tir, te, tirx

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS, FeatureMap, blocks_of, pad_first_axis
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.constants import Weight
    from planner.schedules.rewriter import Rewriter

PRODUCT = "winograd_product"
_INPUT_ROWS, _INPUT = "winograd_input_rows", "winograd_input"
_OUTPUT_ROWS, _OUTPUT = "winograd_output_rows", "winograd_output"
_GATHERED = "winograd_gathered"
DOWN, ACROSS, WIDTH = "tiles_down", "tiles_across", "output_width"

_STEP = 2
_POINTS = 4
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
"""B transposed, in the paper's terms."""
FILTER = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
"""G."""
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
"""A transposed."""
_FEW_TILES, _MANY_TILES = 7, 49
_SECOND_CACHE = 1 << 20
"""Bytes of weights that stay in the second cache from one chunk of tiles to the next."""
_LEAST_TILES = 9
"""Tiles of a map below which its weights are read more often than they are used."""
_CANDIDATES = 12


def pack(weight: NDArray[np.generic]) -> NDArray[np.float32]:
    """Transform ``weight[out][in][3][3]`` and pack it in the order in which the kernel streams through it.

    Returns:
        ``[out / 16][16 positions][in / 16][16 in][16 out]`` float32: 16/9 of the bytes.
    """
    filters = np.asarray(FILTER)
    padded = pad_first_axis(weight, blocks_of(weight.shape[0]) * CHANNELS).astype(np.float64)
    transformed = np.einsum("ei,ocij,fj->oefc", filters, padded, filters)
    split = transformed.reshape(-1, CHANNELS, _POINTS**2, weight.shape[1])
    packed = split.transpose(0, 2, 3, 1).reshape(split.shape[0], _POINTS**2, -1, CHANNELS, CHANNELS)
    return np.ascontiguousarray(packed, np.float32)


def _combined(rows: Sequence[Sequence[int]], at: Callable[[int], Any], index: Any) -> Any:
    """Give row ``index`` of a matrix of -1, 0 and 1 times the vector ``at``; unrolled, one sum is left."""

    def sum_of(row: Sequence[int]) -> Any:
        first, *others = [place for place, factor in enumerate(row) if factor > 0]
        total = at(first)
        for place in others:
            total = total + at(place)
        for place, factor in enumerate(row):
            if factor < 0:
                total = total - at(place)
        return total

    chosen = sum_of(rows[-1])
    for number in range(len(rows) - 2, -1, -1):
        chosen = tirx.Select(index == number, sum_of(rows[number]), chosen)
    return chosen


def convolution(
    data: te.Tensor, packed: te.Tensor, *, source: FeatureMap, output: FeatureMap, window: Window
) -> te.Tensor:
    """Describe a 3x3 convolution of stride 1 with blocked output.

    Args:
        data: The blocked input, padded to whole tiles.
        packed: Weights from :func:`pack`.
        source: Size of the input before padding.
        output: Size of the output.
        window: The sliding window, its padding that of ``data``.

    Returns:
        ``(output.blocks, output.pixels, 16)`` float32.
    """
    down, across = -(-output.height // _STEP), -(-output.width // _STEP)
    inputs, outputs, tiles = int(packed.shape[2]), output.blocks, down * across

    def read(c: Any, t: Any, i: int, j: Any, lane: Any) -> Any:
        return window.read(data, source, (c, 0, t // across * _STEP + i, t % across * _STEP + j, lane))

    rows = te.compute(
        (inputs, tiles, _POINTS, _POINTS, CHANNELS),
        lambda c, t, i, j, b: _combined(INPUT, lambda r: read(c, t, r, j, b), i),
        name=_INPUT_ROWS,
    )
    transformed = te.compute(
        (_POINTS, _POINTS, inputs, tiles, CHANNELS),
        lambda i, j, c, t, b: _combined(INPUT, lambda s: rows[c, t, i, s, b], j),
        name=_INPUT,
    )
    outer, inner = te.reduce_axis((0, inputs), "channel_group"), te.reduce_axis((0, CHANNELS), "channel")

    def product(e: Any, o: Any, t: Any, b: Any) -> Any:
        value = transformed[e // _POINTS, e % _POINTS, outer, t, inner]
        return te.sum(value * packed[o, e, outer, inner, b], axis=[outer, inner])

    notes = {DOWN: down, ACROSS: across, WIDTH: output.width}
    products = te.compute((_POINTS**2, outputs, tiles, CHANNELS), product, name=PRODUCT, attrs=notes)
    back = te.compute(
        (outputs, tiles, _STEP, _POINTS, CHANNELS),
        lambda o, t, y, j, b: _combined(OUTPUT, lambda r: products[r * _POINTS + j, o, t, b], y),
        name=_OUTPUT_ROWS,
    )
    result = te.compute(
        (outputs, tiles, _STEP, _STEP, CHANNELS),
        lambda o, t, y, x, b: _combined(OUTPUT, lambda s: back[o, t, y, s, b], x),
        name=_OUTPUT,
    )

    def gathered(o: Any, p: Any, b: Any) -> Any:
        y, x = p // output.width, p % output.width
        return result[o, y // _STEP * across + x // _STEP, y % _STEP, x % _STEP, b]

    return te.compute(output.blocked_shape, gathered, name=_GATHERED)


class WinogradRule(FamilyRule):
    """Schedule :func:`convolution` with whatever epilogue was fused to it."""

    FAMILY = "winograd"
    ANCHOR = PRODUCT

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many rows of tiles are a chunk, and the tile of each matrix product."""
        down, across = self._tiles(kernel)
        few = self._weight_bytes(kernel) <= _SECOND_CACHE
        wanted = _FEW_TILES if few else _MANY_TILES
        most = -(-down // self.unit.threads)
        divisors = [rows for rows in range(1, down + 1) if down % rows == 0 and rows <= most]
        rows = next((r for r in divisors if r * across >= wanted), divisors[-1])
        return self._with(kernel, rows)

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List chunks of every size, with the tile that fits each."""
        down, _ = self._tiles(kernel)
        found = [self.default(kernel), *(self._with(kernel, r) for r in range(1, down + 1) if down % r == 0)]
        return [p for index, p in enumerate(found) if p not in found[:index]][:_CANDIDATES]

    def _tiles(self, kernel: Kernel) -> tuple[int, int]:
        return int(kernel.annotation(PRODUCT, DOWN)), int(kernel.annotation(PRODUCT, ACROSS))

    @staticmethod
    def _weight_bytes(kernel: Kernel) -> int:
        positions, blocks, _, _, groups, channels = (kernel.extent(loop) for loop in kernel.loops(PRODUCT))
        return positions * blocks * CHANNELS * groups * channels * np.dtype(np.float32).itemsize

    def _with(self, kernel: Kernel, rows: int) -> Parameters:
        """Complete a size of chunk."""
        blocks = kernel.extent(kernel.loops(PRODUCT)[1])
        tiles = rows * self._tiles(kernel)[1]
        tile = vectors.tile_of(self.unit, blocks=blocks, pixels=tiles, run=tiles, window=1)
        operations = 2 * math.prod(kernel.extent(loop) for loop in kernel.loops(PRODUCT))
        return {
            "rows": rows,
            "tiles": tile.pixels,
            "blocks": tile.blocks,
            "unroll": vectors.unrolling(self.unit),
            "threads": int(self.unit.worth_waking(operations)),
        }

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a convolution.

        ``rows`` rows of tiles are a chunk, whose transformed input is kept; ``tiles`` times ``blocks`` of 16
        channels of a matrix product are in registers; ``unroll`` input channels are one step of its innermost loop.
        ``threads`` says whether chunks are spread over threads.
        """
        rows, blocks = parameters["rows"], parameters["blocks"]
        tail = rows * self._tiles(kernel)[1] % parameters["tiles"]
        kernel = kernel.narrowed()
        sch = kernel.sch
        epilogue = self._epilogue(kernel)
        o, p, lane = sch.get_loops(epilogue)
        chunk, inside = sch.split(p, [None, rows * _STEP * int(kernel.annotation(PRODUCT, WIDTH))])
        oo, oi = sch.split(o, [None, blocks])
        sch.reorder(chunk, oo, oi, inside, lane)
        if parameters["threads"]:
            sch.parallel(chunk)
        sch.vectorize(lane)
        self._transform(kernel, (_OUTPUT, _OUTPUT_ROWS), oo, order=(0, 1, 2, 3, 4))
        self._multiply(kernel, oo, parameters, tail)
        self._transform(kernel, (_INPUT, _INPUT_ROWS), chunk, order=(2, 3, 0, 1, 4))
        sch.decompose_reduction(kernel.block(PRODUCT), sch.get_loops(kernel.block(PRODUCT))[4])
        return sch

    @staticmethod
    def _epilogue(kernel: Kernel) -> Any:
        """Inline all that follows the transforms into the block that writes the kernel's output; give that."""
        names = kernel.names()
        after = names[names.index(_GATHERED) :]
        for name in after[:-1]:
            kernel.sch.compute_inline(kernel.block(name))
        return kernel.block(after[-1])

    @staticmethod
    def _transform(kernel: Kernel, names: tuple[str, str], loop: Any, order: tuple[int, ...]) -> None:
        """Compute a transform under a loop: tile by tile, both of its steps unrolled, the first in registers."""
        sch, last, first = kernel.sch, kernel.block(names[0]), kernel.block(names[1])
        sch.compute_at(last, loop, preserve_unit_loops=True)
        loops = sch.get_loops(last)[-5:]
        _, tile, i, j, lane = (loops[place] for place in order)
        sch.reorder(*(loops[place] for place in order))
        sch.compute_at(first, tile, preserve_unit_loops=True)
        sch.set_scope(first, 0, "local")
        for row, column, vector in ((i, j, lane), tuple(sch.get_loops(first)[-3:])):
            sch.unroll(row)
            sch.unroll(column)
            sch.vectorize(vector)

    @staticmethod
    def _multiply(kernel: Kernel, loop: Any, parameters: Parameters, tail: int) -> None:
        """Compute the 16 matrix products of a chunk under a loop."""
        sch, block = kernel.sch, kernel.block(PRODUCT)
        sch.compute_at(block, loop, preserve_unit_loops=True)
        position, o, t, lane, outer, inner = sch.get_loops(block)[-6:]
        to, ti = sch.split(t, [None, parameters["tiles"]])
        rolled, unrolled = sch.split(inner, [None, parameters["unroll"]])
        sch.reorder(position, to, outer, rolled, unrolled, ti, o, lane)
        if tail:
            sch.annotate(to, "pragma_loop_partition_hint", 1)  # the last tile gets code of its own, without conditions
        written = sch.cache_write(block, 0, "local")
        sch.reverse_compute_at(written, to, preserve_unit_loops=True)
        *within, vector = sch.get_loops(written)[-3:]
        for unrolling in (*within, ti, o, unrolled):
            sch.unroll(unrolling)
        sch.vectorize(vector)
        sch.vectorize(lane)


def accepts(weight: Weight, size: FeatureMap, output: FeatureMap, window: Window) -> bool:
    """Tell whether a convolution can be computed so, and is faster so.

    The transforms pay from 16 channels on; on small maps the larger weights cost more than the multiplications saved.
    """
    plain = weight.scales is None and weight.codes is None and weight.values.dtype == np.float32
    shape = window.kernel == (3, 3) and window.strides == (1, 1) and window.dilation == (1, 1)
    whole = size.images == 1 and size.channels % CHANNELS == 0 and output.channels >= CHANNELS
    tiles = -(-output.height // _STEP) * -(-output.width // _STEP)
    return plain and shape and whole and tiles >= _LEAST_TILES


def lower_conv2d(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower an ungrouped 3x3 convolution of stride 1 with constant float32 weights, where that is wanted."""
    source, attrs = call.args[0], call.attrs
    weight = rewriter.constants.of(call.args[1])
    shape = shape_of(source)
    if weight is None or attrs.data_layout != "NCHW" or len(shape) != 4 or int(attrs.groups) != 1:
        return False
    size, output = FeatureMap.of(shape), FeatureMap.of(shape_of(var))
    window = Window.of(attrs, weight.values.shape[2:])
    if not rewriter.winograd() or not accepts(weight, size, output, window):
        return False
    top, left, bottom, right = window.padding
    window = replace(window, padding=(top, left, bottom + output.height % _STEP, right + output.width % _STEP))
    data = rewriter.padded_input(source, rewriter.as_blocked(source), size, window)
    result = rewriter.call(
        convolution, data, relax.const(pack(weight.values)), hint="winograd", pattern=FUSABLE,
        source=size, output=output, window=window,
    )  # fmt: skip
    rewriter.put(var, result, output)
    return True


LOWERINGS = {"relax.nn.conv2d": lower_conv2d}
