"""The mixture of columns as a linear program, whatever rows and peaks there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.columns import Columns, Mixture, Prices

__all__ = ["by_simplex"]

Floats = npt.NDArray[np.float64]

_MOST_ROUNDS = 30
_BEYOND = 1e-7


def by_simplex(
    columns: Columns, fixed: Floats | None = None, only: npt.NDArray[np.bool_] | None = None
) -> Mixture | None:
    """Mix by linear programming.

    Of the steps of peaks only those take part that some mixture was seen to be highest in; others are added as they
    turn out to be higher.

    Args:
        columns: The columns; which steps take part is kept with them.
        fixed: Prices of the rows, ``(rows,)``, where they are given and only the weights of steps are sought.
        only: Which columns to mix, ``(columns, blocks)``, rows of blocks then left aside; None mixes all.

    Returns:
        The mixture; None where the program could not be solved.
    """
    for weight in (1.0, 0.0):
        found = _Program(columns, weight, fixed, only).run()
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Solved:
    """What a linear program came to."""

    value: float
    share: Floats
    peak: Floats
    row: Floats
    step: Floats


class _Program:
    """Shares of columns, heights of peaks and, where the objective has no weight, what rows are broken by."""

    def __init__(
        self, columns: Columns, weight: float, fixed: Floats | None, only: npt.NDArray[np.bool_] | None
    ) -> None:
        self.columns, self.weight, self.fixed = columns, weight, fixed
        room, blocks, count = columns.room, columns.oracle.blocks, len(columns)
        self.shares = count * blocks.count
        self.used = np.arange(self.shares) if only is None else np.flatnonzero(only.ravel())
        bound = np.flatnonzero(np.isfinite(room.row))
        self.bound = bound if only is None else bound[np.isin(bound, blocks.coupling)]
        self.priced = np.zeros(len(self.bound)) if fixed is None else fixed[self.bound]
        self.unit = np.maximum(np.abs(room.row[self.bound]), 1.0)
        self.loads = np.array(columns.steps).reshape(count, -1)
        self.rows = self._rows()

    def _rows(self) -> tuple[Floats, Integers, Integers]:
        """Return what columns cost in the bound rows: figures, rows and shares."""
        columns, count = self.columns, len(self.columns)
        blocks = columns.oracle.blocks
        local, coupling = np.array(columns.local), np.array(columns.coupling)
        value, row, share = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for place, index in enumerate(self.bound.tolist()):
            if index in blocks.coupling:
                value.append(coupling[:, blocks.coupling.index(index)].ravel())
                share.append(np.arange(self.shares))
            else:
                value.append(local[:, index])
                share.append(np.arange(count) * blocks.count + max(int(columns.block_of_row[index]), 0))
            row.append(np.full(len(value[-1]), place))
        return np.concatenate(value), np.concatenate(row), np.concatenate(share)

    def run(self) -> Mixture | None:
        """Solve, with ever more steps."""
        columns = self.columns
        steps = columns.oracle.steps
        solved = self._solve()
        for _ in range(_MOST_ROUNDS):
            if solved is None:
                return None
            mixed = (solved.share[:, columns.block_of_step] * self.loads).sum(axis=0)
            height = solved.peak[steps.peak] if steps.count else mixed
            beyond = np.where(columns.relevant & ~columns.active, mixed - height, 0.0)
            high = np.flatnonzero(beyond > _BEYOND * np.maximum(height, 1.0))
            if not len(high):
                break
            # The highest of each block and peak.
            key = columns.block_of_step[high] * len(solved.peak) + steps.peak[high]
            order = np.lexsort([-beyond[high], key])
            _, first = np.unique(key[order], return_index=True)
            columns.active[high[order[first]]] = True
            solved = self._solve()
        if solved is None:
            return None
        prices = Prices(objective=self.weight, row=solved.row, step=solved.step)
        paid = float(self.priced @ columns.room.row[self.bound])
        return Mixture(value=solved.value - paid, prices=prices, share=solved.share)

    def _solve(self) -> _Solved | None:
        from scipy.optimize import linprog
        from scipy.sparse import csr_array, hstack, vstack

        columns, room, count = self.columns, self.columns.room, len(self.columns)
        blocks, used = columns.oracle.blocks, self.used
        peaks, active = len(columns.oracle.problem.peaks), np.flatnonzero(columns.active)
        value, row, share = self.rows
        sums = csr_array((value / self.unit[row], (row, share)), (len(self.bound), self.shares))
        loads = self.loads[:, active]
        arena = max(float(loads.max(initial=1.0)), 1.0)
        at = (np.arange(count)[:, None] * blocks.count + columns.block_of_step[active]).ravel()
        step = np.tile(np.arange(len(active)), count)
        steps = csr_array((loads.ravel() / arena, (step, at)), (len(active), self.shares))
        above = csr_array(
            (-np.ones(len(active)), (np.arange(len(active)), columns.oracle.steps.peak[active])), (len(active), peaks)
        )
        slack = np.zeros((len(self.bound) + len(active), 0 if self.weight else len(self.bound)))
        slack[: slack.shape[1]] = -np.eye(slack.shape[1])
        contains = csr_array(room.contains[self.bound] * (arena / self.unit)[:, None])
        matrix = hstack([vstack([sums[:, used], steps[:, used]]), vstack([contains, above]), csr_array(slack)])
        priced = np.zeros(self.shares)
        np.add.at(priced, share, self.priced[row] * value)
        cost = np.concatenate(
            [
                (self.weight * np.array(columns.objective).ravel() + priced)[used],
                arena * (self.weight * room.contains[room.objective] + self.priced @ room.contains[self.bound]),
                np.ones(slack.shape[1]),
            ]
        )
        scale = max(float(np.abs(cost).max()), 1.0)
        one = csr_array((np.ones(len(used)), (used % blocks.count, np.arange(len(used)))), (blocks.count, len(cost)))
        limit = np.concatenate([room.row[self.bound] / self.unit, np.zeros(len(active))])
        held = np.arange(0 if self.fixed is None else len(self.bound), len(limit))
        result = linprog(
            cost / scale,
            A_ub=matrix.tocsr()[held],
            b_ub=limit[held],
            A_eq=one,
            b_eq=np.ones(blocks.count),
            method="highs",
        )
        if result.status != 0:
            return None
        dual = np.zeros(len(limit))
        dual[held] = -np.minimum(result.ineqlin.marginals, 0.0) * scale
        found, rows, weights = np.zeros(self.shares), np.zeros(len(room.row)), np.zeros(columns.oracle.steps.count)
        found[used] = result.x[: len(used)]
        rows[self.bound] = dual[: len(self.bound)] / self.unit if self.fixed is None else self.priced
        weights[active] = dual[len(self.bound) :] / arena
        return _Solved(
            value=float(result.fun) * scale,
            share=found.reshape(count, blocks.count),
            peak=result.x[len(used) : len(used) + peaks] * arena,
            row=rows,
            step=weights,
        )
