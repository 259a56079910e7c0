"""Choices to start a walk from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.arrays import LARGEST, Integers
from solvers.moves.tables import Tables, summed

__all__ = ["cheapest", "least_pressing"]


def cheapest(tables: Tables) -> Integers:
    """Return each group's option of least cost in the objective row, whatever it takes, ``(groups,)``."""
    goal = tables.problem.objective
    where = slice(*tables.block_start[tables.account_start[[goal, goal + 1]]].tolist())
    cost = np.zeros(tables.problem.options)
    cost[tables.option[where]] = tables.cost[where]
    return _least(tables, cost)


def least_pressing(tables: Tables) -> Integers:
    """Return each group's option that takes least of the room in all rows and peaks together, ``(groups,)``."""
    share = np.zeros(tables.accounts)
    rows = tables.forbidden
    share[:rows] = np.where(tables.capacity[:rows] < LARGEST, 1 / tables.unit[:rows], 0.0)
    for row, account, spread in tables.variances:
        share[account] = share[row] * float(spread.z) / max(1.0, _root(tables, account))
    for row, peaks in enumerate(tables.row_peaks):
        for peak in peaks:
            share[tables.peak_start[peak] : tables.peak_start[peak + 1]] += share[row]
    weight = tables.cost * share[np.repeat(tables.block_account, np.diff(tables.block_start))]
    return _least(tables, summed(tables.option, weight, tables.problem.options))


def _root(tables: Tables, account: int) -> float:
    """Return the root of the greatest variance that a row can have."""
    blocks = slice(*tables.account_start[[account, account + 1]].tolist())
    if blocks.start == blocks.stop:
        return 0.0
    ends = slice(int(tables.block_start[blocks.start]), int(tables.block_start[blocks.stop]))
    starts = tables.block_start[blocks] - ends.start
    return float(np.sqrt(np.maximum.reduceat(tables.cost[ends], starts).astype(np.float64).sum()))


def _least(tables: Tables, key: npt.NDArray[np.float64]) -> Integers:
    """Return the place of the least figure in each group; the first of equals."""
    start = tables.problem.start
    least = np.repeat(np.minimum.reduceat(key, start[:-1]), np.diff(start))
    found = np.flatnonzero(key == least)
    first: Integers = found[np.searchsorted(found, start[:-1])] - start[:-1]
    return first
