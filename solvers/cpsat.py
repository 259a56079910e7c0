"""CP-SAT of OR-Tools: integers throughout, so that optimal means optimal.

L. Perron and F. Didier, CP-SAT, Google OR-Tools 9.15.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solvers.check import broken, values
from solvers.problem import Peak, Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, hints=True, needs=("ortools",))
_WHOLE_PORTFOLIO = 8
"""From this number of threads on, CP-SAT's own choice of strategies has one that relies on the relaxation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A problem in CP-SAT's terms: the model, its variables, and which of them is what."""

    model: Any
    option: list[Any]
    peak: list[Any]
    meeting: list[dict[tuple[int, int], Any]]


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with CP-SAT, with both its gaps set to zero.

    Args:
        problem: The problem.
        limits: How long it may take, its seed and its threads.
        hint: A choice to start from; it is completed with every auxiliary variable, and left out where it
            breaks a capacity, because incomplete hints cost more than they bring.

    Returns:
        The answer; the bound is the solver's own, in the problem's integers.
    """
    from ortools.sat.python import cp_model

    built = _build(problem)
    if hint is not None and not broken(problem, hint):
        _add_hint(problem, built, hint)
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.max_time_in_seconds = limits.time_s
    parameters.random_seed = limits.seed
    workers = limits.workers or _threads()
    parameters.num_workers = workers
    if workers == 1:
        parameters.linearization_level = 2
    elif workers < _WHOLE_PORTFOLIO:
        # The relaxation is what proves these problems. With few threads CP-SAT's own choice leaves out those
        # strategies that make the most of it: 200 layers of 12 choices then take up to 20 s instead of 0.4 s.
        parameters.subsolvers.extend(["max_lp", "reduced_costs"])
    parameters.relative_gap_limit = 0.0
    parameters.absolute_gap_limit = 0.0
    status = solver.solve(built.model)
    if status == cp_model.INFEASIBLE:
        return Solution(status=Status.INFEASIBLE)
    if status == cp_model.MODEL_INVALID:
        raise ValueError(f"CP-SAT refuses the model: {built.model.validate()}")
    reported = solver.best_objective_bound
    bound = max(0, math.ceil(reported - 0.5)) if math.isfinite(reported) else None
    if status == cp_model.UNKNOWN:
        return Solution(status=Status.LIMIT, bound=bound)
    start = problem.start.tolist()
    chosen = tuple(
        next(option - first for option in range(first, beyond) if solver.boolean_value(built.option[option]))
        for first, beyond in itertools.pairwise(start)
    )
    objective = values(problem, chosen)[problem.objective]
    bound = None if bound is None else min(bound, objective)
    proven = Status.OPTIMAL if bound == objective else Status.FEASIBLE
    return Solution(status=proven, choices=chosen, objective=objective, bound=bound)


def _threads() -> int:
    """Return the number of threads this process may use at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build(problem: Problem) -> _Model:
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    option = [model.new_bool_var("") for _ in range(problem.options)]
    start = problem.start.tolist()
    for first, beyond in itertools.pairwise(start):
        model.add_exactly_one(option[first:beyond])
    peak = [_add_peak(problem, model, option, terms_of) for terms_of in problem.peaks]
    meeting = [_add_pair(problem, model, option, index) for index in range(len(problem.pairs))]
    for index, row in enumerate(problem.rows):
        if row.capacity is None and index != problem.objective:
            continue
        variables = [option[i] for i in row.options.tolist()] + [peak[i] for i in row.peaks]
        weights = row.costs.tolist() + [1] * len(row.peaks)
        for pair, met in zip(problem.pairs, meeting, strict=True):
            for costs in (matrix for row_index, matrix in pair.costs if row_index == index):
                variables += met.values()
                weights += [int(costs[formats]) for formats in met]
        total = cp_model.LinearExpr.weighted_sum(variables, weights)
        if row.capacity is not None:
            model.add(total <= max(-1, min(row.capacity - row.constant, 2**62)))
        if index == problem.objective:
            model.minimize(total + row.constant)
    return _Model(model=model, option=option, peak=peak, meeting=meeting)


def _add_peak(problem: Problem, model: Any, option: list[Any], peak: Peak) -> Any:
    """Add a variable that is no less than what the choices cost together in any step."""
    from ortools.sat.python import cp_model

    steps: dict[int, tuple[list[Any], list[int]]] = {}
    for step, index, cost in zip(
        *(a.tolist() for a in (problem.steps_of(peak), peak.options, peak.costs)), strict=True
    ):
        variables, weights = steps.setdefault(step, ([], []))
        variables.append(option[index])
        weights.append(cost)
    highest = model.new_int_var(0, max((sum(weights) for _, weights in steps.values()), default=0), "")
    for variables, weights in steps.values():
        model.add(highest >= cp_model.LinearExpr.weighted_sum(variables, weights))
    return highest


def _add_pair(problem: Problem, model: Any, option: list[Any], index: int) -> dict[tuple[int, int], Any]:
    """Add one variable for each two formats that may meet, tied to the choices of both sides."""
    pair = problem.pairs[index]
    sides = []
    for group, formats in ((pair.source, pair.source_format), (pair.target, pair.target_format)):
        first = int(problem.start[group])
        members: dict[int, list[Any]] = {}
        for place, used in enumerate(formats.tolist()):
            members.setdefault(used, []).append(option[first + place])
        sides.append(members)
    met = {(f, g): model.new_bool_var("") for f in sides[0] for g in sides[1] if pair.allowed[f, g]}
    for f, writers in sides[0].items():
        model.add(sum(var for (source, _), var in met.items() if source == f) == sum(writers))
    for g, readers in sides[1].items():
        model.add(sum(var for (_, target), var in met.items() if target == g) == sum(readers))
    return met


def _add_hint(problem: Problem, built: _Model, hint: Sequence[int]) -> None:
    start = problem.start.tolist()
    chosen = {first + choice for first, choice in zip(start[:-1], hint, strict=True)}
    for index, variable in enumerate(built.option):
        built.model.add_hint(variable, int(index in chosen))
    for costs, variable in zip(problem.peaks, built.peak, strict=True):
        terms = zip(costs.options.tolist(), costs.costs.tolist(), strict=True)
        built.model.add_hint(variable, max((cost for index, cost in terms if index in chosen), default=0))
    for pair, met in zip(problem.pairs, built.meeting, strict=True):
        formats = (int(pair.source_format[hint[pair.source]]), int(pair.target_format[hint[pair.target]]))
        for key, variable in met.items():
            built.model.add_hint(variable, int(key == formats))
