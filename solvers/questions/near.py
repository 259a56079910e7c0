"""All choices that are best, or nearly so: nobody should be surprised that two solvers choose differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from solvers import glop
from solvers.check import values
from solvers.fixing import Shrunk, too_dear
from solvers.problem import Problem, Row
from solvers.questions.asking import Asking
from solvers.questions.listing import listed
from solvers.reduction import reduce
from solvers.solution import Solution, Status
from solvers.solver import Limits, Solver

__all__ = ["Near", "near"]

_RELAXATION_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Choices that are nearly as good as the best.

    Attributes:
        choices: The choices, the best first; those that cost the same in no particular order.
        objectives: What each of them costs.
        limit: What they cost at most.
        complete: Whether it is proven that no other choice costs that little.
        ranked: Whether it is proven that no choice that is left out is better than one that is there.

    >>> Near(choices=((0,),), objectives=(3,), limit=3, complete=True, ranked=True).objectives
    (3,)
    """

    choices: tuple[tuple[int, ...], ...]
    objectives: tuple[int, ...]
    limit: int | None
    complete: bool
    ranked: bool


def near(
    problem: Problem,
    solver: Solver,
    *,
    within: int = 0,
    share: Fraction | float = 0,
    most: int = 20,
    time_limit_s: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
) -> Near:
    """List the choices whose objective is no more than a little above the least.

    Options with which no choice costs that little are left out by their reduced costs; of the others all combinations
    are listed, group after group, as long as they can still lead to such a choice. Where these are too many the solver
    is asked for the best choice other than those found, again and again.

    Args:
        problem: The problem; of several objectives the first counts.
        solver: An exact solver.
        within: How far above the least a choice may be, in units of the objective.
        share: The same as a share of the least; the larger of the two counts.
        most: How many choices to return at most, the best of them.
        time_limit_s: Wall-clock seconds.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.

    Returns:
        The choices; none where no choice keeps the capacities.

    Raises:
        ValueError: A number is negative, or ``most`` is not 1 or more.
    """
    if within < 0 or share < 0 or most < 1:
        raise ValueError(f"got within {within}, share {share}, most {most}; expected 0, 0 and 1 or more")
    reduction = reduce(replace(problem, then=()))
    if reduction.problem is None:
        return Near(choices=(), objectives=(), limit=None, complete=True, ranked=True)
    ask = Asking(reduction.problem, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    best = ask.solve(reduction.problem)
    if best.choices is None or best.objective is None:
        done = best.status is Status.INFEASIBLE
        return Near(choices=(), objectives=(), limit=None, complete=done, ranked=done)

    def above(least: int) -> int:
        return least + max(within, int(Fraction(share) * least))

    limit = above(best.objective)
    found, reach = _listed(reduction.problem, best, limit)
    if len(found) <= most and reach < limit:
        found, reach = _asked(ask, found, reach, limit, most)
    found.setdefault(best.choices, best.objective)
    # Where the first answer was not the best, what is near is nearer.
    limit = above(min(found.values()))
    order = sorted((c for c, cost in found.items() if cost <= limit), key=lambda choices: (found[choices], choices))
    kept = order[:most]
    return Near(
        choices=tuple(reduction.restore(choices) for choices in kept),
        objectives=tuple(found[choices] for choices in kept),
        limit=limit,
        complete=reach >= limit and len(order) <= most,
        ranked=reach + 1 >= found[kept[-1]],
    )


def _listed(problem: Problem, best: Solution, limit: int) -> tuple[dict[tuple[int, ...], int], int]:
    """List choices that cost at most the limit, and up to which cost the list is complete."""
    prices = best.prices or _prices(problem)
    shrunk = Shrunk.of(problem).without(too_dear(problem, prices, limit))
    if shrunk.problem is None:
        return {}, limit
    choices, reach = listed(shrunk.problem, prices, limit)
    found = {}
    for each in choices:
        full = shrunk.restore(each)
        found[full] = values(problem, full)[problem.objective]
    return found, reach


def _prices(problem: Problem) -> Sequence[float]:
    """Return prices of the capacities from the linear relaxation; what spreads add is left aside."""
    plain = replace(problem, rows=tuple(replace(row, spread=None) for row in problem.rows))
    return glop.solve(plain, Limits(time_s=_RELAXATION_S)).prices or (0.0,) * len(problem.rows)


def _asked(
    ask: Asking, found: dict[tuple[int, ...], int], reach: int, limit: int, most: int
) -> tuple[dict[tuple[int, ...], int], int]:
    """Ask for the best choice other than those found, until there are enough.

    Returns:
        All choices known, and up to which cost there is no other.
    """
    problem = ask.problem
    known = dict(found)
    ruled_out = [_other_than(problem, choices, number) for number, choices in enumerate(known)]
    while len(known) <= most:
        objective = problem.rows[problem.objective]
        allowed = limit if objective.capacity is None else min(limit, objective.capacity)
        rows = [*problem.rows, *ruled_out]
        rows[problem.objective] = replace(objective, capacity=allowed)
        solution = ask.solve(replace(problem, rows=tuple(rows)))
        if solution.status is Status.INFEASIBLE:
            return known, limit
        if solution.choices is None or solution.objective is None:
            break
        known[solution.choices] = solution.objective
        if solution.status is not Status.OPTIMAL:
            break
        reach = solution.objective - 1
        ruled_out.append(_other_than(problem, solution.choices, len(ruled_out)))
    return known, reach


def _other_than(problem: Problem, choices: tuple[int, ...], number: int) -> Row:
    """Write that at least one group chooses otherwise."""
    options = problem.start[:-1] + np.array(choices, np.int64)
    ones = np.ones(problem.groups, np.int64)
    return Row(name=f"other than {number}", options=options, costs=ones, capacity=problem.groups - 1)
