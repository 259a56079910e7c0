"""Ask one solver many things about one problem, within one time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from solvers.pairs import Pairs
from solvers.problem import Problem, Row
from solvers.solution import Solution, Status
from solvers.solver import Solver

__all__ = ["Asking", "some_pairs"]

_LEAST_CALL_S = 0.01


class Asking:
    """A problem, the solver it is put to, and the time in which all questions about it must be answered."""

    def __init__(
        self, problem: Problem, solver: Solver, *, time_limit_s: float, seed: int = 0, workers: int | None = None
    ) -> None:
        """Start the time.

        Args:
            problem: What is asked about.
            solver: Who is asked.
            time_limit_s: Wall-clock seconds for all questions together.
            seed: Seed of the solver.
            workers: Threads; None takes those the machine has.
        """
        self.problem = problem
        self.solver = solver
        self.deadline = time.perf_counter() + time_limit_s
        self.seed = seed
        self.workers = workers

    @property
    def left_s(self) -> float:
        """Seconds left for all questions to come."""
        return self.deadline - time.perf_counter()

    @property
    def capacities(self) -> list[int | None]:
        """The problem's own capacities, one for each row."""
        return [row.capacity for row in self.problem.rows]

    def kept(self, rows: Sequence[int]) -> list[int | None]:
        """Return the capacities of some rows, none for the others."""
        return [capacity if row in rows else None for row, capacity in enumerate(self.capacities)]

    def solve(self, problem: Problem, hint: Sequence[int] | None = None) -> Solution:
        """Solve in the time that is left; without any left, nothing is known."""
        left = self.left_s
        if left < _LEAST_CALL_S:
            return Solution(status=Status.LIMIT)
        return self.solver.solve(problem, time_limit_s=left, seed=self.seed, workers=self.workers, hint=hint)

    def least(self, row: int, capacities: Sequence[int | None], hint: Sequence[int] | None = None) -> Solution:
        """Minimise a row within capacities, one for each row."""
        return self.solve(self.problem.with_capacities(capacities, objective=row), hint)

    def feasible(self, problem: Problem, capacities: Sequence[int | None]) -> Solution:
        """Look for any choice within capacities."""
        bound = problem.with_capacities(capacities)
        nothing = Row(name="nothing", options=np.zeros(0, np.int64), costs=np.zeros(0, np.int64))
        return self.solve(replace(bound, rows=(*bound.rows, nothing), objective=len(bound.rows), then=()))

    def least_alone(self, row: int) -> Solution:
        """Minimise a row with nothing bound; without a solver where every group can be looked at by itself."""
        entry, problem = self.problem.rows[row], self.problem
        if entry.peaks or entry.spread is not None or problem.pairs or problem.ties or len(problem.forbidden):
            return self.least(row, [None] * len(problem.rows))
        costs = problem.dense(entry.options, entry.costs)
        best = [int(part.argmin()) for part in np.split(costs, problem.start[1:-1])]
        value = entry.constant + int(np.minimum.reduceat(costs, problem.start[:-1]).sum())
        return Solution(status=Status.OPTIMAL, choices=tuple(best), objective=value, bound=value)


def some_pairs(pairs: Pairs, left: np.ndarray) -> Pairs:
    """Return some of the pairs.

    Args:
        pairs: The pairs.
        left: Whether each is kept, ``(pairs,)``.
    """
    if bool(left.all()):
        return pairs
    sizes = np.diff(pairs.cell_start)
    cells = np.repeat(left, sizes)
    terms = cells[pairs.cell]

    def starts(counts: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(counts[left])]).astype(np.int64)

    sources, targets = np.diff(pairs.source_start), np.diff(pairs.target_start)
    return Pairs(
        source=pairs.source[left],
        target=pairs.target[left],
        source_start=starts(sources),
        source_format=pairs.source_format[np.repeat(left, sources)],
        target_start=starts(targets),
        target_format=pairs.target_format[np.repeat(left, targets)],
        cell_start=starts(sizes),
        columns=pairs.columns[left],
        allowed=pairs.allowed[cells],
        row=pairs.row[terms],
        cell=(np.cumsum(cells) - 1)[pairs.cell[terms]],
        cost=pairs.cost[terms],
    )
