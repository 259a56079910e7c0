"""What the vector unit of a target can hold: the figures from which tiles are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.schedules.blocked import CHANNELS

_ON_STACK = 16
"""Accumulators of 16 float32 that TVM keeps on the stack (1 KiB), from where LLVM moves them to registers."""


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

    def most_pixels(self) -> int:
        """Give the widest pixel tile whose accumulators leave room for the weights and a broadcast."""
        spare = 3 if self.registers_per_block == 1 else self.registers_per_block + 2
        return max(1, min(16, (self.registers - spare) // self.registers_per_block))


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


def tile_of(unit: VectorUnit, *, blocks: int, height: int, width: int) -> Tile:
    """Choose the tile of output that a convolution accumulates at once.

    A tile that divides a row, or is made of whole rows, addresses its pixels with constants from one pointer;
    others need a pointer a pixel.  Some ten independent accumulators hide the latency of two fused multiply-adds
    a cycle; where a row is too short for that, a second block of channels shares the pixels.

    Args:
        unit: The vector unit.
        blocks: 16-channel blocks of the output.
        height: Rows of the output.
        width: Columns of the output.

    Returns:
        A tile whose pixels divide the map and whose blocks divide ``blocks``.
    """
    pixels = height * width
    best, best_rate = Tile(pixels=1, blocks=1), 0.0
    for tile in (Tile(pixels=p, blocks=b) for p in range(1, pixels + 1) for b in (1, 2)):
        if pixels % tile.pixels or blocks % tile.blocks:
            continue
        most = unit.most_pixels() // tile.blocks
        if tile.pixels > most + 1 or tile.pixels * tile.blocks > _ON_STACK:
            continue
        chains = tile.pixels * tile.blocks * unit.registers_per_block
        rate = min(1.0, chains / 10) * (1 + 0.005 * tile.pixels) * (1.0 if tile.blocks == 1 else 0.99)
        if width % tile.pixels and tile.pixels % width:
            rate *= 0.97 if tile.pixels <= 6 else 0.75
        if tile.pixels > most:  # one register too many spills, which beats a tile of a single pixel
            rate *= 0.7
        if rate > best_rate:
            best, best_rate = tile, rate
    return best
