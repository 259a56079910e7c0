"""What the vector unit of a target can hold: the figures from which tiles are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.schedules.blocked import CHANNELS

_ON_STACK = 16
"""Accumulators of 16 float32 that TVM keeps on the stack (1 KiB), from where LLVM moves them to registers."""


_WORTH_WAKING = 1_000_000
"""Operations that one thread computes in the microseconds that waking another takes, some times over."""
_WORTH_A_THREAD = 65536
"""Elements below which waking another thread costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUnit:
    """Registers of a target and what one block of 16 channels takes of them.

    Attributes:
        registers: Architectural vector registers.
        lanes: float32 lanes of one register.
        threads: Threads a kernel may spread over.
    """

    registers: int
    lanes: int
    threads: int

    @property
    def registers_per_block(self) -> int:
        """Registers that hold 16 float32."""
        return -(-CHANNELS // self.lanes)

    @property
    def parallel(self) -> bool:
        """Whether loops are spread over threads at all."""
        return self.threads > 1

    def worth_threads(self, elements: int) -> bool:
        """Tell whether a loop that reads and writes so many elements gains by being spread over threads.

        Waking another thread takes some microseconds, in which one thread copies as many elements.
        """
        return self.parallel and elements >= _WORTH_A_THREAD

    def worth_waking(self, operations: int) -> bool:
        """Tell whether so many multiplications and additions gain by being spread over threads."""
        return self.parallel and operations >= _WORTH_WAKING

    def holds(self, pixels: int, blocks: int) -> bool:
        """Tell whether a tile of accumulators fits beside the weights that it is multiplied with and a broadcast."""
        accumulators = pixels * blocks
        needed = (accumulators + blocks) * self.registers_per_block + 1
        return needed <= self.registers and accumulators <= _ON_STACK


def of_target(target: Any) -> VectorUnit:
    """Read the vector unit off a ``tvm.target.Target``.

    LLVM's own table of CPU features is asked, so that a cross-compiled target is treated as itself and not as
    the machine that compiles.
    """
    from tvm.target import codegen

    threads = int(target.attrs.get("num-cores", 1))

    def has(feature: str) -> bool:
        with target:
            return bool(codegen.llvm_cpu_has_features(feature, target))

    if has("avx512f"):
        return VectorUnit(registers=32, lanes=16, threads=threads)
    if has("avx"):
        return VectorUnit(registers=16, lanes=8, threads=threads)
    if has("neon"):
        return VectorUnit(registers=32, lanes=4, threads=threads)
    return VectorUnit(registers=16, lanes=4, threads=threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What a convolution accumulates in registers at once: some pixels of some 16-channel blocks."""

    pixels: int
    blocks: int


_LATENCY = 4.5
"""Cycles a fused multiply-add takes: 4 on most processors, 5 on some."""
_PORTS = 2
"""Multiply-adds, and loads, that start in one cycle."""
_LOOP = 0.25
"""Cycles that a step of the reduction takes beside its arithmetic."""
_LINE = 0.05
"""Cycles that a step waits for a cache line that is not in the first cache, on average."""


_APART = 6
"""Pixels that need no common pointer: there are registers for as many."""
_SPILLED = 1.5
"""How much longer a step takes that reloads its pointers."""
_FEW = 16
"""Vector registers, where that is few: x86 before AVX-512."""
_CROWDED = 2.5
"""How much longer a tail takes where registers are few: they are still taken by what the whole tiles left."""
_UNEVEN = 1.2
"""How much longer a kernel takes that is spread over threads and ends in a tail of pixels."""
_STREAMS = 4
"""Blocks of weights that are read side by side, each from a place of its own."""


def unrolling(unit: VectorUnit) -> int:
    """Give the steps of a reduction to unroll: where registers are few, a longer body makes the compiler spill."""
    return 4 if unit.registers > _FEW else 2


def tiles(unit: VectorUnit, *, blocks: int, pixels: int) -> list[Tile]:
    """List the tiles that fit the registers: any number of pixels, blocks that divide those of the output."""
    streams = _STREAMS if pixels >= _STREAMS else 2 * _STREAMS
    return [
        Tile(pixels=p, blocks=b)
        for b in range(1, min(blocks, streams) + 1)
        for p in range(1, min(pixels, _ON_STACK) + 1)
        if blocks % b == 0 and (unit.holds(p, b) or p == b == 1)
    ]


def tile_of(unit: VectorUnit, *, blocks: int, pixels: int, run: int, window: int) -> Tile:
    """Choose the tile of output that a convolution accumulates at once.

    A step of the reduction loads a broadcast for each pixel and a vector of weights for each block, and multiplies
    all with all (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", TOMS 2008): the tile
    that is nearest to a square loads least.  A tail of pixels is computed by a narrower tile of its own.

    Args:
        unit: The vector unit.
        blocks: 16-channel blocks of the output.
        pixels: Pixels of the output.
        run: Pixels whose inputs are equally far apart: those of a row, or all of them.
        window: Pixels of the kernel, 9 for 3x3: a window of one pixel streams through its input, larger ones
            through their weights.

    Returns:
        The tile of the least time; its blocks divide ``blocks``.
    """
    width = unit.registers_per_block

    def step(tile: Tile) -> float:
        arithmetic = tile.pixels * tile.blocks * width / _PORTS
        loads = (tile.pixels + tile.blocks * width) / _PORTS
        lines = tile.pixels if window == 1 else tile.blocks
        together = run % tile.pixels == 0 or tile.pixels % run == 0 or tile.pixels <= _APART
        return (max(arithmetic, loads, _LATENCY) + _LOOP + _LINE * lines) * (1.0 if together else _SPILLED)

    def time(tile: Tile) -> float:
        whole, tail = divmod(pixels, tile.pixels)
        rest = step(Tile(pixels=tail, blocks=tile.blocks)) if tail else 0.0
        crowded = _CROWDED if unit.registers <= _FEW else 1.0
        uneven = _UNEVEN if unit.parallel and tail else 1.0
        return (whole * step(tile) + rest * crowded) / tile.blocks * uneven

    return min(tiles(unit, blocks=blocks, pixels=pixels), key=time)


def parts(unit: VectorUnit, blocks: int, tiles: int) -> int:
    """Choose into how many parts rows of tiles are cut so that threads have equally much to do.

    Args:
        unit: The vector unit.
        blocks: Rows of tiles that there are, each for other output channels.
        tiles: Tiles in a row, all of them whole.

    Returns:
        The fewest parts, at most ``tiles``, with which the busiest thread does least.

    >>> parts(VectorUnit(registers=32, lanes=16, threads=2), 3, 100)
    2
    """

    def busiest(count: int) -> int:
        return -(-blocks * count // unit.threads) * -(-tiles // count)

    return min(range(1, min(tiles, 4 * unit.threads) + 1), key=busiest)


def pixels_of_row(unit: VectorUnit, width: int) -> int:
    """Choose how many neighbouring pixels of one block a sliding window without products is computed at once.

    Their results take half of the registers; weights and what is read have the rest.

    Args:
        unit: The vector unit.
        width: Pixels of a row.

    Returns:
        Pixels that divide a row, unless only small numbers do: then a tail is left.
    """
    most = max(2, min(8, unit.registers // unit.registers_per_block // 2))
    if width <= most:
        return width
    return next((n for n in range(most, most // 2 - 1, -1) if width % n == 0), most)


def rows_of_pixels(unit: VectorUnit, width: int) -> list[int]:
    """List how many neighbouring pixels a sliding window without products may be computed at, for a search.

    Args:
        unit: The vector unit.
        width: Pixels of a row.

    Returns:
        Numbers of pixels whose results fit the registers, and no more than a row has.
    """
    most = min(width, unit.registers // unit.registers_per_block, _ON_STACK)
    return [n for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 14) if n <= most]
