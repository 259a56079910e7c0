"""CP-SAT of OR-Tools: integers throughout, so that optimal means optimal.

L. Perron and F. Didier, CP-SAT, Google OR-Tools 9.15.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from solvers.check import values
from solvers.linear import LinearForm, linear_form
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError
from solvers.start import no_worse, usable

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, hints=True, deterministic=True, traces=True, needs=("ortools",))
_WHOLE_PORTFOLIO = 8
"""From this number of threads on, CP-SAT's own choice of strategies has one that relies on the relaxation."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with CP-SAT, its absolute gap set to zero.

    Args:
        problem: The problem.
        limits: How long it may take, its seed, its threads and its gap; ``work`` is CP-SAT's deterministic time, and
            without a number of threads it then takes one, so that machines agree.
        hint: A choice to start from; it is completed with every auxiliary variable, and left out where it
            breaks a capacity, because incomplete hints cost more than they bring.

    Returns:
        The answer; the bound is the solver's own, in the problem's integers.

    Raises:
        RefusedError: Sums could leave 64 bits.
    """
    from ortools.sat.python import cp_model

    begin = time.perf_counter()
    form = linear_form(problem)
    if form.impossible():
        return Solution(status=Status.INFEASIBLE)
    model = cp_model.CpModel()
    _write(model.proto, form)
    start = usable(problem, hint)
    if start is not None:
        model.proto.solution_hint.vars.extend(range(len(form.objective)))
        model.proto.solution_hint.values.extend(form.columns(start).tolist())
    solver = cp_model.CpSolver()
    _set(solver.parameters, limits, max(1e-3, limits.time_s - (time.perf_counter() - begin)))
    status = solver.solve(model, _watching(solver, form, limits, begin))
    if status == cp_model.INFEASIBLE:
        return Solution(status=Status.INFEASIBLE)
    if status == cp_model.MODEL_INVALID:
        raise RefusedError(f"cpsat refuses the model: {model.validate()}")
    response = solver.response_proto
    # Nothing is known before the first bound was found; the response then says the least of 64 bits.
    bound = max(form.floor(), form.offset + max(0, response.inner_objective_lower_bound))
    if status == cp_model.UNKNOWN:
        return no_worse(problem, Solution(status=Status.LIMIT, bound=bound), start)
    chosen = form.choices(np.array(response.solution, np.float64))
    objective = values(problem, chosen)[problem.objective]
    bound = min(bound, objective)
    proven = Status.OPTIMAL if bound == objective else Status.FEASIBLE
    return Solution(status=proven, choices=chosen, objective=objective, bound=bound)


def _set(parameters: Any, limits: Limits, seconds: float) -> None:
    workers = limits.threads if limits.work is None else limits.workers or 1
    parameters.max_time_in_seconds = seconds
    parameters.random_seed = limits.seed
    parameters.num_workers = workers
    parameters.relative_gap_limit = limits.gap
    parameters.absolute_gap_limit = 0.0
    # With it, presolve of OR-Tools 9.15 took some problems of large peaks for infeasible, or proved a choice that was
    # not the best: tests/test_backends.py has one.
    parameters.symmetry_level = 0
    if limits.work is not None:
        parameters.max_deterministic_time = limits.work
        # Threads otherwise tell each other what they found as soon as they found it, which no two runs do alike.
        parameters.interleave_search = workers > 1
    if workers < _WHOLE_PORTFOLIO:
        # One knapsack over all groups has few cuts that are worth their time: without them 200 layers of 12 choices
        # take two thirds of it on one thread, networks with pairs and peaks a third, and two threads a fifth.
        parameters.cut_level = 0
    if workers == 1:
        parameters.linearization_level = 2
    elif workers < _WHOLE_PORTFOLIO:
        # The relaxation is what proves these problems. With few threads CP-SAT's own choice leaves out those
        # strategies that make the most of it: 200 layers of 12 choices then take up to 20 s instead of 0.4 s.
        parameters.subsolvers.extend(["max_lp", "reduced_costs"])


def _write(proto: Any, form: LinearForm) -> None:
    """Fill CP-SAT's own message; its model object would take each variable through Python expressions."""
    for least, most in zip(form.least.tolist(), form.most.tolist(), strict=True):
        proto.variables.add().domain.extend((least, most))
    ends, columns, costs = form.matrix.indptr.tolist(), form.matrix.indices.tolist(), form.matrix.data.tolist()
    nothing = int(np.iinfo(np.int64).min)
    for constraint, (upper, equal) in enumerate(zip(form.upper.tolist(), form.equal.tolist(), strict=True)):
        terms = slice(ends[constraint], ends[constraint + 1])
        if constraint < form.problem.groups:
            proto.constraints.add().exactly_one.literals.extend(columns[terms])
            continue
        linear = proto.constraints.add().linear
        linear.vars.extend(columns[terms])
        linear.coeffs.extend(costs[terms])
        linear.domain.extend((upper if equal else nothing, upper))
    priced = np.flatnonzero(form.objective)
    proto.objective.vars.extend(priced.tolist())
    proto.objective.coeffs.extend(form.objective[priced].tolist())


def _watching(solver: Any, form: LinearForm, limits: Limits, begin: float) -> Any:
    """Return what CP-SAT calls with every better choice, and have it tell of every better bound too."""
    if limits.watch is None:
        return None
    from ortools.sat.python import cp_model

    watch = limits.watch
    best: int | None = None
    proven = form.floor()

    def tell(objective: float | None, bound: float) -> None:
        nonlocal best, proven
        if objective is not None:
            best = form.offset + round(objective)
        if math.isfinite(bound):
            proven = max(proven, form.offset + math.ceil(bound - 0.5))
        watch(time.perf_counter() - begin, best, proven if best is None else min(best, proven))

    class Found(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            tell(self.objective_value, self.best_objective_bound)

    solver.best_bound_callback = lambda bound: tell(None, bound)
    return Found()
