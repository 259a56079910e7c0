"""HiGHS through OR-Tools MathOpt: branch and cut in floating point, its bound less the error it may carry.

Q. Huangfu and J. Hall, Parallelizing the dual revised simplex method, Mathematical Programming Computation 10
(2018).
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from solvers.check import broken, values
from solvers.problem import Peak, Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, needs=("ortools",))
_EXACT = 2**53
_TOLERANCE = 1e-9
_LARGEST_COEFFICIENT = 2**10
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What HiGHS says, in the problem's integers."""

    proven_infeasible: bool
    chosen: tuple[int, ...] | None
    bound: int | None


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with HiGHS, with both its gaps set to zero and its tolerances as tight as it allows.

    Rows are scaled by powers of two, which is exact, so that an absolute tolerance stays far below one unit.
    What the
    tolerances can hide is subtracted from the bound before it is rounded up to an integer: the bound holds,
    and an
    answer is called optimal only where it meets it. An answer that breaks a capacity once it is rounded is
    solved again with that capacity lowered by the excess; the bound stays that of the problem as it was.

    Args:
        problem: The problem.
        limits: How long it may take, its seed and its threads.
        hint: Not used.

    Returns:
        The answer.

    Raises:
        RefusedError: A figure is beyond 2^53, above which floats no longer count exactly.
    """
    _refuse_large(problem)
    deadline = time.perf_counter() + limits.time_s
    capacities = [row.capacity for row in problem.rows]
    bound: int | None = None
    for attempt in range(_ATTEMPTS):
        left = deadline - time.perf_counter()
        if left <= 0:
            break
        answer = _ask(problem.with_capacities(capacities), limits, left)
        if attempt == 0:
            bound = answer.bound
            if answer.proven_infeasible:
                return Solution(status=Status.INFEASIBLE)
        if answer.chosen is None:
            break
        if not broken(problem, answer.chosen):
            objective = values(problem, answer.chosen)[problem.objective]
            bound = None if bound is None else min(bound, objective)
            status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
            return Solution(status=status, choices=answer.chosen, objective=objective, bound=bound)
        for index, value in enumerate(values(problem, answer.chosen)):
            capacity, original = capacities[index], problem.rows[index].capacity
            if capacity is not None and original is not None and value > original:
                capacities[index] = capacity - (value - original)
    return Solution(status=Status.LIMIT, bound=bound)


def _refuse_large(problem: Problem) -> None:
    for row, most in zip(problem.rows, problem.most(), strict=True):
        if most > _EXACT:
            raise RefusedError(f"highs counts exactly up to 2^53; {row.name} could come to {most}")


def _ask(problem: Problem, limits: Limits, seconds: float) -> _Answer:
    from ortools.math_opt.python import mathopt

    model, option, scale = _build(problem)
    parameters = mathopt.SolveParameters(
        time_limit=timedelta(seconds=seconds),
        random_seed=limits.seed,
        relative_gap_tolerance=0.0,
        absolute_gap_tolerance=0.0,
    )
    if limits.workers is not None:
        parameters.highs.int_options["threads"] = limits.workers
    for name in ("mip_feasibility_tolerance", "primal_feasibility_tolerance", "dual_feasibility_tolerance"):
        parameters.highs.double_options[name] = _TOLERANCE
    with _quiet():
        result = mathopt.solve(model, mathopt.SolverType.HIGHS, params=parameters)
    if result.termination.reason == mathopt.TerminationReason.INFEASIBLE:
        return _Answer(proven_infeasible=True, chosen=None, bound=None)
    chosen = None
    if result.has_primal_feasible_solution():
        level = result.variable_values(option)
        start = problem.start.tolist()
        chosen = tuple(
            max(range(first, beyond), key=level.__getitem__) - first for first, beyond in itertools.pairwise(start)
        )
    return _Answer(proven_infeasible=False, chosen=chosen, bound=_bound(problem, result.best_objective_bound(), scale))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what HiGHS writes to the process's standard output, whatever its options say, out of ours."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _bound(problem: Problem, reported: float, scale: int) -> int | None:
    """Turn HiGHS's bound into one that holds: less what tolerances can hide, then up to an integer."""
    if not math.isfinite(reported):
        return None
    columns = problem.options + sum(pair.allowed.size for pair in problem.pairs) + len(problem.peaks)
    hidden = 10 * _TOLERANCE * (1 + columns) + 1e-12 * abs(reported)
    return max(0, math.ceil((reported - hidden) * scale) + problem.rows[problem.objective].constant)


def _scale(coefficients: Iterable[int]) -> int:
    """Return the power of two by which the coefficients are divided so that none is large."""
    largest = max(coefficients, default=0)
    return 1 << max(0, (largest // _LARGEST_COEFFICIENT).bit_length())


def _build(problem: Problem) -> tuple[Any, list[Any], int]:
    """Write the problem for MathOpt; returns the model, the options' variables and the objective's scale."""
    from ortools.math_opt.python import mathopt

    model = mathopt.Model()
    option = [model.add_binary_variable() for _ in range(problem.options)]
    for first, beyond in itertools.pairwise(problem.start.tolist()):
        model.add_linear_constraint(mathopt.fast_sum(option[first:beyond]) == 1.0)
    peak = [_add_peak(problem, model, option, costs) for costs in problem.peaks]
    meeting = [_add_pair(problem, model, option, index) for index in range(len(problem.pairs))]
    objective_scale = 1
    for index, row in enumerate(problem.rows):
        if row.capacity is None and index != problem.objective:
            continue
        terms = [(option[place], cost) for place, cost in zip(row.options.tolist(), row.costs.tolist(), strict=True)]
        terms += [peak[place] for place in row.peaks]
        for pair, met in zip(problem.pairs, meeting, strict=True):
            for matrix in (costs for row_index, costs in pair.costs if row_index == index):
                terms += [(variable, int(matrix[formats])) for formats, variable in met.items()]
        scale = _scale(cost for _, cost in terms)
        total = mathopt.fast_sum((cost / scale) * variable for variable, cost in terms)
        if row.capacity is not None:
            model.add_linear_constraint(total <= (row.capacity - row.constant) / scale)
        if index == problem.objective:
            objective_scale = scale
            model.minimize(total)
    return model, option, objective_scale


def _add_peak(problem: Problem, model: Any, option: list[Any], peak: Peak) -> tuple[Any, int]:
    """Add a variable no less than what any group's choice costs, divided by the scale that is returned."""
    from ortools.math_opt.python import mathopt

    of_option = dict(zip(peak.options.tolist(), peak.costs.tolist(), strict=True))
    scale = _scale(of_option.values())
    highest = model.add_variable(lb=0.0, ub=max(of_option.values(), default=0) / scale)
    for first, beyond in itertools.pairwise(problem.start.tolist()):
        terms = [(of_option[i] / scale) * option[i] for i in range(first, beyond) if of_option.get(i, 0)]
        if terms:
            model.add_linear_constraint(mathopt.fast_sum(terms) <= highest)
    return highest, scale


def _add_pair(problem: Problem, model: Any, option: list[Any], index: int) -> dict[tuple[int, int], Any]:
    """Add one variable for each two formats that may meet, tied to the choices of both sides."""
    from ortools.math_opt.python import mathopt

    pair = problem.pairs[index]
    sides = []
    for group, formats in ((pair.source, pair.source_format), (pair.target, pair.target_format)):
        members: dict[int, list[Any]] = {}
        for place, used in enumerate(formats.tolist()):
            members.setdefault(used, []).append(option[int(problem.start[group]) + place])
        sides.append(members)
    met = {(f, g): model.add_variable(lb=0.0, ub=1.0) for f in sides[0] for g in sides[1] if pair.allowed[f, g]}
    for side, members in enumerate(sides):
        for used, variables in members.items():
            meets = mathopt.fast_sum(variable for formats, variable in met.items() if formats[side] == used)
            model.add_linear_constraint(meets == mathopt.fast_sum(variables))
    return met
