"""What many choices come to at once: for trying them all, and for populations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.moves.tables import Ends, Tables
from solvers.spread import Spread

__all__ = ["evaluate", "roots"]

_TOGETHER = 64
"""So many meetings are looked up at once; more would not stay in the cache."""
_SURE = 1e-9
"""How far, as a share, an estimated root must be from a whole number for its ceiling to be beyond doubt."""


def evaluate(tables: Tables, places: Integers) -> Integers:
    """Compute what choices come to in every row that binds or is the objective, exactly.

    Args:
        tables: The problem.
        places: For each choice, which option each group takes, ``(groups, choices)``.

    Returns:
        What rows come to and, last, how many forbidden meetings there are, ``(rows + 1, choices)``.
    """
    rows = tables.forbidden + 1
    found = np.repeat(tables.constant[:rows, None], places.shape[1], axis=1)
    for row in np.unique(tables.block_account[: tables.account_start[rows]]).tolist():
        found[row] += _sums(tables, places, row, row + 1)[0]
    for row, account, spread in tables.variances:
        found[row] += roots(spread, _sums(tables, places, account, account + 1)[0])
    for peak, (first, beyond) in enumerate(zip(tables.peak_start[:-1], tables.peak_start[1:], strict=True)):
        containing = [row for row, peaks in enumerate(tables.row_peaks) if peak in peaks]
        if containing and beyond > first:
            top = _sums(tables, places, int(first), int(beyond)).max(axis=0)
            for row in containing:
                found[row] += top
    if tables.ends is not None:
        _meet(tables, tables.ends, places, found)
    return found


def _meet(tables: Tables, ends: Ends, places: Integers, found: Integers) -> None:
    """Add what meetings cost to the rows that they cost it in."""
    sources = len(ends.block) // 2
    account = tables.block_account[ends.block[:sources]]
    by_account = np.argsort(account, kind="stable")
    for begin in range(0, sources, _TOGETHER):
        some = by_account[begin : begin + _TOGETHER]
        own = ends.cell[ends.cell_start[some][:, None] + places[tables.block_group[ends.block[some]]]]
        far = ends.other_format[ends.other_start[some][:, None] + places[ends.other[some]]]
        first = np.flatnonzero(np.diff(account[some], prepend=-1))
        found[account[some][first]] += np.add.reduceat(ends.cost[own + far], first, axis=0)


def _sums(tables: Tables, places: Integers, first: int, beyond: int) -> Integers:
    """Return what accounts come to without constants and pairs, ``(accounts, choices)``; each must have a block."""
    blocks = slice(int(tables.account_start[first]), int(tables.account_start[beyond]))
    costs = tables.cost[tables.block_start[:-1][blocks, None] + places[tables.block_group[blocks]]]
    where = tables.account_start[first:beyond] - tables.account_start[first]
    found: Integers = np.add.reduceat(costs, where, axis=0) if len(costs) else np.zeros((beyond - first, 1), np.int64)
    return found


def roots(spread: Spread, variances: npt.NDArray[np.int64]) -> Integers:
    """Return ``spread.value`` of many variances, exactly: by floats where they leave no doubt.

    >>> from fractions import Fraction
    >>> roots(Spread(options=[0], variances=[9], z=Fraction(2)), np.array([0, 9, 10])).tolist()
    [0, 6, 7]
    """
    estimate = float(spread.z) * np.sqrt(variances.astype(np.float64))
    found: Integers = np.ceil(estimate).astype(np.int64)
    doubtful = np.flatnonzero(np.abs(estimate - np.rint(estimate)) <= _SURE * (1 + estimate))
    if len(doubtful):
        unlike, of = np.unique(variances[doubtful], return_inverse=True)
        found[doubtful] = np.array([spread.value(variance) for variance in unlike.tolist()], np.int64)[of]
    return found
