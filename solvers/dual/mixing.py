"""One column for every block, cheapest within what couples the blocks: a small knapsack over what is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.dual.columns import Columns
from solvers.dual.several import pick_within

__all__ = ["combine", "keeps", "pick"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_FEW_BLOCKS = 64
_MOST_STATES = 20_000
_MOST_ARENAS = 60


def keeps(columns: Columns) -> npt.NDArray[np.bool_]:
    """Tell which columns keep the rows of their block, peaks included, ``(columns, blocks)``."""
    count = columns.oracle.blocks.count
    kept = np.array(columns.allowed).reshape(len(columns), count)
    arenas = peaks(columns)
    local = np.array(columns.local)
    for row in np.flatnonzero(columns.block_of_row >= 0).tolist():
        block = columns.block_of_row[row]
        held = local[:, row]
        for peak in np.flatnonzero(columns.room.contains[row]).tolist():
            held = held + arenas[peak][:, block]
        kept[:, block] &= held <= columns.room.row[row]
    return kept


def peaks(columns: Columns) -> list[Floats]:
    """Return what each peak comes to in each column's block alone, one ``(columns, blocks)`` for each peak."""
    count = columns.oracle.blocks.count
    steps = np.array(columns.steps).reshape(len(columns), -1)
    found = []
    for peak in range(len(columns.oracle.problem.peaks)):
        mine = np.flatnonzero(columns.oracle.steps.peak == peak)
        high = np.zeros((count, len(columns)))
        np.maximum.at(high, columns.block_of_step[mine], steps[:, mine].T)
        found.append(high.T)
    return found


def combine(columns: Columns, price: Floats) -> list[npt.NDArray[np.int64]]:
    """Put together choices of all groups from the columns, the most promising ones first.

    What is returned has yet to be checked: peaks that blocks share may stand in several rows.

    Args:
        columns: The columns.
        price: What a unit of each row is worth, ``(rows,)``; only asked for where several rows couple the blocks.
    """
    coupling, room = list(columns.oracle.blocks.coupling), columns.room
    cost = np.where(keeps(columns), np.array(columns.objective), np.inf)
    if not bool(np.isfinite(cost.min(axis=0)).all()):
        return []
    if not coupling:
        return [_joined(columns, cost.argmin(axis=0))]
    use = np.array(columns.coupling).transpose(1, 0, 2).copy()
    shared, times = np.zeros_like(cost), np.zeros(len(coupling))
    for peak, arena in enumerate(peaks(columns)):
        blocks = np.unique(columns.block_of_step[columns.oracle.steps.peak == peak])
        held = np.flatnonzero(room.contains[coupling, peak])
        if len(blocks) == 1:
            use[held] += arena
        elif len(held):
            shared = np.maximum(shared, arena)
            times[held] += 1
    found = []
    for most in _arenas(shared, cost) if bool(times.any()) else [np.inf]:
        may = np.where(shared <= most, cost, np.inf)
        left = room.row[coupling] - (most * times if bool(times.any()) else 0.0)
        if len(coupling) == 1:
            picked = pick(may, use[0], float(left[0]))
        else:
            picked = pick_within(may, use, left, price[coupling])
        if picked is not None:
            found.append((float(cost[picked, np.arange(cost.shape[1])].sum()), picked))
    return [_joined(columns, picked) for _, picked in sorted(found, key=lambda entry: entry[0])]


def _arenas(arena: Floats, cost: Floats) -> list[float]:
    """List values of a shared peak that are worth trying: no block can do with less than the least of them."""
    least = float(np.where(np.isfinite(cost), arena, np.inf).min(axis=0).max())
    known = np.unique(arena[np.isfinite(cost) & (arena >= least)])
    if len(known) > _MOST_ARENAS:
        known = known[np.linspace(0, len(known) - 1, _MOST_ARENAS).astype(int)]
    return [float(entry) for entry in known]


def _joined(columns: Columns, picked: Places) -> npt.NDArray[np.int64]:
    of_group = columns.oracle.blocks.of_group
    chosen = np.array(columns.chosen)
    found: npt.NDArray[np.int64] = chosen[picked[of_group], np.arange(len(of_group))]
    return found


def pick(cost: Floats, use: Floats, capacity: float) -> Places | None:
    """Pick one column for each block so that the use stays within the capacity, cheaply.

    Args:
        cost: What columns cost, ``(columns, blocks)``; infinite where they cannot be picked.
        use: What they use.
        capacity: What they may use together.

    Returns:
        The columns, ``(blocks,)``; None where the least use is too much.
    """
    least = np.where(np.isfinite(cost), use, np.inf).min(axis=0)
    if not float(least.sum()) <= capacity:
        return None
    blocks = np.arange(cost.shape[1])
    picked: Places = cost.argmin(axis=0)
    if float(use[picked, blocks].sum()) <= capacity:
        return picked
    lightest = np.lexsort([cost, np.where(np.isfinite(cost), use, np.inf)], axis=0)[0]
    heavy, light = picked, lightest
    price = 0.0
    for _ in range(60):
        gain = float(use[heavy, blocks].sum() - use[light, blocks].sum())
        dearer = float(cost[light, blocks].sum() - cost[heavy, blocks].sum())
        if gain <= 0 or dearer <= 0:
            break
        price = dearer / gain
        picked = (cost + price * use).argmin(axis=0)
        mixed = cost[picked, blocks].sum() + price * use[picked, blocks].sum()
        if mixed >= cost[heavy, blocks].sum() + price * use[heavy, blocks].sum() - 1e-9 * abs(mixed):
            break
        if float(use[picked, blocks].sum()) <= capacity:
            light = picked
        else:
            heavy = picked
    best = _filled(cost, use, capacity, light)
    if cost.shape[1] <= _FEW_BLOCKS:
        return _states(cost, use, capacity, price, best)
    return best


def _filled(cost: Floats, use: Floats, capacity: float, picked: Places) -> Places:
    """Change one block's column after the other where that saves most for what it uses."""
    picked, blocks = picked.copy(), np.arange(cost.shape[1])
    for _ in range(10 * cost.shape[1]):
        slack = capacity - float(use[picked, blocks].sum())
        cheaper = cost[picked, blocks] - cost
        more = use - use[picked, blocks]
        fits = (cheaper > 0) & (more <= slack)
        if not bool(fits.any()):
            break
        worth = np.where(fits, cheaper / np.maximum(more, 1e-3 * max(slack, 1.0)), -np.inf)
        column, block = np.unravel_index(int(worth.argmax()), worth.shape)
        picked[block] = column
    return picked


def _states(cost: Floats, use: Floats, capacity: float, price: float, known: Places) -> Places:
    """Dynamic programming over blocks, pruned by the price of the coupling row (S. Martello, P. Toth, 1990)."""
    blocks = cost.shape[1]
    mixed = np.where(np.isfinite(cost), cost + price * use, np.inf)
    ahead = np.append(np.cumsum(mixed.min(axis=0)[::-1])[::-1], 0.0) - price * capacity
    light = np.append(np.cumsum(np.where(np.isfinite(cost), use, np.inf).min(axis=0)[::-1])[::-1], 0.0)
    best = float(cost[known, np.arange(blocks)].sum())
    total, used = np.zeros(1), np.zeros(1)
    history: list[tuple[Places, Places]] = []
    for block in range(blocks):
        mine = np.flatnonzero(mixed[:, block] - mixed[:, block].min() < best - ahead[0])
        parent = np.repeat(np.arange(len(total)), len(mine))
        column = np.tile(mine, len(total))
        total, used = total[parent] + cost[column, block], used[parent] + use[column, block]
        likely = total + price * used + ahead[block + 1]
        kept = np.flatnonzero((used + light[block + 1] <= capacity) & (likely < best))
        kept = kept[np.lexsort([total[kept], used[kept]])]
        running = np.minimum.accumulate(total[kept])
        front = np.ones(len(kept), np.bool_)
        front[1:] = total[kept][1:] < running[:-1]
        kept = kept[front]
        if len(kept) > _MOST_STATES:
            kept = kept[np.argpartition(likely[kept], _MOST_STATES)[:_MOST_STATES]]
        history.append((parent[kept], column[kept]))
        total, used = total[kept], used[kept]
    if not len(total) or float(total.min()) >= best:
        return known
    state = int(total.argmin())
    picked = known.copy()
    for block in range(blocks - 1, -1, -1):
        parent, column = history[block]
        picked[block] = column[state]
        state = int(parent[state])
    return picked
