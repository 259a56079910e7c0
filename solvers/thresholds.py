"""Peaks of single options for solvers that know only sums: branch on how high each peak may rise.

Below a threshold, a peak forbids options and is no more than a number: with every option above ``high`` forbidden and
the peak counted as ``low``, a problem has no peaks and lets too much through, which proves bounds. Where the choice
that comes out needs more than was counted, the interval is cut at what it needs: either the peak is lower, and options
go, or it is at least that high, and is counted so.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solvers.check import broken, floor, values
from solvers.problem import Peak, Problem
from solvers.reduction import Reduction, reduce
from solvers.solution import Solution, Status
from solvers.solver import Answer, Limits

__all__ = ["applies", "solve"]

_LEAST_CALL_S = 0.005


def applies(problem: Problem) -> bool:
    """Tell whether every peak of a problem is the greatest cost of a single option."""
    return all(peak.of_groups for peak in problem.peaks)


def solve(problem: Problem, answer: Answer, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve a problem with peaks of single options with a solver that knows no peaks.

    Args:
        problem: The problem; no ties, nothing forbidden, every peak ``of_groups``.
        answer: A solver that knows no peaks. Where it is exact, so is this.
        limits: How long all of it may take; ``work`` is what each problem without peaks may take.
        hint: A choice to start from.

    Returns:
        The answer; its bound holds for the problem with its peaks, and its prices are those of the first problem
        without.
    """
    return _Search(problem, answer, limits).run(hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """How high each peak is counted, and how high it may rise."""

    low: tuple[int, ...]
    high: tuple[int, ...]


class _Search:
    """Best-first search over intervals of the peaks."""

    def __init__(self, problem: Problem, answer: Answer, limits: Limits) -> None:
        self.problem = problem
        self.answer = answer
        self.limits = limits
        self.begin = time.perf_counter()
        # A peak in no row that matters may rise as it likes.
        rows = {problem.objective, *problem.bound_rows}
        self.used = sorted({peak for index in rows for peak in problem.rows[index].peaks})
        peaks = [problem.peaks[index] for index in self.used]
        self.costs = [problem.dense(peak.options, peak.costs) for peak in peaks]
        self.best: tuple[int, tuple[int, ...]] | None = None
        self.prices: tuple[float, ...] | None = None
        self.unproven: int | None = None
        self.boxes: list[tuple[int, int, _Box]] = []
        self.count = itertools.count()

    def run(self, hint: Sequence[int] | None) -> Solution:
        """Search until nothing is left, or a limit ends it."""
        if hint is not None and not broken(self.problem, hint):
            self._keep(tuple(hint))
        root = _Box(low=(0,) * len(self.used), high=tuple(int(costs.max()) for costs in self.costs))
        self._open(floor(self.problem), root)
        while self.boxes and not self._good_enough() and self._left() > _LEAST_CALL_S:
            bound, _, box = heapq.heappop(self.boxes)
            found = self._relaxed(box)
            if found is None or found[0].status is Status.INFEASIBLE:
                continue
            solution, box, reduction = found
            bound = max(bound, solution.bound or 0)
            if solution.choices is None:
                self._leave(bound)
                continue
            choices = reduction.restore(solution.choices)
            if not broken(self.problem, choices):
                self._keep(choices)
            chosen = self.problem.start[:-1] + np.asarray(choices)
            parts = self._parts(box, [int(costs[chosen].max()) for costs in self.costs])
            for part in parts:
                self._open(bound, part)
            if not parts and solution.status is not Status.OPTIMAL:
                self._leave(bound)
        return self._solution()

    def _open(self, bound: int, box: _Box) -> None:
        heapq.heappush(self.boxes, (bound, next(self.count), box))

    def _leave(self, bound: int) -> None:
        """Give up a box that cannot be cut and was not solved to the end: its bound stands."""
        self.unproven = bound if self.unproven is None else min(self.unproven, bound)

    def _bound(self) -> int | None:
        """Return what nothing in any box that is open can undercut; None where none is open."""
        still = [bound for bound, _, _ in self.boxes[:1]] + ([] if self.unproven is None else [self.unproven])
        return min(still, default=None)

    def _parts(self, box: _Box, peaks: Sequence[int]) -> list[_Box]:
        """Cut a box where the choice's peak lies farthest above what was counted."""
        above = [peak - low for peak, low in zip(peaks, box.low, strict=True)]
        axis = int(np.argmax(above)) if above else 0
        if not above or above[axis] <= 0:
            return []
        at = peaks[axis]
        lower = replace(box, high=(*box.high[:axis], at - 1, *box.high[axis + 1 :]))
        upper = replace(box, low=(*box.low[:axis], at, *box.low[axis + 1 :]))
        return [lower, upper]

    def _relaxed(self, box: _Box) -> tuple[Solution, _Box, Reduction] | None:
        """Solve a box's problem without peaks; None where a group has no option left."""
        problem = self.problem
        allowed = np.ones(problem.options, np.bool_)
        for costs, high in zip(self.costs, box.high, strict=True):
            allowed &= costs <= high
        # What every choice within the box needs at least.
        low = []
        for costs, counted in zip(self.costs, box.low, strict=True):
            least = np.minimum.reduceat(np.where(allowed, costs, np.iinfo(np.int64).max), problem.start[:-1])
            low.append(max(counted, int(least.max())))
        if any(counted > high for counted, high in zip(low, box.high, strict=True)):
            return None
        box = replace(box, low=tuple(low))
        counted_as = dict(zip(self.used, low, strict=True))
        rows = tuple(
            replace(row, peaks=(), constant=row.constant + sum(counted_as.get(peak, 0) for peak in row.peaks))
            for row in problem.rows
        )
        without: tuple[Peak, ...] = ()
        reduction = reduce(replace(problem, rows=rows, peaks=without, forbidden=np.flatnonzero(~allowed)))
        if reduction.problem is None:
            return None
        start = None if self.best is None else reduction.project(self.best[1])
        limits = replace(self.limits, time_s=max(_LEAST_CALL_S, self._left()), watch=None)
        solution = self.answer(reduction.problem, limits, start)
        if self.prices is None:
            self.prices = solution.prices
        return solution, box, reduction

    def _keep(self, choices: tuple[int, ...]) -> None:
        objective = values(self.problem, choices)[self.problem.objective]
        if self.best is None or objective < self.best[0]:
            self.best = (objective, choices)
            if self.limits.watch is not None:
                self.limits.watch(time.perf_counter() - self.begin, objective, self._bound())

    def _good_enough(self) -> bool:
        bound = self._bound()
        return self.best is not None and bound is not None and self.best[0] - bound <= self.limits.gap * self.best[0]

    def _left(self) -> float:
        return self.limits.time_s - (time.perf_counter() - self.begin)

    def _solution(self) -> Solution:
        bound = self._bound()
        if self.best is None:
            status = Status.INFEASIBLE if bound is None else Status.LIMIT
            return Solution(status=status, bound=bound, prices=self.prices)
        objective, choices = self.best
        bound = objective if bound is None else min(bound, objective)
        status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
        return Solution(status=status, choices=choices, objective=objective, bound=bound, prices=self.prices)
