"""Hand a form to the solvers of OR-Tools MathOpt, in arrays rather than variable by variable.

MathOpt's own model object would copy a form of 10^5 groups for seconds, and its answer for as long; so the message
that it sends to its solvers is filled here, and the one that comes back is read here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from solvers.floating import Attempt, FloatForm, Floats, solve_in_floats
from solvers.problem import Problem
from solvers.quiet import quiet
from solvers.solution import Solution
from solvers.solver import Limits
from solvers.start import no_worse, usable

__all__ = ["Reply", "model_message", "read_reply", "run", "solve_whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a solver of MathOpt answers.

    Attributes:
        infeasible: It says that nothing keeps all constraints.
        values: The value of each column, ``(columns,)``; None without any.
        duals: What a unit of each constraint is worth, ``(constraints,)``; None without any.
        bound: Its bound on the scaled objective; minus infinity without any.
    """

    infeasible: bool
    values: Floats | None
    duals: Floats | None
    bound: float


def run(
    form: FloatForm,
    solver: str,
    *,
    limits: Limits,
    seconds: float,
    whole: bool = True,
    hint: Sequence[int] | None = None,
    **settings: Any,
) -> Reply:
    """Solve a form.

    Args:
        form: The form.
        solver: The name of the solver, as ``mathopt.SolverType`` has it.
        limits: Its seed and its gap.
        seconds: How long it may take.
        whole: Whether options are whole; otherwise the linear relaxation is solved.
        hint: A choice to start from.
        settings: Whatever else ``mathopt.SolveParameters`` takes, or takes instead.

    Returns:
        What it says, as the form is scaled.

    Raises:
        RuntimeError: The solver refuses the form or fails.
    """
    from ortools.math_opt.core.python import solver as core
    from ortools.math_opt.python import mathopt
    from pybind11_abseil.status import StatusNotOk

    common: dict[str, Any] = {"time_limit": timedelta(seconds=seconds), "random_seed": limits.seed}
    if whole:
        common |= {"relative_gap_tolerance": limits.gap, "absolute_gap_tolerance": 0.0}
    parameters = mathopt.SolveParameters(**(common | settings))
    more = mathopt.ModelSolveParameters().to_proto()
    if hint is not None:
        # What a hint leaves out is not 0 but unknown.
        values = more.solution_hints.add().variable_values
        values.ids.extend(range(len(form.objective)))
        values.values.extend(form.columns(hint))

    def ask() -> Any:
        return core.solve(
            model_message(form, whole=whole),
            mathopt.SolverType[solver].value,
            mathopt.StreamableSolverInitArguments().to_proto(),
            parameters.to_proto(),
            more,
            None,
            mathopt.CallbackRegistration().to_proto(),
            None,
            None,
        )

    # HiGHS keeps the number of threads that it first ran with for as long as the thread lives that ran it, and fails
    # where it is then asked for another; so each run has a thread of its own.
    try:
        with quiet() if solver == "HIGHS" else nullcontext(), ThreadPoolExecutor(1) as apart:
            answer = apart.submit(ask).result()
    except StatusNotOk as error:
        raise RuntimeError(f"{solver} fails: {error}") from None
    return read_reply(form, answer, whole=whole)


def solve_whole(
    problem: Problem,
    limits: Limits,
    hint: Sequence[int] | None,
    *,
    solver: str,
    tolerance: float,
    relative: float,
    **settings: Any,
) -> Solution:
    """Solve a problem with one of the solvers of mixed-integer programs.

    Args:
        problem: The problem.
        limits: How long it may take, its seed and its gap; ``work`` counts nodes of the search tree.
        hint: A choice to start from; left out where it breaks a capacity.
        solver: The name of the solver, as ``mathopt.SolverType`` has it.
        tolerance: What it may violate a reduced cost or a cutoff by, as the form is scaled.
        relative: What its bound may be wrong by, as a share of it.
        settings: Whatever else ``mathopt.SolveParameters`` takes.

    Returns:
        The answer, of which nothing is taken that does not hold in integers.
    """
    deadline = time.perf_counter() + limits.time_s
    if limits.work is not None:
        settings["node_limit"] = max(1, round(limits.work))
    start = usable(problem, hint)

    def ask(form: FloatForm, seconds: float) -> Attempt:
        # Where a capacity was lowered, the hint may break it.
        kept = usable(form.exact.problem, start)
        reply = run(form, solver, limits=limits, seconds=seconds, hint=kept, **settings)
        return Attempt(infeasible=reply.infeasible, values=reply.values, bound=reply.bound)

    found = solve_in_floats(
        problem, lambda: deadline - time.perf_counter(), ask, tolerance=tolerance, relative=relative
    )
    return no_worse(problem, found, start)


def model_message(form: FloatForm, *, whole: bool) -> Any:
    """Write a form as the message that MathOpt's solvers take; constraints and columns keep their numbers.

    Args:
        form: The form.
        whole: Whether options are whole.
    """
    from ortools.math_opt import model_pb2

    model = model_pb2.ModelProto()
    columns, constraints = len(form.objective), len(form.upper)
    model.variables.ids.extend(range(columns))
    model.variables.lower_bounds.extend(form.least)
    model.variables.upper_bounds.extend(form.most)
    model.variables.integers.extend((form.whole & whole).tolist())
    model.linear_constraints.ids.extend(range(constraints))
    model.linear_constraints.lower_bounds.extend(form.lower)
    model.linear_constraints.upper_bounds.extend(form.upper)
    matrix = model.linear_constraint_matrix
    matrix.row_ids.extend(np.repeat(np.arange(constraints), np.diff(form.matrix.indptr)))
    matrix.column_ids.extend(form.matrix.indices)
    matrix.coefficients.extend(form.matrix.data)
    _fill(model.objective.linear_coefficients, form.objective)
    return model


def _fill(vector: Any, values: Floats) -> None:
    """Fill a sparse vector with all that is not nothing; what it leaves out is 0."""
    ids = np.flatnonzero(values)
    vector.ids.extend(ids)
    vector.values.extend(values[ids])


def _dense(vector: Any, length: int) -> Floats:
    values = np.zeros(length)
    values[np.array(vector.ids, np.int64)] = np.array(vector.values, np.float64)
    return values


def read_reply(form: FloatForm, answer: Any, *, whole: bool) -> Reply:
    """Read the message that one of MathOpt's solvers answers with.

    Args:
        form: The form that it was handed.
        answer: The message.
        whole: Whether options were whole.
    """
    from ortools.math_opt.python import mathopt

    feasible = mathopt.SolutionStatus.FEASIBLE.value
    values = duals = None
    for solution in answer.solutions:
        primal, dual = solution.primal_solution, solution.dual_solution
        # What a relaxation is rounded from, and what its duals prove, is looked at by whoever rounds.
        taken = primal.feasibility_status == feasible or not whole
        if values is None and solution.HasField("primal_solution") and taken:
            values = _dense(primal.variable_values, len(form.objective))
        if duals is None and solution.HasField("dual_solution"):
            duals = _dense(dual.dual_values, len(form.upper))
    reason = mathopt.TerminationReason(answer.termination.reason)
    bound = answer.termination.objective_bounds.dual_bound
    return Reply(
        infeasible=reason is mathopt.TerminationReason.INFEASIBLE,
        values=values,
        duals=duals,
        bound=bound if math.isfinite(bound) else -math.inf,
    )
