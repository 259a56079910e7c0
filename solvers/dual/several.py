"""One column for every block where several rows couple the blocks: by prices, then by repair and improvement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["pick_within"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_MOST_MOVES = 5
"""Columns are changed at most so many times a block."""
_NOTHING = 1e-12


def pick_within(cost: Floats, use: Floats, capacity: Floats, price: Floats) -> Places | None:
    """Pick one column for each block so that several uses stay within their capacities, cheaply.

    The columns that are least at the prices are repaired by what lowers the excess most for what it costs, as in
    Y. Toyoda, A simplified algorithm for obtaining approximate solutions to zero-one programming problems (1975), and
    then improved as long as one block's column can be changed for a cheaper one.

    Args:
        cost: What columns cost, ``(columns, blocks)``; infinite where they cannot be picked.
        use: What they use, ``(rows, columns, blocks)``.
        capacity: What they may use together, ``(rows,)``.
        price: What a unit of each use is worth, ``(rows,)``.

    Returns:
        The columns, ``(blocks,)``; None where repair did not succeed.

    >>> cost, use = np.array([[0.0, 0.0], [3.0, 5.0]]), np.array([[[4.0, 4.0], [1.0, 1.0]]])
    >>> pick_within(cost, use, np.array([5.0]), np.array([0.0])).tolist()
    [1, 0]
    """
    blocks = np.arange(cost.shape[1])
    mixed = cost + np.tensordot(price, use, axes=1)
    picked: Places = mixed.argmin(axis=0)
    unit = np.maximum(np.abs(capacity), 1.0)
    for _ in range(_MOST_MOVES * len(blocks)):
        total = use[:, picked, blocks].sum(axis=1)
        excess = float((np.maximum(total - capacity, 0.0) / unit).sum())
        if excess <= 0:
            return _improved(cost, use, capacity, picked)
        after = total[:, None, None] + use - use[:, picked, blocks][:, None, :]
        gain = excess - (np.maximum(after - capacity[:, None, None], 0.0) / unit[:, None, None]).sum(axis=0)
        dearer = np.maximum(mixed - mixed[picked, blocks], _NOTHING)
        worth = np.where((gain > _NOTHING) & np.isfinite(cost), gain / dearer, 0.0)
        column, block = np.unravel_index(int(worth.argmax()), worth.shape)
        if worth[column, block] <= 0:
            return None
        picked[block] = column
    return None


def _improved(cost: Floats, use: Floats, capacity: Floats, picked: Places) -> Places:
    """Change one block's column after the other for the one that saves most within the capacities."""
    blocks = np.arange(cost.shape[1])
    for _ in range(_MOST_MOVES * len(blocks)):
        now = use[:, picked, blocks]
        after = now.sum(axis=1)[:, None, None] + use - now[:, None, :]
        saved = np.where((after <= capacity[:, None, None]).all(axis=0), cost[picked, blocks] - cost, 0.0)
        column, block = np.unravel_index(int(saved.argmax()), saved.shape)
        if saved[column, block] <= 0:
            break
        picked[block] = column
    return picked
