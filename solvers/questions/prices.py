"""What a capacity is worth near where it is: the price of the relaxation, and the next steps of exact answers.

The best objective is a staircase in each capacity. The relaxation smooths it: its slope is a price for each unit, which
holds over a stretch of capacities and nowhere else. The steps themselves are exact: the least capacity under which the
present objective is still reached is the least of that row among all choices that cost no more than it, and the
capacity at which the objective next improves is the least of that row among those that cost less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from solvers.problem import Problem
from solvers.questions.answers import Answers
from solvers.questions.asking import Asking
from solvers.questions.relaxed import Relaxed, Stretch
from solvers.reduction import reduce
from solvers.solution import Solution, Status
from solvers.solver import Solver

__all__ = ["RowPrice", "prices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPrice:
    """What a capacity is worth near where it is, all others staying as they are.

    Attributes:
        row: The row.
        capacity: What it is allowed.
        optimum: The least objective.
        least: The least capacity under which there is any choice.
        holds_from: The least capacity under which the least objective is what it is.
        worsened: The least objective with one unit less than that; None where there is no choice.
        improves_at: The least capacity under which the least objective is lower; None where there is none.
        improved: The least objective there.
        relaxed: What a unit is worth in the linear relaxation, and the capacities over which it is so much; None where
            rows have a spread.
        settled: Whether all of this is proven; otherwise what the time left open is None.

    >>> RowPrice(
    ...     row=1,
    ...     capacity=5,
    ...     optimum=7,
    ...     least=3,
    ...     holds_from=4,
    ...     worsened=9,
    ...     improves_at=6,
    ...     improved=5,
    ...     relaxed=Stretch(price=1.5, low=4.0, high=5.5),
    ...     settled=True,
    ... ).improves_at
    6
    """

    row: int
    capacity: int
    optimum: int
    least: int | None
    holds_from: int | None
    worsened: int | None
    improves_at: int | None
    improved: int | None
    relaxed: Stretch | None
    settled: bool


def prices(
    problem: Problem,
    solver: Solver,
    *,
    rows: Sequence[int] | None = None,
    time_limit_s: float = 60.0,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[RowPrice, ...]:
    """Find out what each capacity is worth near where it is.

    Args:
        problem: The problem; of several objectives the first counts.
        solver: An exact solver.
        rows: The rows whose capacity is asked about; None for all that have one.
        time_limit_s: Wall-clock seconds for all of it.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.

    Returns:
        One answer for each row; none where no choice keeps the capacities, or none was proven best in time.

    Raises:
        ValueError: A row has no capacity, or is the objective.
    """
    wanted = problem.bound_rows if rows is None else tuple(rows)
    if rows is None:
        wanted = tuple(row for row in wanted if row != problem.objective)
    for row in wanted:
        if problem.rows[row].capacity is None or row == problem.objective:
            raise ValueError(f"row {row} has no capacity to put a price on, or is the objective")
    reduction = reduce(replace(problem, then=()))
    if reduction.problem is None:
        return ()
    ask = Asking(reduction.problem, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    answers = Answers(ask)
    here = answers.at(ask.capacities)
    if here.status is not Status.OPTIMAL or here.objective is None:
        return ()
    return tuple(_Steps(answers, here, here.objective).of(row) for row in wanted)


class _Steps:
    """The steps of one capacity around where it is."""

    def __init__(self, answers: Answers, here: Solution, optimum: int) -> None:
        self.answers = answers
        self.ask = answers.ask
        self.here = here
        self.optimum = optimum
        self.settled = True

    def of(self, row: int) -> RowPrice:
        """Look at one row."""
        problem = self.ask.problem
        least = self._least(row, None)
        holds_from = self._least(row, self.optimum)
        improves_at = self._least(row, self.optimum - 1)
        improved = None if improves_at is None else self._objective(row, improves_at)
        below = holds_from is not None and least is not None and holds_from > least
        worsened = self._objective(row, holds_from - 1) if below and holds_from is not None else None
        capacity = problem.rows[row].capacity or 0
        relaxed = None
        if all(entry.spread is None for entry in problem.rows) and self.ask.left_s > 0:
            relaxation = Relaxed(problem, row, time_limit_s=self.ask.left_s)
            relaxed = relaxation.stretch(float(capacity), float(capacity if least is None else least))
        return RowPrice(
            row=row,
            capacity=capacity,
            optimum=self.optimum,
            least=least,
            holds_from=holds_from,
            worsened=worsened,
            improves_at=improves_at,
            improved=improved,
            relaxed=relaxed,
            settled=self.settled,
        )

    def _least(self, row: int, objective: int | None) -> int | None:
        """Return the least of a row among choices whose objective is no greater; None where there are none."""
        capacities = self.ask.capacities
        capacities[row] = None
        index = self.ask.problem.objective
        own = capacities[index]
        if objective is not None:
            if objective < 0:
                return None
            capacities[index] = objective if own is None else min(objective, own)
        hint = self.here.choices if objective is None or objective >= self.optimum else None
        solution = self.ask.least(row, capacities, hint)
        self.settled = self.settled and solution.status in (Status.OPTIMAL, Status.INFEASIBLE)
        return solution.objective if solution.status is Status.OPTIMAL else None

    def _objective(self, row: int, capacity: int) -> int | None:
        capacities = self.ask.capacities
        capacities[row] = capacity
        solution = self.answers.at(capacities)
        self.settled = self.settled and solution.status in (Status.OPTIMAL, Status.INFEASIBLE)
        return solution.objective if solution.status is Status.OPTIMAL else None
