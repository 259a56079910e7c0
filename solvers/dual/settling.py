"""From prices to a stronger bound and better columns: every block solved with its own row kept, in whole numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from solvers.arrays import Integers
from solvers.dual import labels, sweep
from solvers.dual.columns import Columns
from solvers.dual.whole import Whole, paid
from solvers.problem import LARGEST, Problem

__all__ = ["Settled", "diversify", "settle"]

_PARTS = 40
"""Into so many parts what choices may take of a coupling row is cut, that they differ."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settled:
    """What is known of the blocks at given prices, all numbers multiplied as the prices are.

    Attributes:
        bound: What each block comes to at least while it keeps its own row, ``(blocks,)``.
        own: What the room in each block's own row is worth, ``(blocks,)``.
        paid: What the room in all rows that are not kept is worth, less what constants cost.
    """

    bound: Integers
    own: Integers
    paid: int

    def total(self) -> int:
        """Return what all blocks come to at least."""
        return int(sum(self.bound.tolist())) - self.paid


def settle(columns: Columns, prices: Whole, most: tuple[int, ...], left: Callable[[], float]) -> Iterator[Settled]:
    """Solve every block exactly at the prices of what couples them, as far as labels suffice.

    Args:
        columns: The columns so far; better ones are added.
        prices: Prices in whole numbers of 64 bits.
        most: How many labels a block may have in one step, in turn; only blocks that are not proven by fewer labels
            are solved with more.
        left: Returns how many seconds are left; a turn that would take longer is not begun.

    Yields:
        What is known before the first turn and after every turn.
    """
    task, known, at_prices = _prepared(columns, prices)
    oracle = columns.oracle
    bound = known.bound
    if not len(columns):
        columns.add(oracle.least(at_prices).chosen)
    yield known
    value = _known(columns, task.cost, task.own, task.limit)
    open_blocks = bound < value
    took = 0.0
    for count in most:
        begin = time.perf_counter()
        if not bool(open_blocks.any()) or left() <= 2 * took:
            return
        found = labels.settle(oracle, replace(task, known=np.where(open_blocks, value, -sweep.NEVER), most=count))
        bound = np.where(open_blocks, np.maximum(bound, found.bound), bound)
        value = np.where(open_blocks, found.value, value)
        if bool((found.chosen >= 0).any()):
            columns.add(np.where(found.chosen >= 0, found.chosen, columns.chosen[-1]))
        open_blocks &= bound < value
        took = time.perf_counter() - begin
        yield replace(known, bound=np.minimum(bound, value))


def diversify(columns: Columns, prices: Whole, settled: Settled, window: int, most: int, others: int) -> None:
    """Add choices of every block that are nearly the best, but take unlike much of the row that couples blocks.

    Args:
        columns: The columns so far.
        prices: Prices in whole numbers of 64 bits.
        settled: What is known of the blocks at these prices.
        window: How much more than that a choice may come to, multiplied as the prices are.
        most: How many labels a block may have in one step.
        others: How many choices of each block to add at most.
    """
    oracle = columns.oracle
    coupling = [row for row in oracle.blocks.coupling if prices.row[row] > 0]
    if not coupling:
        return
    row = max(coupling, key=lambda index: float(prices.row[index]) * abs(columns.room.row[index]))
    task, _, _ = _prepared(columns, prices)
    unit = np.zeros(len(prices.row), np.int64)
    unit[row] = 1
    use = oracle.costs(unit, np.zeros(oracle.steps.count, np.int64))
    apart = max(1, window // (_PARTS * int(prices.row[row])))
    known = settled.bound + min(window, sweep.NEVER - int(settled.bound.max()))
    found = labels.settle(oracle, replace(task, known=known, most=most, use=use, unit=apart, others=others))
    for chosen in (found.chosen, *found.others):
        columns.add(np.where(chosen >= 0, chosen, columns.chosen[-1]))


def _prepared(columns: Columns, prices: Whole) -> tuple[labels.Task, Settled, sweep.Costs]:
    """Lay out what labels need at these prices, and what least paths say without them."""
    oracle = columns.oracle
    problem, blocks = oracle.problem, oracle.blocks
    kept = _kept_rows(columns, prices)
    has = np.flatnonzero(kept >= 0)
    weight = prices.weights(problem.objective)
    at_prices = oracle.costs(weight, prices.step)
    weight[kept[has]] -= prices.row[kept[has]]
    unit = np.zeros(len(problem.rows), np.int64)
    unit[kept[has]] = 1
    most_of, outside = problem.most(), 0
    price, limit = np.zeros(blocks.count, np.int64), np.full(blocks.count, 2**60)
    for block in has.tolist():
        # A limit that nothing reaches is no limit, and lowered so that its price cannot leave 64 bits.
        price[block] = prices.row[kept[block]]
        limit[block] = min(_room(problem, kept[block]), most_of[kept[block]])
        outside += int(price[block]) * _room(problem, kept[block])
    task = labels.Task(
        cost=oracle.costs(weight, prices.step),
        own=oracle.costs(unit, np.zeros(oracle.steps.count, np.int64)),
        price=price,
        limit=limit,
        known=np.full(blocks.count, sweep.NEVER),
        most=1,
    )
    own = price * limit
    settled = Settled(bound=oracle.value(at_prices) - own, own=own, paid=paid(oracle, prices) - outside)
    return task, settled, at_prices


def _kept_rows(columns: Columns, prices: Whole) -> Integers:
    """Return the row of each block that is kept rather than priced, ``(blocks,)``: where the price says it matters."""
    found = np.full(columns.oracle.blocks.count, -1)
    worth = np.full(len(found), -1.0)
    for row in np.flatnonzero(columns.block_of_row >= 0).tolist():
        block = columns.block_of_row[row]
        matters = float(prices.row[row]) * abs(columns.room.row[row])
        if matters > worth[block] and not columns.room.contains[row].any():
            worth[block], found[block] = matters, row
    return found


def _room(problem: Problem, row: int) -> int:
    """Return what a bound row leaves for options."""
    capacity, constant = problem.rows[row].capacity, problem.rows[row].constant
    return LARGEST if capacity is None else capacity - constant


def _known(columns: Columns, cost: sweep.Costs, own: sweep.Costs, limit: Integers) -> Integers:
    """Return the least that a column which keeps the block's own row costs, ``(blocks,)``."""
    oracle = columns.oracle
    value = np.full(oracle.blocks.count, sweep.NEVER)
    for chosen in columns.chosen:
        fits = oracle.total(own, chosen) <= limit
        value = np.minimum(value, np.where(fits, oracle.total(cost, chosen), sweep.NEVER))
    return value
