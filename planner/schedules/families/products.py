"""What the two kinds of matrix products share: the tile of the result that stays in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tvm import s_tir

from planner.schedules.blocked import CHANNELS
from planner.schedules.scheduling import Kernel
from planner.schedules.vectors import VectorUnit

ROWS = 4
"""Rows are filled up to a multiple of this, so that tiles of them are whole."""
_ON_STACK = 256
"""Elements of a tile that TVM keeps on the stack."""
_MOST_ROWS = (8, 6, 5, 4, 3, 2, 1)
_WIDTHS = (64, 48, 32, 24, 16)


def filled_rows(rows: int) -> int:
    """Give the rows that are computed: those past the last repeat it, and are not written.

    >>> [filled_rows(n) for n in (1, 3, 6, 64)]
    [1, 3, 8, 64]
    """
    return rows if rows < ROWS else -(-rows // ROWS) * ROWS


def fits(unit: VectorUnit, rows: int, width: int) -> bool:
    """Tell whether a tile, a row of the right operand and a broadcast of the left are in registers together.

    One row needs no register for the right operand: each of its vectors is used once, as it is read.  TVM keeps
    buffers of up to 1 KiB on the stack, from where LLVM moves them to registers.
    """
    vectors = -(-width // unit.lanes)
    return rows * width <= _ON_STACK and rows * vectors + (vectors if rows > 1 else 1) + 1 <= unit.registers


def tiles(unit: VectorUnit, rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """List the tiles, rows by columns, that divide a result and fit the registers; never none."""
    for tall in _MOST_ROWS:
        for width in _WIDTHS:
            least = (tall, width) == (1, CHANNELS)
            if rows % tall == 0 and columns % width == 0 and (least or fits(unit, tall, width)):
                yield tall, width


def best_tile(unit: VectorUnit, rows: int, columns: int) -> tuple[int, int]:
    """Choose the tile with the fewest loads a multiply-add; of several, the one with more accumulators.

    One row is read as fast as memory gives it, and does best on the widest tile.

    A tile of ``r`` rows and ``v`` vectors takes ``r + v`` loads for ``r * v`` multiply-adds (Goto and van de
    Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34, 2008, section 4.2).
    """

    def cost(tile: tuple[int, int]) -> tuple[float, int]:
        tall, vectors = tile[0], -(-tile[1] // unit.lanes)
        return (tall + vectors) / (tall * vectors), -tall * vectors

    return min(tiles(unit, rows, columns), key=cost)


def vectorised(kernel: Kernel, loop: Any, lanes: int) -> None:
    """Vectorise a loop over columns, ``lanes`` of them at a time where they divide it."""
    if kernel.extent(loop) > lanes and kernel.extent(loop) % lanes == 0:
        _, loop = kernel.sch.split(loop, [None, lanes])
    kernel.sch.vectorize(loop)


def lanes_of(width: int) -> int:
    """Give the columns that one vector instruction is written for: 16, or 8 where they do not divide a tile."""
    return CHANNELS if width % CHANNELS == 0 else CHANNELS // 2


def tile_in_registers(
    kernel: Kernel, epilogue: Any, *, outer: Sequence[Any], rows: Any, columns: Any, k: Any, lanes: int
) -> None:
    """Order, vectorise and unroll the loops of a product that have been split.

    What is left to do is to spread loops over threads, and only then to decompose the reduction.

    Args:
        kernel: The kernel.
        epilogue: The block that writes the result.
        outer: Loops around a tile, outermost first; the epilogue is computed in the last of them.
        rows: Loop over the rows of a tile.
        columns: Loop over its columns.
        k: The summation's two loops, the inner one to be unrolled.
        lanes: Columns that one vector holds.
    """
    sch: s_tir.Schedule = kernel.sch
    vector, lane = sch.split(columns, [None, lanes])
    sch.reorder(*outer, *k, rows, vector, lane)
    sch.reverse_compute_at(epilogue, outer[-1])
    vectorised(kernel, sch.get_loops(epilogue)[-1], lanes)
    sch.vectorize(lane)
    for loop in (vector, rows, k[-1]):
        sch.unroll(loop)
