"""From prices to a stronger bound and better columns: every block solved with its own row kept, in whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.arrays import Integers
from solvers.dual import labels, sweep
from solvers.dual.columns import Columns
from solvers.dual.whole import Whole, paid
from solvers.problem import LARGEST, Problem

__all__ = ["settle"]


def settle(columns: Columns, prices: Whole, most: tuple[int, ...], out_of_time: Callable[[], bool]) -> int:
    """Solve every block exactly at the prices of what couples them, as far as labels suffice.

    Args:
        columns: The columns so far; better ones are added.
        prices: Prices in whole numbers of 64 bits.
        most: How many labels a block may have in one step, in turn; only blocks that are not proven by fewer labels
            are solved with more.
        out_of_time: Called without arguments between two turns; True ends them.

    Returns:
        A lower bound on the Lagrangian function in which blocks keep their own rows, multiplied as the prices are.
    """
    oracle = columns.oracle
    problem, blocks = oracle.problem, oracle.blocks
    kept = _kept_rows(columns, prices)
    weight = prices.weights(problem.objective)
    weight[kept[kept >= 0]] -= prices.row[kept[kept >= 0]]
    cost = oracle.costs(weight, prices.step)
    unit = np.zeros(len(problem.rows), np.int64)
    unit[kept[kept >= 0]] = 1
    own = oracle.costs(unit, np.zeros(oracle.steps.count, np.int64))
    most_of = problem.most()
    price, limit = np.zeros(blocks.count, np.int64), np.full(blocks.count, 2**60)
    for block in np.flatnonzero(kept >= 0).tolist():
        # A limit that nothing reaches is no limit, and lowered so that its price cannot leave 64 bits.
        price[block] = prices.row[kept[block]]
        limit[block] = min(_room(problem, kept[block]), most_of[kept[block]])
    lagrangian = oracle.value(oracle.costs(weight + _price_of(kept, prices, len(weight)), prices.step))
    bound = lagrangian - price * limit
    value = _known(columns, cost, own, limit)
    open_blocks = bound < value
    for count in most:
        if not bool(open_blocks.any()) or out_of_time():
            break
        known = np.where(open_blocks, value, -sweep.NEVER)
        task = labels.Task(cost=cost, own=own, price=price, limit=limit, known=known, most=count)
        found = labels.settle(oracle, task)
        bound = np.where(open_blocks, np.maximum(bound, found.bound), bound)
        value = np.where(open_blocks, found.value, value)
        if bool((found.chosen >= 0).any()):
            columns.add(np.where(found.chosen >= 0, found.chosen, columns.chosen[-1]))
        open_blocks &= bound < value
    outside = sum(int(prices.row[row]) * _room(problem, row) for row in kept[kept >= 0].tolist())
    return int(sum(np.minimum(bound, value).tolist())) - (paid(oracle, prices) - outside)


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


def _price_of(kept: Integers, prices: Whole, rows: int) -> Integers:
    """Return the prices of the kept rows alone, ``(rows,)``."""
    found = np.zeros(rows, np.int64)
    mine = kept[kept >= 0]
    found[mine] = prices.row[mine]
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
