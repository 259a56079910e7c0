"""What multipliers of a linear form prove, in exact arithmetic, and plans rounded from its linear relaxation.

A. M. Geoffrion, Lagrangean relaxation for integer programming, Mathematical Programming Study 2 (1974): multipliers
of any size, of the right sign, prove a bound. So does whatever a solver in floating point calls dual values, once
signs are set right; A. Neumaier and O. Shcherbina, Safe bounds in linear and mixed-integer linear programming,
Mathematical Programming 99 (2004), round such a bound downwards, here nothing is rounded at all.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from solvers import greedy
from solvers.floating import FloatForm, Floats, float_form
from solvers.linear import LinearForm, linear_form
from solvers.mathopt import Reply, run
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Limits
from solvers.start import no_worse, usable

__all__ = ["lagrangian", "solve_relaxed"]

_SHIFT = 100
"""Multipliers are cut off to whole multiples of two to the power of minus this: 2^62 of them are less than 2^-38."""

_SHARE = 0.8
"""Of the time, what the relaxation may take; the rest is for a plan."""


def lagrangian(form: LinearForm, multipliers: Floats, *, priced: bool = True) -> Fraction:
    """Evaluate the Lagrangian function of a form exactly, in whole numbers.

    One option of each group is chosen, one cell of each pair is met, and peaks stay within their bounds, whatever the
    multipliers are; all other constraints are paid for.

    Args:
        form: The form.
        multipliers: What exceeding each constraint costs, ``(constraints,)``; those of the groups count for nothing,
            nor do those that are not finite, and those of inequalities are taken to be 0 where they are negative.
        priced: Whether the objective is counted; without it, a value above 0 proves that there is no choice.

    Returns:
        What no choice that keeps all constraints can undercut.
    """
    price = np.where(np.isfinite(multipliers), multipliers, 0.0)
    price[~form.equal] = np.maximum(price[~form.equal], 0.0)
    price[: form.problem.groups] = 0.0
    paid = np.flatnonzero(price)
    whole = np.array([int(Fraction(each) * (1 << _SHIFT)) for each in price[paid].tolist()], object)
    reduced = (form.objective.astype(object) << _SHIFT) if priced else np.zeros(len(form.objective), object)
    if len(paid):
        matrix = form.matrix[paid, :].tocsc()
        products = whole[matrix.indices] * matrix.data.astype(object)
        filled = np.flatnonzero(np.diff(matrix.indptr))
        reduced[filled] += np.add.reduceat(products, matrix.indptr[filled])
    total = (form.offset << _SHIFT) * priced - sum((whole * form.upper[paid].astype(object)).tolist())
    total += sum(np.minimum.reduceat(reduced[: form.options], form.problem.start[:-1]).tolist())
    for column in form.peak[form.peak >= 0].tolist():
        total += reduced[column] * int(form.least[column] if reduced[column] >= 0 else form.most[column])
    cells = np.flatnonzero(form.cell >= 0)
    if len(cells):
        pair = np.searchsorted(form.problem.pairs.cell_start, cells, side="right")
        total += sum(np.minimum.reduceat(reduced[form.cell[cells]], np.flatnonzero(np.diff(pair, prepend=0))).tolist())
    return Fraction(total, 1 << _SHIFT)


def solve_relaxed(problem: Problem, limits: Limits, solver: str, **settings: Any) -> Solution:
    """Solve the linear relaxation; prove a bound by its multipliers, and round its options to a plan.

    Args:
        problem: The problem.
        limits: How long it may take, and its seed.
        solver: The name of a solver of linear programs, as ``mathopt.SolverType`` has it.
        settings: Whatever else ``mathopt.SolveParameters`` takes.

    Returns:
        The bound with its prices, and a plan where there is one: each group's greatest share, repaired and improved by
        the moves of ``greedy``.
    """
    deadline = time.perf_counter() + limits.time_s
    form = linear_form(problem)
    if form.impossible():
        return Solution(status=Status.INFEASIBLE)
    scaled = float_form(form)

    def ask(stated: FloatForm) -> Reply:
        left = max(1e-3, _SHARE * (deadline - time.perf_counter()))
        return run(stated, solver, limits=limits, seconds=left, whole=False, **settings)

    reply = ask(scaled)
    if reply.infeasible:
        without = lagrangian(form, _multipliers(scaled, ask(_elastic(scaled))), priced=False) > 0
        return Solution(status=Status.INFEASIBLE) if without else Solution(status=Status.LIMIT, bound=form.floor())
    multipliers = _multipliers(scaled, reply)
    bound = max(form.floor(), math.ceil(lagrangian(form, multipliers)))
    prices = tuple(np.where(form.row >= 0, np.maximum(multipliers[form.row], 0.0), 0.0).tolist())
    proven = Solution(status=Status.LIMIT, bound=bound, prices=prices)
    nearest = form.choices(_levels(form, multipliers, reply.values))
    plan = no_worse(problem, proven, usable(problem, nearest))
    left = deadline - time.perf_counter()
    if left <= 0 or plan.status is Status.OPTIMAL:
        return plan
    repaired = greedy.solve(problem, replace(limits, time_s=left, watch=None), nearest)
    return no_worse(problem, plan, repaired.choices)


def _multipliers(scaled: FloatForm, reply: Reply) -> Floats:
    """Turn dual values, which say what a unit more is worth, into what a unit exceeded costs, ``(constraints,)``."""
    if reply.duals is None:
        return np.zeros(len(scaled.upper))
    found: Floats = np.ldexp(-reply.duals, scaled.objective_exponent - scaled.constraint_exponent)
    return found


def _elastic(scaled: FloatForm) -> FloatForm:
    """Let all capacities be exceeded by one amount, which is all that is minimised: its multipliers prove the rest.

    J. Farkas, Theorie der einfachen Ungleichungen (1902): where nothing keeps all constraints, a sum of them that
    nothing keeps exists; the multipliers of the least excess make one.
    """
    from scipy.sparse import csr_array, hstack

    rows = scaled.exact.row[scaled.exact.row >= 0]
    excess = np.zeros((len(scaled.upper), 1))
    excess[rows] = -1.0
    columns = len(scaled.objective)
    return replace(
        scaled,
        matrix=csr_array(hstack([scaled.matrix, csr_array(excess)])),
        objective=np.append(np.zeros(columns), 1.0),
        least=np.append(scaled.least, 0.0),
        most=np.append(scaled.most, np.inf),
        column_exponent=np.append(scaled.column_exponent, 0),
    )


def _levels(form: LinearForm, multipliers: Floats, shares: Floats | None) -> Floats:
    """Return by what each group's option is picked, the greatest first: its share, or how cheap it is at the prices."""
    if shares is not None:
        return shares
    rows = form.row[form.row >= 0]
    use = form.matrix[rows, : form.options].T @ np.maximum(multipliers[rows], 0.0)
    found: Floats = -(form.objective[: form.options] + use)
    return found
