"""What many choices come to at once: for trying them all, and for populations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.moves.tables import Tables
from solvers.spread import Spread

__all__ = ["evaluate", "roots"]

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
        half = len(tables.ends.block) // 2
        for end in range(half):
            block = int(tables.ends.block[end])
            own = tables.ends.cell[tables.ends.cell_start[end] :][places[tables.block_group[block]]]
            far = tables.ends.other_format[tables.ends.other_start[end] :][places[tables.ends.other[end]]]
            found[tables.block_account[block]] += tables.ends.cost[own + far]
    return found


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
