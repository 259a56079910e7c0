"""Fronts: the best answer for each of many capacities, and all answers that no other beats in every row.

The front is found by bounding all rows but one, again and again (epsilon constraint: Y. Haimes, L. Lasdon and D.
Wismer, On a bicriterion formulation of the problems of integrated system identification and system optimization, IEEE
Transactions on Systems, Man, and Cybernetics 1, 1971), for three rows in two nested rounds (M. Özlen and M. Azizoğlu,
Multi-objective integer programming: a general approach for generating all non-dominated solutions, European Journal of
Operational Research 199, 2009). In integers, the next capacity that can change anything is one below what was taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from solvers.problem import Problem
from solvers.questions.answers import Answers
from solvers.questions.asking import Asking
from solvers.reduction import reduce
from solvers.solution import Solution, Status
from solvers.solver import Solver

__all__ = ["Front", "Point", "front", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An answer that no other beats in every row of a front.

    Attributes:
        values: What it costs in each row of the front, the objective first.
        choices: The choice.

    >>> Point(values=(3, 5), choices=(0, 1)).values
    (3, 5)
    """

    values: tuple[int, ...]
    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Answers of which none beats another in every row.

    Attributes:
        points: The answers, by ascending objective.
        complete: Whether it is proven that there are no others, but for choices that cost the same in every row of
            the front.

    >>> Front(points=(), complete=True).complete
    True
    """

    points: tuple[Point, ...]
    complete: bool


def sweep(
    problem: Problem,
    capacities: Sequence[Mapping[int, int | None]],
    solver: Solver,
    *,
    time_limit_s: float = 60.0,
    seed: int = 0,
    workers: int | None = None,
    hint: Sequence[int] | None = None,
) -> tuple[Solution, ...]:
    """Solve a problem under many capacities; each answer helps with the others.

    Args:
        problem: The problem.
        capacities: For each answer, the rows whose capacity is another, and what it is.
        solver: An exact solver.
        time_limit_s: Wall-clock seconds for all of them.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.
        hint: A choice that may be a good one.

    Returns:
        An answer for each, in the order given; what a solver would say by itself, but for which of equals it takes.
    """
    reduction = reduce(problem)
    if reduction.problem is None:
        return (Solution(status=Status.INFEASIBLE),) * len(capacities)
    ask = Asking(reduction.problem, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    answers = Answers(ask)
    start = None if hint is None else reduction.project(hint)
    if start is not None:
        answers.add(start)
    wanted = [_changed(ask.capacities, changes) for changes in capacities]
    unique = sorted(set(wanted), key=lambda each: [float("inf") if c is None else c for c in each], reverse=True)
    for place in _outside_in(len(unique)):
        answers.at(unique[place])

    def restored(solution: Solution) -> Solution:
        choices = solution.choices
        return solution if choices is None else replace(solution, choices=reduction.restore(choices))

    return tuple(restored(answers.at(each)) for each in wanted)


def front(
    problem: Problem,
    rows: Sequence[int],
    solver: Solver,
    *,
    most: int | None = None,
    time_limit_s: float = 60.0,
    seed: int = 0,
    workers: int | None = None,
) -> Front:
    """Find all answers that no other beats in every one of two or three rows.

    Args:
        problem: The problem; its capacities are kept, its own objectives left aside.
        rows: Two or three rows, each to be small.
        solver: An exact solver.
        most: How many points to find at most; None for all.
        time_limit_s: Wall-clock seconds.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.

    Returns:
        The front, as far as the limits allow.

    Raises:
        ValueError: There are not two or three different rows.
    """
    if not 2 <= len(rows) <= 3 or len(set(rows)) < len(rows):
        raise ValueError(f"got the rows {list(rows)}; expected two or three different ones")
    first, *others = rows
    reduction = reduce(replace(problem, objective=first, then=tuple(others)))
    if reduction.problem is None:
        return Front(points=(), complete=True)
    ask = Asking(reduction.problem, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    search = _Search(Answers(ask), tuple(rows), most)
    complete = search.run()
    points = [
        Point(values=taken, choices=reduction.restore(choices)) for taken, choices in sorted(search.found.items())
    ]
    return Front(points=tuple(points) if complete else _undominated(points), complete=complete)


class _Search:
    """Points found so far, by what they cost."""

    def __init__(self, answers: Answers, rows: tuple[int, ...], most: int | None) -> None:
        self.answers = answers
        self.rows = rows
        self.most = most
        self.found: dict[tuple[int, ...], tuple[int, ...]] = {}

    def run(self) -> bool:
        """Look for all points; returns whether none is missing."""
        if len(self.rows) == 2:
            return self._line(self.answers.ask.capacities, self.rows[1]) is not None
        last = self.rows[2]
        capacities = self.answers.ask.capacities
        while True:
            # All points of the first two rows under this capacity of the third; the next one is what they took of it.
            taken = self._line(capacities, self.rows[1])
            if taken is None:
                return False
            if not taken:
                return True
            capacities[last] = max(values[2] for values in taken) - 1

    def _line(self, capacities: list[int | None], row: int) -> list[tuple[int, ...]] | None:
        """Return what the points cost that are found by lowering one capacity; None where it could not be finished."""
        at = list(capacities)
        seen: list[tuple[int, ...]] = []
        while True:
            solution = self.answers.at(at)
            if solution.status is Status.INFEASIBLE:
                return seen
            if solution.status is not Status.OPTIMAL or solution.choices is None:
                return None
            taken = self.answers.taken(solution.choices)
            values = tuple(taken[row] for row in self.rows)
            if values not in self.found and self.most is not None and len(self.found) >= self.most:
                return None
            self.found.setdefault(values, solution.choices)
            seen.append(values)
            at[row] = taken[row] - 1


def _changed(capacities: Sequence[int | None], changes: Mapping[int, int | None]) -> tuple[int | None, ...]:
    return tuple(changes.get(row, capacity) for row, capacity in enumerate(capacities))


def _outside_in(count: int) -> Iterator[int]:
    """Number the ends first, then what is halfway between neighbours, so that each answer lies between known ones."""
    if count:
        yield 0
    if count > 1:
        yield count - 1
    gaps = [(0, count - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            yield middle
            gaps += [(low, middle), (middle, high)]


def _undominated(points: Sequence[Point]) -> tuple[Point, ...]:
    """Leave out points that another one beats: where a front is cut short, some of them may not be beaten later."""
    return tuple(
        point
        for point in points
        if not any(
            other.values != point.values and all(a <= b for a, b in zip(other.values, point.values, strict=True))
            for other in points
        )
    )
