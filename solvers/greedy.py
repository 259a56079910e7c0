"""Move by move by the best ratio: fast, always checked, never better than exact solvers, proves little."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from solvers.check import broken, floor, values
from solvers.problem import Integers, Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, hints=True)
_FORBIDDEN = 1
Floats = npt.NDArray[np.float64]


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Repair the cheapest choice by the least objective for each unit of excess, then improve what is left.

    The excess is the sum over rows of what lies above the capacity, as a share of the capacity. Three starts
    are
    tried: the hint, each group at its cheapest, and each group at what presses least on the capacities.

    Args:
        problem: The problem.
        limits: How long it may take.
        hint: A choice to start from.

    Returns:
        The best choice found with a simple bound, or ``limit``: greedy never proves that there is none.
    """
    deadline = time.perf_counter() + limits.time_s
    walk = _Walk(problem)
    least = floor(problem)
    best: tuple[int, tuple[int, ...]] | None = None
    for start in _starts(problem, walk, hint):
        if best is not None and (time.perf_counter() > deadline or best[0] == least):
            break
        choices = walk.descend(start, deadline)
        if broken(problem, choices):
            continue
        objective = values(problem, choices)[problem.objective]
        if best is None or objective < best[0]:
            best = (objective, choices)
    if best is None:
        return Solution(status=Status.LIMIT, bound=least)
    status = Status.OPTIMAL if best[0] == least else Status.FEASIBLE
    return Solution(status=status, choices=best[1], objective=best[0], bound=least)


def _starts(problem: Problem, walk: _Walk, hint: Sequence[int] | None) -> list[Integers]:
    """List what to start from, as options numbered through all groups."""
    first = problem.start[:-1]
    starts = [] if hint is None else [first + np.asarray(hint, np.int64)]
    pressure = np.zeros(problem.options)
    for index in problem.bound_rows:
        pressure += walk.linear[index] / walk.unit[index]
        for peak in problem.rows[index].peaks:
            pressure += walk.peak[peak] / walk.unit[index]
    cost = walk.linear[problem.objective].astype(np.float64)
    spans = [slice(int(a), int(b)) for a, b in pairwise(problem.start)]
    return starts + [
        np.array([span.start + np.argmin(key[span]) for span in spans], np.int64) for key in (cost, pressure)
    ]


class _Walk:
    """A walk from choice to choice: what every row costs, and what every single move would change."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        rows, options = len(problem.rows), problem.options
        self.linear = np.zeros((rows, options), np.int64)
        self.peak = np.zeros((len(problem.peaks), options), np.int64)
        for index, row in enumerate(problem.rows):
            self.linear[index, row.options] = row.costs
        for index, peak in enumerate(problem.peaks):
            self.peak[index, peak.options] = peak.costs
        self.group = np.repeat(np.arange(problem.groups), np.diff(problem.start))
        self.unit = np.array([max(1, row.capacity or 0) for row in problem.rows], np.float64)
        self.capacity = np.array([np.inf if r.capacity is None else float(r.capacity) for r in problem.rows])
        self.incident: list[list[int]] = [[] for _ in range(problem.groups)]
        for index, pair in enumerate(problem.pairs):
            self.incident[pair.source].append(index)
            self.incident[pair.target].append(index)
        # One row more than the problem has: the number of forbidden meetings, of which there may be none.
        self.meeting = [self._matrices(index) for index in range(len(problem.pairs))]

    def _matrices(self, index: int) -> Integers:
        """Return what formats cost in every row and in forbidden meetings, ``(rows + 1, F, G)``."""
        pair = self.problem.pairs[index]
        found = np.zeros((len(self.problem.rows) + _FORBIDDEN, *pair.allowed.shape), np.int64)
        for row, costs in pair.costs:
            found[row] = costs
        found[-1] = ~pair.allowed
        return found

    def descend(self, start: Integers, deadline: float) -> tuple[int, ...]:
        """Move while a move lowers the excess, or, without excess, the objective."""
        chosen = start.copy()
        meeting = np.zeros((len(self.problem.rows) + _FORBIDDEN, self.problem.options), np.int64)
        for group in range(self.problem.groups):
            self._meet(group, chosen, meeting)
        moves, most_moves = 0, 20 * self.problem.options
        while moves < most_moves and (moves % 16 or time.perf_counter() < deadline):
            option = self._best_move(chosen, meeting)
            if option is None:
                break
            group = int(self.group[option])
            chosen[group] = option
            touched = {group}
            for index in self.incident[group]:
                touched |= {self.problem.pairs[index].source, self.problem.pairs[index].target}
            for other in touched:
                self._meet(other, chosen, meeting)
            moves += 1
        return tuple(int(place) for place in chosen - self.problem.start[:-1])

    def _meet(self, group: int, chosen: Integers, meeting: Integers) -> None:
        """Recompute what each option of a group would cost in meetings with the neighbours as they are."""
        first, beyond = self.problem.start[group], self.problem.start[group + 1]
        meeting[:, first:beyond] = 0
        for index in self.incident[group]:
            pair = self.problem.pairs[index]
            if pair.source == group:
                target = pair.target_format[chosen[pair.target] - self.problem.start[pair.target]]
                meeting[:, first:beyond] += self.meeting[index][:, pair.source_format, target]
            else:
                source = pair.source_format[chosen[pair.source] - self.problem.start[pair.source]]
                meeting[:, first:beyond] += self.meeting[index][:, source, pair.target_format]

    def _best_move(self, chosen: Integers, meeting: Integers) -> int | None:
        """Return the option to take next, or None where no single move helps."""
        value, forbidden, after, after_forbidden = self._after(chosen, meeting)
        excess = self._excess(value[:, None], np.array([forbidden]))[0]
        excess_after = self._excess(after, after_forbidden)
        dearer = after[self.problem.objective] - value[self.problem.objective]
        if excess > 0:
            gain = excess - excess_after
            helps = np.flatnonzero(gain > 1e-12)
            if not len(helps):
                return None
            return int(helps[np.argmin(np.where(dearer[helps] > 0, dearer[helps] / gain[helps], dearer[helps]))])
        keeps = np.flatnonzero((excess_after == 0) & (dearer < 0))
        return int(keeps[np.argmin(dearer[keeps])]) if len(keeps) else None

    def _after(self, chosen: Integers, meeting: Integers) -> tuple[Floats, int, Floats, Integers]:
        """Return each row's value now and after each single move, and the forbidden meetings likewise."""
        problem = self.problem
        both = self.linear + meeting[:-1]
        change = (both - both[:, chosen][:, self.group]).astype(np.float64)
        value = np.array([row.constant for row in problem.rows], np.float64) + self.linear[:, chosen].sum(axis=1)
        for index, pair in enumerate(problem.pairs):
            source = pair.source_format[chosen[pair.source] - problem.start[pair.source]]
            target = pair.target_format[chosen[pair.target] - problem.start[pair.target]]
            value += self.meeting[index][:-1, source, target]
        for index in range(len(problem.peaks)):
            now = self.peak[index, chosen]
            top = int(np.argmax(now))
            second = int(np.delete(now, top).max(initial=0))
            others = np.where(self.group == top, second, now[top])
            moved = np.maximum(others, self.peak[index])
            for row_index, row in enumerate(problem.rows):
                if index in row.peaks:
                    value[row_index] += now[top]
                    change[row_index] += moved - now[top]
        forbidden = int(meeting[-1, chosen].sum()) // 2
        forbidden_after = forbidden + meeting[-1] - meeting[-1, chosen][self.group]
        return value, forbidden, value[:, None] + change, forbidden_after

    def _excess(self, value: Floats, forbidden: Integers) -> Floats:
        """Sum what lies above the capacities, as shares of them; a forbidden meeting counts most."""
        above = np.maximum(0.0, value - self.capacity[:, None]) / self.unit[:, None]
        total: Floats = above.sum(axis=0) + forbidden * 1e3
        return total
