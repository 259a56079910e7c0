"""Why no choice keeps all capacities: which of them conflict, which groups force it, and what must give way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from solvers.check import values
from solvers.problem import Problem, Row
from solvers.questions.asking import Asking
from solvers.questions.forcing import forcing
from solvers.questions.subset import least_subset
from solvers.reduction import reduce
from solvers.solution import Solution, Status
from solvers.solver import Solver

__all__ = ["Conflict", "Need", "conflict"]

_RESOLUTION = Fraction(1, 10_000)
_LARGEST_FACTOR = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one row would have to be allowed.

    Attributes:
        row: The row.
        capacity: What it is allowed.
        alone: The least there is where nothing else is bound; None where the time ended first.
        given_others: The least there is where all other capacities are kept; None where there is none, or where the
            time ended first.
        settled: Whether ``given_others`` is known; with None, that raising this capacity alone does not help.

    >>> Need(row=1, capacity=5, alone=4, given_others=6, settled=True).alone
    4
    """

    row: int
    capacity: int
    alone: int | None
    given_others: int | None
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Why there is no choice.

    Attributes:
        rows: Rows whose capacities cannot be kept together; empty where there is no choice whatever is allowed.
        minimal: Whether it is proven that without any one of them the others can be kept.
        groups: Groups that by themselves, all others costing nothing and meeting nobody, cannot keep those capacities.
        groups_minimal: Whether it is proven that without any one of them the others could.
        needs: For each row that is bound, what it would have to be allowed.
        least: The least of each row that was asked for and of each that is bound, with nothing else bound.
        uniform: By what all capacities would have to be multiplied, at the least: a factor that is known to be enough,
            within one in ten thousand of the least unless the time ended first; None where none is known.

    >>> Conflict(
    ...     rows=(1,), minimal=True, groups=(0,), groups_minimal=True, needs=(), least={1: 4}, uniform=Fraction(4, 3)
    ... ).rows
    (1,)
    """

    rows: tuple[int, ...]
    minimal: bool
    groups: tuple[int, ...]
    groups_minimal: bool
    needs: tuple[Need, ...]
    least: dict[int, int]
    uniform: Fraction | None


def conflict(
    problem: Problem,
    solver: Solver,
    *,
    also: Iterable[int] = (),
    time_limit_s: float = 10.0,
    seed: int = 0,
    workers: int | None = None,
) -> Conflict:
    """Find out why a problem that is proven infeasible is so.

    A row whose least is above its capacity is a conflict by itself. Otherwise rows are left out by halves while what is
    left cannot be kept (`least_subset`); the same is done with the groups.

    Args:
        problem: The infeasible problem.
        solver: An exact solver.
        also: Further rows whose least is wanted.
        time_limit_s: Seconds for all of it; what is not settled by then says so.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.

    Returns:
        The conflict.

    Raises:
        ValueError: A choice keeps all capacities.
    """
    reduction = reduce(problem)
    if reduction.problem is None:
        return Conflict(
            rows=(),
            minimal=True,
            groups=_without_options(problem),
            groups_minimal=True,
            needs=(),
            least={},
            uniform=None,
        )
    ask = Asking(reduction.problem, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    bound = list(reduction.problem.bound_rows)
    alone = {}
    for row in sorted({*bound, *also}):
        solution = ask.least_alone(row)
        if solution.status is Status.OPTIMAL and solution.objective is not None:
            alone[row] = solution.objective
    rows, minimal = _rows(ask, bound, alone)
    needs, reached = _needs(ask, bound, alone)
    if any(need.given_others is not None and need.given_others <= need.capacity for need in needs):
        raise ValueError("a choice keeps all capacities: there is no conflict to explain")
    uniform = _uniform(ask, bound, reached) if rows else None
    groups, groups_minimal = forcing(ask, rows)
    return Conflict(
        rows=rows,
        minimal=minimal,
        groups=tuple(np.flatnonzero(np.isin(reduction.group, groups)).tolist()),
        groups_minimal=groups_minimal,
        needs=needs,
        least=alone,
        uniform=uniform,
    )


def _without_options(problem: Problem) -> tuple[int, ...]:
    """Return the groups of the first group, or tie, that is left no option by what is forbidden."""
    for tie in (*problem.ties, *(np.array([group]) for group in range(problem.groups))):
        others = np.flatnonzero(~np.isin(np.arange(problem.groups), tie))
        spared = np.isin(problem.group[problem.forbidden], others)
        alone = replace(problem, forbidden=problem.forbidden[~spared])
        if reduce(alone).problem is None:
            return tuple(tie.tolist())
    return tuple(range(problem.groups))


def _rows(ask: Asking, bound: Sequence[int], alone: dict[int, int]) -> tuple[tuple[int, ...], bool]:
    """Return rows that cannot be kept together, and whether it is proven that any fewer can be."""
    rows = ask.problem.rows
    over = {row: Fraction(alone[row] + 1, max(1, _capacity(rows[row]) + 1)) for row in bound if row in alone}
    beyond = [row for row in bound if row in alone and alone[row] > _capacity(rows[row])]
    if beyond:
        worst = max(beyond, key=lambda row: over[row])
        minimal = ask.feasible(ask.problem, ask.kept(())).status
        # Where the formats of the options exclude each other there is no choice whatever is allowed.
        return ((), True) if minimal is Status.INFEASIBLE else ((worst,), minimal is not Status.LIMIT)

    def keeps(kept: Sequence[int]) -> Status:
        return ask.feasible(ask.problem, ask.kept(kept)).status

    found = least_subset(sorted(bound, key=lambda row: over.get(row, Fraction(0)), reverse=True), keeps)
    return tuple(sorted(found.items)), found.minimal


def _needs(ask: Asking, bound: Sequence[int], alone: dict[int, int]) -> tuple[tuple[Need, ...], list[tuple[int, ...]]]:
    """Return what each row would have to be allowed, and the choices found on the way."""
    needs, reached = [], []
    for row in bound:
        given = ask.least(row, ask.kept([other for other in bound if other != row]))
        if given.choices is not None:
            reached.append(given.choices)
        needs.append(
            Need(
                row=row,
                capacity=_capacity(ask.problem.rows[row]),
                alone=alone.get(row),
                given_others=given.objective if given.status is Status.OPTIMAL else None,
                settled=given.status in (Status.OPTIMAL, Status.INFEASIBLE),
            )
        )
    return tuple(needs), reached


def _uniform(ask: Asking, bound: Sequence[int], reached: Sequence[tuple[int, ...]]) -> Fraction | None:
    """Return the least factor by which all capacities together must grow, by halving."""
    factors = [_factor(ask.problem, bound, choices) for choices in reached]
    high = min((factor for factor in factors if factor is not None), default=None)
    low, trial = Fraction(1), Fraction(2)
    while high is None and trial < _LARGEST_FACTOR:
        solution = _multiplied(ask, bound, trial)
        if solution.status is Status.LIMIT:
            return None
        if solution.choices is None:
            low = trial
        else:
            high = _factor(ask.problem, bound, solution.choices)
        trial *= 4
    while high is not None and high > low * (1 + _RESOLUTION):
        middle = (low + high) / 2
        solution = _multiplied(ask, bound, middle)
        if solution.status is Status.LIMIT:
            break
        if solution.choices is None:
            low = middle
        else:
            high = min(high, _factor(ask.problem, bound, solution.choices) or high)
    return high


def _multiplied(ask: Asking, bound: Sequence[int], factor: Fraction) -> Solution:
    """Look for a choice that keeps all capacities multiplied by a factor."""
    kept = ask.kept(bound)
    return ask.feasible(ask.problem, [None if capacity is None else int(capacity * factor) for capacity in kept])


def _factor(problem: Problem, bound: Sequence[int], choices: Sequence[int]) -> Fraction | None:
    """Return by what the capacities must be multiplied so that a choice keeps them; None where nothing is enough."""
    taken = values(problem, choices)
    ratios = []
    for row in bound:
        capacity = _capacity(problem.rows[row])
        if capacity <= 0:
            return None
        ratios.append(Fraction(taken[row], capacity))
    return max(ratios)


def _capacity(row: Row) -> int:
    if row.capacity is None:
        raise ValueError(f"{row.name} has no capacity")
    return row.capacity
