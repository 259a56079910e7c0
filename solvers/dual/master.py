"""The best mixture of columns, and the prices that prove it to be the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.dual.columns import Columns, Prices

__all__ = ["Mixture", "by_intersection", "by_simplex"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """What the best mixture of columns costs, and its prices.

    Attributes:
        value: What it costs; no better bound can come from these columns. With prices whose objective is 0, by how
            much all mixtures break the capacities.
        prices: The prices.
        share: The share of each column, ``(columns, blocks)``.
    """

    value: float
    prices: Prices
    share: Floats


def by_intersection(columns: Columns, only: npt.NDArray[np.bool_] | None = None) -> Mixture:
    """Mix where each block has at most one row of its own and at most one row couples them, without peaks.

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


def by_simplex(
    columns: Columns, fixed: Floats | None = None, only: npt.NDArray[np.bool_] | None = None
) -> Mixture | None:
    """Mix by linear programming, whatever rows and peaks there are.

    Args:
        columns: The columns.
        fixed: Prices of the rows, ``(rows,)``, where they are given and only the weights of steps are sought.
        only: Which columns to mix, ``(columns, blocks)``, rows of blocks then left aside; None mixes all.

    Returns:
        The mixture; None where the program could not be solved.
    """
    found = _program(columns, 1.0, fixed, only)
    return found if found is not None else _program(columns, 0.0, fixed, only)


def _program(
    columns: Columns, weight: float, fixed: Floats | None, only: npt.NDArray[np.bool_] | None
) -> Mixture | None:
    """Solve for shares, peaks and, where the objective has no weight, what rows are broken by."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, hstack, vstack

    room, blocks, count = columns.room, columns.oracle.blocks, len(columns)
    shares, peaks = count * blocks.count, len(columns.oracle.problem.peaks)
    used = np.arange(shares) if only is None else np.flatnonzero(only.ravel())
    bound = np.flatnonzero(np.isfinite(room.row))
    if only is not None:
        bound = bound[np.isin(bound, blocks.coupling)]
    priced = np.zeros(len(bound)) if fixed is None else fixed[bound]
    unit = np.maximum(np.abs(room.row[bound]), 1.0)
    rows = np.zeros((len(bound), count, blocks.count))
    local, coupling = np.array(columns.local), np.array(columns.coupling)
    for place, row in enumerate(bound.tolist()):
        if row in blocks.coupling:
            rows[place] = coupling[:, blocks.coupling.index(row)]
        elif columns.block_of_row[row] >= 0:
            rows[place, :, columns.block_of_row[row]] = local[:, row]
    kept = columns.relevant
    loads = np.array(columns.steps)[:, kept]
    at = columns.block_of_step[kept]
    step, column = np.meshgrid(np.arange(len(at)), np.arange(count), indexing="ij")
    steps = csr_array((loads.T.ravel(), (step.ravel(), (column * blocks.count + at[step]).ravel())), (len(at), shares))
    steps.eliminate_zeros()
    arena = np.maximum(loads.max(initial=1.0), 1.0)
    above = coo_array((np.ones(len(at)), (np.arange(len(at)), columns.oracle.steps.peak[kept])), (len(at), peaks))
    slack = np.zeros((len(bound) + len(at), len(bound) if weight == 0.0 else 0))
    slack[: slack.shape[1]] = -np.eye(slack.shape[1])
    matrix = hstack(
        [
            vstack([csr_array(rows.reshape(len(bound), shares)[:, used] / unit[:, None]), steps[:, used] / arena]),
            vstack([csr_array(room.contains[bound] * (arena / unit)[:, None]), -above.tocsr()]),
            csr_array(slack),
        ]
    )
    cost = np.concatenate(
        [
            (weight * np.array(columns.objective) + np.tensordot(priced, rows, axes=1)).ravel()[used],
            arena * (weight * room.contains[room.objective] + priced @ room.contains[bound]),
            np.ones(slack.shape[1]),
        ]
    )
    scale = max(float(np.abs(cost).max()), 1.0)
    one = csr_array((np.ones(len(used)), (used % blocks.count, np.arange(len(used)))), (blocks.count, len(cost)))
    limit = np.concatenate([room.row[bound] / unit, np.zeros(len(at))])
    held = slice(0 if fixed is None else len(bound), None)
    within = {"A_ub": matrix.tocsr()[held], "b_ub": limit[held]}
    result = linprog(cost / scale, **within, A_eq=one, b_eq=np.ones(blocks.count), method="highs")
    if result.status != 0:
        return None
    dual = np.zeros(len(limit))
    dual[held] = -np.minimum(result.ineqlin.marginals, 0.0) * scale
    prices = Prices(objective=weight, row=np.zeros(len(room.row)), step=np.zeros(columns.oracle.steps.count))
    prices.row[bound] = dual[: len(bound)] / unit if fixed is None else priced
    prices.step[np.flatnonzero(kept)] = dual[len(bound) :] / arena
    share = np.zeros(shares)
    share[used] = result.x[: len(used)]
    value = float(result.fun) * scale - float(priced @ room.row[bound])
    return Mixture(value=value, prices=prices, share=share.reshape(count, blocks.count))


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
    return Prices(objective=objective, row=np.maximum(row, 0.0), step=np.zeros(columns.oracle.steps.count))


def _shares(shape: tuple[int, ...], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], share: Floats) -> Floats:
    found = np.zeros((shape[1], shape[0]))
    blocks = np.arange(shape[0])
    found[first, blocks] += share
    found[second, blocks] += 1 - share
    return found
