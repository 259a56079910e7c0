"""The best mixture of columns where the structure is simple, and the prices that prove it to be the best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.dual.columns import Columns, Mixture, Prices

__all__ = ["by_intersection"]

Floats = npt.NDArray[np.float64]


def by_intersection(columns: Columns, only: npt.NDArray[np.bool_] | None = None) -> Mixture:
    """Mix where each block has at most one row of its own and at most one row couples them.

    A peak in that row counts as the one step that is known to be highest at least: no peak is below any of its steps.

    Within a block, the best mixture for given coupling price lies on the lower convex hull of (own row, cost), where
    the own row is at its room: of all pairs of a column that keeps it and one that does not, the least. Over the
    coupling price the value is concave; its line from either side is followed to where they meet.

    Args:
        columns: The columns.
        only: Which of them to mix, ``(columns, blocks)``, rows of blocks then left aside; None mixes all.
    """
    room, count = columns.room, columns.oracle.blocks.count
    objective = np.array(columns.objective).T
    own, limit = _own(columns)
    if only is not None:
        # Those left out break a row that nobody can make room for.
        own, limit = np.where(only.T, 0.0, np.inf), np.zeros(count)
    coupled = len(columns.oracle.blocks.coupling) == 1
    use = np.array([entry[0] for entry in columns.coupling]).T if coupled else np.zeros_like(objective)
    for step in np.flatnonzero(columns.sure).tolist():
        use[columns.block_of_step[step]] += np.array(columns.steps)[:, step]
    capacity = float(room.row[columns.oracle.blocks.coupling[0]]) if coupled else np.inf

    free = _mixed(objective, own, limit, use)
    if not np.isfinite(free[0]):
        # Some block has no mixture within its own row: its row alone is looked at.
        lacking = own.min(axis=1) > limit
        local = np.where(lacking, 1.0, 0.0)
        return Mixture(
            value=float((own.min(axis=1) - limit)[lacking].sum()),
            prices=_prices(columns, 0.0, local, 0.0),
            share=_shares(objective.shape, own.argmin(axis=1), own.argmin(axis=1), np.ones(count)),
        )
    tight = _mixed(use, own, limit, use)
    if tight[0] > capacity:
        value, _, local, keeps, breaks, share = tight
        return Mixture(
            value=value - capacity,
            prices=_prices(columns, 0.0, local, 1.0),
            share=_shares(objective.shape, keeps, breaks, share),
        )
    if free[1] <= capacity:
        return Mixture(
            value=free[0],
            prices=_prices(columns, 1.0, free[2], 0.0),
            share=_shares(objective.shape, free[3], free[4], free[5]),
        )
    # (value at price 0, use): lines of the concave function of the price.
    low, high = (free[0], free[1]), (_value_of(objective, tight), tight[0])
    best = free
    price = 0.0
    for _ in range(60):
        price = (high[0] - low[0]) / (low[1] - high[1])
        best = _mixed(objective + price * use, own, limit, use)
        line = (best[0] - price * best[1], best[1])
        if best[0] >= low[0] + price * low[1] - 1e-12 * abs(low[0]):
            break
        if line[1] > capacity:
            low = line
        else:
            high = line
    return Mixture(
        value=best[0] - price * capacity,
        prices=_prices(columns, 1.0, best[2], price),
        share=_shares(objective.shape, best[3], best[4], best[5]),
    )


def _own(columns: Columns) -> tuple[Floats, Floats]:
    """Return what columns cost in their block's own row, ``(blocks, columns)``, and its room, ``(blocks,)``."""
    count = columns.oracle.blocks.count
    own, limit = np.zeros((count, len(columns))), np.full(count, np.inf)
    rows = np.flatnonzero(columns.block_of_row >= 0)
    block = columns.block_of_row[rows]
    own[block] = np.array(columns.local)[:, rows].T
    limit[block] = columns.room.row[rows]
    return own, limit


def _mixed(
    cost: Floats, own: Floats, limit: Floats, use: Floats
) -> tuple[float, float, Floats, npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return the value, the use, the own prices, the two columns mixed in each block, and the share of the first."""
    keeps = own <= limit[:, None]
    inside = np.where(keeps, cost, np.inf)
    blocks = np.arange(len(cost))
    first = inside.argmin(axis=1)
    second = first.copy()
    value, share, price = inside[blocks, first], np.ones(len(cost)), np.zeros(len(cost))
    free = cost.min(axis=1) < value
    if bool(free.any()):
        rows = np.flatnonzero(free)
        slack = np.where(keeps[rows], limit[rows, None] - own[rows], 0.0)
        excess = np.where(keeps[rows], np.inf, own[rows] - limit[rows, None])
        # The value at the limit of the line through a column that keeps it and one that breaks it.
        with np.errstate(invalid="ignore"):  # Infinite excess stands for a column that keeps the row.
            part = excess[:, None, :] / (slack[:, :, None] + excess[:, None, :])
        part = np.where(np.isfinite(excess)[:, None, :], part, 1.0)
        lower = np.where(np.isfinite(excess), cost[rows], 0.0)
        line = np.where(
            keeps[rows][:, :, None] & ~keeps[rows][:, None, :],
            part * cost[rows][:, :, None] + (1 - part) * lower[:, None, :],
            np.inf,
        )
        flat = line.reshape(len(rows), -1)
        best = flat.argmin(axis=1)
        inner, outer = np.divmod(best, cost.shape[1])
        least = flat[np.arange(len(rows)), best]
        better = least < value[rows]
        rows, inner, outer, least = rows[better], inner[better], outer[better], least[better]
        value[rows], first[rows], second[rows] = least, inner, outer
        share[rows] = (own[rows, outer] - limit[rows]) / (own[rows, outer] - own[rows, inner])
        price[rows] = (cost[rows, inner] - cost[rows, outer]) / (own[rows, outer] - own[rows, inner])
    used = share * use[blocks, first] + (1 - share) * use[blocks, second]
    return float(value.sum()), float(used.sum()), price, first, second, share


def _value_of(
    objective: Floats,
    mixed: tuple[float, float, Floats, npt.NDArray[np.intp], npt.NDArray[np.intp], Floats],
) -> float:
    blocks = np.arange(len(objective))
    _, _, _, first, second, share = mixed
    return float((share * objective[blocks, first] + (1 - share) * objective[blocks, second]).sum())


def _prices(columns: Columns, objective: float, local: Floats, coupling: float) -> Prices:
    row = np.zeros(len(columns.block_of_row))
    mine = columns.block_of_row >= 0
    row[mine] = local[columns.block_of_row[mine]]
    if len(columns.oracle.blocks.coupling):
        row[columns.oracle.blocks.coupling[0]] = coupling
    return Prices(objective=objective, row=np.maximum(row, 0.0), step=coupling * columns.sure)


def _shares(shape: tuple[int, ...], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], share: Floats) -> Floats:
    found = np.zeros((shape[1], shape[0]))
    blocks = np.arange(shape[0])
    found[first, blocks] += share
    found[second, blocks] += 1 - share
    return found
