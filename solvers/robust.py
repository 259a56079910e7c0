"""Rows with a spread for solvers that know only sums: branch on the variance, between chord and tangent.

The root of a variance ``V`` is concave: on ``a <= V <= b`` its chord lies below it, and every tangent above it. With
the chord in its place a row is linear and lets too much through: a relaxation, which proves bounds. With a tangent it
is linear and lets too little through: a restriction, whose choices keep the row. Where the relaxation's choice breaks
a row, the interval of that row's variance is cut at the variance of the choice, where the chords of both parts are
exact (J. Falk and R. Soland, An algorithm for separable nonconvex programming problems, Management Science 15, 1969;
rows of mean and deviation: A. Charnes and W. Cooper, Chance-constrained programming, Management Science 6, 1959).
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from solvers.arrays import Integers
from solvers.check import broken, floor, values
from solvers.problem import Peak, Problem, Row
from solvers.roots import Line, chord, tangent, times
from solvers.solution import Solution, Status
from solvers.solver import Answer, Limits
from solvers.spread import Spread

__all__ = ["solve"]

_LARGEST = 2**50
"""Scaled rows stay below this, so that solvers in floating point count them exactly."""
_LARGEST_SUM = 2**60
_FINEST = 20
"""Linear costs are rounded to the unit over two to this power, at the finest."""
_RESTRICTIONS = 3
_MOST_UNPROVEN = 20
_LEAST_CALL_S = 0.02
_NARROWING_S = 1.0
"""Seconds at most for one end of one interval."""


def solve(problem: Problem, answer: Answer, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve a problem whose rows have a spread with a solver that knows none.

    Args:
        problem: The problem; no ties, nothing forbidden.
        answer: A solver that knows no spreads. Where it is exact, so is this; where it
            gives no bounds, this gives choices without proof.
        limits: How long all of it may take; ``work`` is what each linear problem may take.
        hint: A choice to start from.

    Returns:
        The answer; ``bound`` holds for the problem with its spreads.
    """
    return _Search(problem, answer, limits).run(hint)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Box:
    """An interval of the variance of each row that has one; ``closed`` are those whose lower end is enforced."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    closed: tuple[int, ...] = ()

    def parts(self, axis: int, variance: int) -> Iterable[_Box]:
        """Cut one interval at a variance; empty where it cannot be cut there."""
        low, high = self.low[axis], self.high[axis]
        if variance < low and axis not in self.closed:
            yield replace(self, closed=(*self.closed, axis))
        elif low <= variance < high and low < high:
            yield replace(self, high=_with(self.high, axis, variance))
            yield replace(self, low=_with(self.low, axis, variance + 1))
        elif variance == high and low < high:
            # The chord is exact here already: it is its rounding that let the choice through. A point has none.
            yield replace(self, high=_with(self.high, axis, high - 1))
            yield replace(self, low=_with(self.low, axis, high))


class _Search:
    """Best-first search over boxes of variances."""

    def __init__(self, problem: Problem, answer: Answer, limits: Limits) -> None:
        self.problem = problem
        self.answer = answer
        self.limits = limits
        self.begin = time.perf_counter()
        self.spreads = {index: row.spread for index, row in enumerate(problem.rows) if row.spread is not None}
        self.binding = tuple(
            index
            for index, spread in self.spreads.items()
            if (index == problem.objective or problem.rows[index].capacity is not None)
            and spread.z > 0
            and bool(spread.variances.any())
        )
        self.most = problem.most()
        self.scale = [1] * len(problem.rows)
        for index in self.binding:
            room = _LARGEST // max(1, self.most[index])
            self.scale[index] = 1 << max(0, min(_FINEST, room.bit_length() - 1))
        self.groups = np.repeat(np.arange(problem.groups), np.diff(problem.start))
        self.best: tuple[int, tuple[int, ...]] | None = None
        self.bound: int | None = None
        self.asked = 0
        self.unproven = 0
        self.top: tuple[int, ...] = ()

    def run(self, hint: Sequence[int] | None) -> Solution:
        """Search until nothing is left, or a limit ends it."""
        if hint is not None:
            self._consider(tuple(hint))
        least, most = self._extremes()
        root = _Box(low=least, high=most)
        self.top = most
        open_boxes = [(floor(self.problem), root)]
        unsettled: list[int] = []
        self._note_bound(open_boxes, unsettled)
        is_wide = len(self.binding) > 1
        while open_boxes and not self._is_close():
            bound, box = open_boxes[0]
            if self.best is not None and bound >= self.best[0]:
                break
            if self._left() < _LEAST_CALL_S:
                break
            heapq.heappop(open_boxes)
            parts, settled, bound = self._branch(box, bound)
            if not settled:
                unsettled.append(bound)
            if is_wide and parts and self.best is not None:
                # Cutting several intervals in turn makes many boxes: better to begin with narrow ones.
                is_wide, narrow = False, self._narrowed(box)
                parts = () if narrow is None else (narrow,)
            for part in parts:
                heapq.heappush(open_boxes, (bound, part))
            self._note_bound(open_boxes, unsettled)
        return self._result(open_boxes, unsettled)

    def _result(self, open_boxes: list[tuple[int, _Box]], unsettled: list[int]) -> Solution:
        note = f"{self.asked} linear problems for the spreads"
        left = min([bound for bound, _ in open_boxes] + unsettled, default=None)
        if self.best is None:
            if left is None:
                return Solution(status=Status.INFEASIBLE, note=note)
            return Solution(status=Status.LIMIT, bound=left, note=note)
        objective, choices = self.best
        bound = objective if left is None else min(left, objective)
        status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
        return Solution(status=status, choices=choices, objective=objective, bound=bound, note=note)

    def _branch(self, box: _Box, bound: int) -> tuple[tuple[_Box, ...], bool, int]:
        """Solve the relaxation of a box.

        Returns:
            The parts that remain to be searched, whether nothing but these is left open, and the box's bound.
        """
        chords = {row: chord(self._spread(row), *ends) for row, ends in self._ends(box)}
        relaxed = self._linear(chords, up=False, box=box)
        solution = self._ask(relaxed)
        if solution.status is Status.INFEASIBLE:
            return (), True, bound
        scale = self.scale[self.problem.objective]
        if solution.bound is not None:
            bound = max(bound, -(-solution.bound // scale))
        if solution.choices is None:
            return (), False, bound
        exact = self._consider(solution.choices)
        if solution.status is not Status.OPTIMAL:
            self.unproven += 1
            if self.unproven > _MOST_UNPROVEN:
                return (), False, bound
        if self.best is not None and bound >= self.best[0]:
            return (), True, bound
        if not self._is_kept(exact) and self._is_turn():
            self._restrict(solution.choices)
        axis = self._axis(solution, exact)
        if axis is None:
            return (), solution.status is Status.OPTIMAL, bound
        parts = tuple(box.parts(axis, self._variance(self.binding[axis], solution.choices)))
        return parts, bool(parts), bound

    def _narrowed(self, box: _Box) -> _Box | None:
        """Narrow a box to what the relaxation leaves of choices that are better than the best one found.

        H. Ryoo and N. Sahinidis, A branch-and-reduce approach to global optimization, J. Global Optimization 8 (1996).

        Returns:
            The box; None where no better choice is left.
        """
        chords = {row: chord(self._spread(row), *ends) for row, ends in self._ends(box)}
        relaxed = self._linear(chords, up=False, box=box)
        low, high = list(box.low), list(box.high)
        for axis in range(len(self.binding)):
            variances, missing, most, shift = self._shifted(axis)
            for costs in (variances, missing):
                left = min(_NARROWING_S, self._left() / (4 * len(self.binding)))
                if left < _LEAST_CALL_S:
                    break
                row = _row("variance", costs, None)
                problem = replace(relaxed, rows=(*relaxed.rows, row), objective=len(relaxed.rows))
                self.asked += 1
                solution = self.answer(problem, replace(self.limits, time_s=left, gap=0.0, watch=None), None)
                if solution.status is Status.INFEASIBLE:
                    return None
                if solution.bound is not None and costs is variances:
                    low[axis] = max(low[axis], solution.bound << shift)
                elif solution.bound is not None:
                    high[axis] = min(high[axis], most - (solution.bound << shift))
        if any(first > last for first, last in zip(low, high, strict=True)):
            return None
        return _Box(low=tuple(low), high=tuple(high))

    def _axis(self, solution: Solution, exact: tuple[int, ...]) -> int | None:
        """Return which variance to cut: that of the row whose stand-in errs most, for its size; None if none does."""
        found: tuple[Fraction, int] | None = None
        for axis, row in enumerate(self.binding):
            capacity = self.problem.rows[row].capacity
            excess = 0 if capacity is None else exact[row] - capacity
            if row == self.problem.objective:
                excess = max(excess, exact[row] + -(solution.objective or 0) // self.scale[row])
            error = Fraction(excess, max(1, exact[row]))
            if excess > 0 and (found is None or error > found[0]):
                found = (error, axis)
        return None if found is None else found[1]

    def _is_turn(self) -> bool:
        """Tell whether to look for a choice that keeps all: at first, and ever more rarely."""
        return self.asked <= _RESTRICTIONS or (self.asked & (self.asked - 1)) == 0

    def _restrict(self, around: tuple[int, ...]) -> None:
        """Solve with tangents at the variances of a choice."""
        tangents = {row: tangent(self._spread(row), self._variance(row, around)) for row in self.binding}
        solution = self._ask(self._linear(tangents, up=True, box=None))
        if solution.choices is not None:
            self._consider(solution.choices)

    def _ask(self, problem: Problem) -> Solution:
        left = max(_LEAST_CALL_S, self._left())
        limits = replace(self.limits, time_s=left if self.best is not None else left / 2, gap=0.0, watch=None)
        self.asked += 1
        return self.answer(problem, limits, None if self.best is None else self.best[1])

    def _linear(self, lines: dict[int, Line], *, up: bool, box: _Box | None) -> Problem:
        """Write the problem with lines in place of roots, and the box's intervals as rows."""
        rounded = math.ceil if up else math.floor
        peaks = list(self.problem.peaks)
        rows = [replace(row, spread=None) for row in self.problem.rows]
        for index, line in lines.items():
            row, spread, scale = rows[index], self._spread(index), self.scale[index]
            costs = np.zeros(self.problem.options, np.int64)
            costs[row.options] = row.costs * scale
            # What costs more than that by itself is out of the question; less of it keeps a relaxation one, and a
            # restriction's choices are looked at anyway.
            most = _LARGEST_SUM // self.problem.options
            costs[spread.options] += times(spread.variances, line.slope * scale, most, up=up)
            options = np.flatnonzero(costs)
            scaled = tuple(range(len(peaks), len(peaks) + len(row.peaks))) if scale > 1 else row.peaks
            if scale > 1:
                peaks += [_larger(peaks[peak], scale) for peak in row.peaks]
            rows[index] = replace(
                row,
                options=options,
                costs=costs[options],
                constant=row.constant * scale + rounded(line.intercept * scale),
                peaks=scaled,
                capacity=None if row.capacity is None else row.capacity * scale,
            )
        if not up and self.best is not None:
            # What is no better than the best found is of no interest.
            objective = self.problem.objective
            wanted = (self.best[0] - 1) * self.scale[objective]
            allowed = rows[objective].capacity
            rows[objective] = replace(rows[objective], capacity=wanted if allowed is None else min(wanted, allowed))
        if box is not None:
            rows += self._interval_rows(box)
        pairs = self.problem.pairs
        if len(pairs.row):
            pairs = replace(pairs, cost=pairs.cost * np.array(self.scale, np.int64)[pairs.row])
        return replace(self.problem, rows=tuple(rows), peaks=tuple(peaks), pairs=pairs)

    def _interval_rows(self, box: _Box) -> Iterable[Row]:
        """Write ``V <= b``, and ``V >= a`` where it is enforced, in a unit in which both are small enough."""
        for axis, index in enumerate(self.binding):
            name = self.problem.rows[index].name
            variances, missing, most, shift = self._shifted(axis)
            if box.high[axis] < self.top[axis]:
                yield _row(f"variance of {name}", variances, box.high[axis] >> shift)
            if axis in box.closed:
                yield _row(f"missing variance of {name}", missing, (most - box.low[axis]) >> shift)

    def _shifted(self, axis: int) -> tuple[Integers, Integers, int, int]:
        """Return each option's variance, what it lacks of its group's greatest, the most there can be, and a shift.

        The first two are divided by two to the power of the shift, rounded down, so that sums of them stay small.
        """
        spread = self._spread(self.binding[axis])
        variances = np.zeros(self.problem.options, np.int64)
        variances[spread.options] = spread.variances
        greatest = np.maximum.reduceat(variances, self.problem.start[:-1])
        most = sum(greatest.tolist())
        shift = max(0, most.bit_length() - _LARGEST.bit_length() + 1)
        return variances >> shift, (greatest[self.groups] - variances) >> shift, most, shift

    def _ends(self, box: _Box) -> Iterable[tuple[int, tuple[int, int]]]:
        return zip(self.binding, zip(box.low, box.high, strict=True), strict=True)

    def _extremes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        least, most = [], []
        for index in self.binding:
            spread = self._spread(index)
            variances = np.zeros(self.problem.options, np.int64)
            variances[spread.options] = spread.variances
            least.append(sum(np.minimum.reduceat(variances, self.problem.start[:-1]).tolist()))
            most.append(sum(np.maximum.reduceat(variances, self.problem.start[:-1]).tolist()))
        return tuple(least), tuple(most)

    def _spread(self, row: int) -> Spread:
        return self.spreads[row]

    def _variance(self, row: int, choices: tuple[int, ...]) -> int:
        spread = self.spreads[row]
        chosen = np.zeros(self.problem.options, np.bool_)
        chosen[self.problem.start[:-1] + np.array(choices, np.int64)] = True
        return sum(spread.variances[chosen[spread.options]].tolist())

    def _consider(self, choices: tuple[int, ...]) -> tuple[int, ...]:
        """Keep a choice if it keeps everything and is better than the best; returns what its rows cost."""
        exact = values(self.problem, choices)
        objective = exact[self.problem.objective]
        if (self.best is None or objective < self.best[0]) and not broken(self.problem, choices):
            self.best = (objective, choices)
            self._tell()
        return exact

    def _is_kept(self, exact: tuple[int, ...]) -> bool:
        rows = zip(self.problem.rows, exact, strict=True)
        return all(row.capacity is None or value <= row.capacity for row, value in rows)

    def _note_bound(self, open_boxes: list[tuple[int, _Box]], unsettled: list[int]) -> None:
        ends = [open_boxes[0][0]] if open_boxes else []
        if self.best is not None:
            ends.append(self.best[0])
        bound = min(ends + unsettled, default=None)
        if bound is not None and (self.bound is None or bound > self.bound):
            self.bound = bound
            self._tell()

    def _tell(self) -> None:
        if self.limits.watch is not None:
            objective = None if self.best is None else self.best[0]
            self.limits.watch(time.perf_counter() - self.begin, objective, self.bound)

    def _is_close(self) -> bool:
        if self.best is None or self.bound is None:
            return False
        return self.best[0] - self.bound <= self.limits.gap * self.best[0]

    def _left(self) -> float:
        return self.limits.time_s - (time.perf_counter() - self.begin)


def _row(name: str, costs: Integers, capacity: int | None) -> Row:
    options = np.flatnonzero(costs)
    return Row(name=name, options=options, costs=costs[options], capacity=capacity)


def _larger(peak: Peak, scale: int) -> Peak:
    return replace(peak, costs=peak.costs * scale)


def _with(entries: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*entries[:place], value, *entries[place + 1 :])
