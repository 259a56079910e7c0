"""A linear form in floating point: scaled by powers of two, and where a figure has to be rounded, rounded outwards.

Scaling by powers of two is exact. Figures up to 2^53 are exact too; of larger ones, costs are rounded down and
capacities up, so that whatever keeps the problem keeps the form: a bound on the form is a bound on the problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.check import broken, values
from solvers.linear import LinearForm, linear_form
from solvers.problem import Problem
from solvers.solution import Solution, Status

__all__ = ["Attempt", "FloatForm", "Floats", "float_form", "solve_in_floats"]

Floats = npt.NDArray[np.float64]

_LARGEST_EXPONENT = 10
"""Coefficients are scaled to at most 2^10, so that an absolute tolerance of 1e-9 stays far below one unit."""
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatForm:
    """Minimise ``objective @ x`` with ``lower <= matrix @ x <= upper`` and ``least <= x <= most``.

    Attributes:
        exact: The form in integers.
        matrix: The constraints, a ``scipy.sparse.csr_array`` of float64, ``(constraints, columns)``.
        lower: What each constraint comes to at least, ``(constraints,)``; minus infinity where nothing binds.
        upper: What it comes to at most, ``(constraints,)``.
        objective: What each column costs, ``(columns,)``, without the offset.
        least: The least value of each column, ``(columns,)``.
        most: The greatest value of each column, ``(columns,)``.
        constraint_exponent: Constraints are divided by two to this power, ``(constraints,)``.
        column_exponent: Values of columns are divided by two to this power, ``(columns,)``.
        objective_exponent: The objective is divided by two to this power.
    """

    exact: LinearForm
    matrix: Any
    lower: Floats
    upper: Floats
    objective: Floats
    least: Floats
    most: Floats
    constraint_exponent: Integers
    column_exponent: Integers
    objective_exponent: int

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Which columns have to be whole, ``(columns,)``: the options; all others follow."""
        return np.arange(len(self.objective)) < self.exact.options

    def columns(self, choices: Sequence[int]) -> Floats:
        """Return the value of every column for a choice, as the form scales it, ``(columns,)``."""
        found: Floats = np.ldexp(self.exact.columns(choices).astype(np.float64), -self.column_exponent)
        return found

    def bound(self, reported: float, *, tolerance: float, relative: float) -> int:
        """Turn a bound that a solver reports into one that holds: less what tolerances hide, then up to an integer.

        Weak duality makes a bound wrong by what the reduced costs may violate, ``tolerance`` for every unit of every
        column: one option of each group is 1, one cell of each pair, and peaks have their greatest value. Ten times
        that is left to what happens between the solver's own steps.

        Args:
            reported: The bound on the scaled objective.
            tolerance: What the solver may violate a reduced cost or a cutoff by.
            relative: What its sums may be wrong by, as a share of the bound.

        Returns:
            A bound on the problem's objective, no less than the one that needs no solver.
        """
        floor = self.exact.floor()
        if not math.isfinite(reported):
            return floor
        problem = self.exact.problem
        at_once = problem.groups + len(problem.pairs) + float(self.most[self.exact.peak[self.exact.peak >= 0]].sum())
        hidden = 10 * tolerance * (1 + at_once) + relative * abs(reported)
        unscaled = math.ceil(math.ldexp(reported - hidden, self.objective_exponent))
        return max(floor, self.exact.offset + unscaled)


def float_form(form: LinearForm) -> FloatForm:
    """Scale a form and write it in floating point.

    Args:
        form: The form in integers.

    Returns:
        The same in floats, or, where a figure is beyond 2^53, a relaxation of it.
    """
    from scipy.sparse import csr_array

    matrix = form.matrix
    column_exponent = np.zeros(len(form.objective), np.int64)
    peaks = form.peak[form.peak >= 0]
    column_exponent[peaks] = _exponent(form.most[peaks])
    entries = _below(matrix.data) * np.ldexp(1.0, column_exponent)[matrix.indices]
    largest = np.zeros(len(form.upper))
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if len(filled):
        largest[filled] = np.maximum.reduceat(np.abs(entries), matrix.indptr[filled])
    constraint_exponent = _exponent(largest)
    entries = np.ldexp(entries, -np.repeat(constraint_exponent, np.diff(matrix.indptr)))
    upper = np.ldexp(_above(form.upper), -constraint_exponent)
    objective = _below(form.objective) * np.ldexp(1.0, column_exponent)
    objective_exponent = int(_exponent(np.array([objective.max(initial=0.0)]))[0])
    return FloatForm(
        exact=form,
        matrix=csr_array((entries, matrix.indices, matrix.indptr), shape=matrix.shape),
        lower=np.where(form.equal, upper, -np.inf),
        upper=upper,
        objective=np.ldexp(objective, -objective_exponent),
        least=np.ldexp(_below(form.least), -column_exponent),
        most=np.ldexp(_above(form.most), -column_exponent),
        constraint_exponent=constraint_exponent,
        column_exponent=column_exponent,
        objective_exponent=objective_exponent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a solver in floating point says about a form.

    Attributes:
        infeasible: It says that there is no choice.
        values: The value of each column, as scaled, ``(columns,)``; None without any.
        bound: Its bound on the scaled objective; minus infinity without any.
    """

    infeasible: bool = False
    values: Floats | None = None
    bound: float = -math.inf


def solve_in_floats(
    problem: Problem,
    seconds: Callable[[], float],
    ask: Callable[[FloatForm, float], Attempt],
    *,
    tolerance: float,
    relative: float,
) -> Solution:
    """Solve a problem by a solver in floating point, and take nothing from it that does not hold in integers.

    An answer that breaks a capacity once it is rounded is asked for again with that capacity lowered by the excess;
    the bound stays that of the problem as it was. An answer is called optimal only where its bound, less all that
    tolerances can hide, rounds up to it.

    Args:
        problem: The problem.
        seconds: Says how many seconds are left.
        ask: Hands a form to the solver, with the seconds it may take.
        tolerance: What the solver may violate a reduced cost or a cutoff by, as the form is scaled.
        relative: What its bound may be wrong by, as a share of it.

    Returns:
        The answer.
    """
    stated, bound = problem, None
    for attempt in range(_ATTEMPTS):
        form = linear_form(stated)
        if form.impossible():
            return Solution(status=Status.LIMIT, bound=bound) if attempt else Solution(status=Status.INFEASIBLE)
        scaled, left = float_form(form), seconds()
        if left <= 0:
            return Solution(status=Status.LIMIT, bound=form.floor() if bound is None else bound)
        said = ask(scaled, left)
        if said.infeasible and not attempt:
            return Solution(status=Status.INFEASIBLE, note="proven in floating point")
        if bound is None:
            bound = scaled.bound(said.bound, tolerance=tolerance, relative=relative)
        if said.values is None:
            break
        chosen = form.choices(said.values)
        if not broken(problem, chosen):
            objective = values(problem, chosen)[problem.objective]
            bound = min(bound, objective)
            status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
            return Solution(status=status, choices=chosen, objective=objective, bound=bound)
        stated = _tightened(problem, stated, values(problem, chosen))
    return Solution(status=Status.LIMIT, bound=bound)


def _tightened(problem: Problem, stated: Problem, found: Sequence[int]) -> Problem:
    """Lower each capacity that was broken by what it was exceeded by."""
    capacities = []
    for row, lowered, value in zip(problem.rows, stated.rows, found, strict=True):
        excess = 0 if row.capacity is None else max(0, value - row.capacity)
        capacities.append(None if lowered.capacity is None else lowered.capacity - excess)
    return stated.with_capacities(capacities)


def _exponent(largest: npt.NDArray[Any]) -> Integers:
    """Return the powers of two by which figures are divided so that none is above ``2 ** _LARGEST_EXPONENT``."""
    return np.maximum(0, np.frexp(largest.astype(np.float64))[1].astype(np.int64) - _LARGEST_EXPONENT)


def _below(whole: Integers) -> Floats:
    """Return the greatest floats no greater than integers between -1 and 2^62."""
    floats = whole.astype(np.float64)
    return np.where(floats.astype(np.int64) > whole, np.nextafter(floats, -np.inf), floats)


def _above(whole: Integers) -> Floats:
    """Return the least floats no less than integers between -1 and 2^62."""
    floats = whole.astype(np.float64)
    return np.where(floats.astype(np.int64) < whole, np.nextafter(floats, np.inf), floats)
