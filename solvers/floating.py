"""A linear form in floating point: scaled by powers of two, and where a figure has to be rounded, rounded outwards.

Scaling by powers of two is exact. Figures up to 2^53 are exact too; of larger ones, costs are rounded down and
capacities up, so that whatever keeps the problem keeps the form: a bound on the form is a bound on the problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

_ATTEMPTS = 4
_REFUTED = "its bound is refuted by its answer, and left out"
_IN_DOUBT = 100
"""By so many times the tolerance capacities are widened: what keeps one exactly is cut off by less than that."""
_OBJECTIVE = 8
"""The objective's coefficients are larger than all others by two to this power: what a violated reduced cost hides of a
bound is then below one unit on a model of hundreds of layers, whose losses are counted to 1e-9."""


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


def float_form(form: LinearForm, *, largest: int = 10) -> FloatForm:
    """Scale a form and write it in floating point.

    Args:
        form: The form in integers.
        largest: No coefficient is above two to this power: 10 suits tolerances of 1e-9; where a solver's are wider and
            fixed, as they are absolute, larger coefficients make them tighter.

    Returns:
        The same in floats, or, where a figure is beyond 2^53, a relaxation of it.
    """
    from scipy.sparse import csr_array

    matrix = form.matrix
    column_exponent = np.zeros(len(form.objective), np.int64)
    peaks = form.peak[form.peak >= 0]
    # Not as large as coefficients, since a violated reduced cost counts as often as a column is large; not as small as
    # options, since a column that is a little less than it should be is so in units of two to this exponent.
    column_exponent[peaks] = _exponent(form.most[peaks], largest // 2)
    entries = _below(matrix.data) * np.ldexp(1.0, column_exponent)[matrix.indices]
    greatest = np.zeros(len(form.upper))
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if len(filled):
        greatest[filled] = np.maximum.reduceat(np.abs(entries), matrix.indptr[filled])
    constraint_exponent = _exponent(greatest, largest)
    entries = np.ldexp(entries, -np.repeat(constraint_exponent, np.diff(matrix.indptr)))
    upper = np.ldexp(_above(form.upper), -constraint_exponent)
    objective = _below(form.objective) * np.ldexp(1.0, column_exponent)
    objective_exponent = int(_exponent(np.array([objective.max(initial=0.0)]), largest + _OBJECTIVE)[0])
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
    largest: int = 10,
) -> Solution:
    """Solve a problem by a solver in floating point, and take nothing from it that does not hold in integers.

    An answer that breaks a capacity once it is rounded is asked for again without that one choice, which takes nothing
    from the problem; where that does not help, with the capacity lowered by the excess, which does: nothing is then
    learned but a choice. An answer is called optimal only where its bound, less all that tolerances can hide, rounds
    up to it.

    Args:
        problem: The problem.
        seconds: Says how many seconds are left.
        ask: Hands a form to the solver, with the seconds it may take.
        tolerance: What the solver may violate a reduced cost or a cutoff by, as the form is scaled.
        relative: What its bound may be wrong by, as a share of it.
        largest: What the form is scaled to, as `float_form` has it.

    Returns:
        The answer.
    """
    form = linear_form(problem)
    if form.impossible():
        return Solution(status=Status.INFEASIBLE)
    stated, bound = problem, form.floor()
    wrong: list[tuple[int, ...]] = []
    for attempt in range(2 * _ATTEMPTS):
        lowered = attempt >= _ATTEMPTS
        if lowered:
            stated = _tightened(problem, stated, values(problem, wrong[-1]))
            form = linear_form(stated)
        scaled = _without(_widened(float_form(form, largest=largest), _IN_DOUBT * tolerance), wrong)
        left = seconds()
        if left <= 0 or form.impossible():
            break
        said = ask(scaled, left)
        if said.infeasible and not lowered:
            return Solution(status=Status.INFEASIBLE, note="proven in floating point")
        if not lowered:
            bound = max(bound, scaled.bound(said.bound, tolerance=tolerance, relative=relative))
        if said.values is None:
            break
        chosen = form.choices(said.values)
        if not broken(problem, chosen):
            objective = values(problem, chosen)[problem.objective]
            if bound > objective:
                return Solution(status=Status.FEASIBLE, choices=chosen, objective=objective, note=_REFUTED)
            status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
            return Solution(status=status, choices=chosen, objective=objective, bound=bound)
        wrong.append(chosen)
    return Solution(status=Status.LIMIT, bound=bound)


def _widened(scaled: FloatForm, margin: float) -> FloatForm:
    """Widen capacities, since presolve and cuts may take a choice that just keeps one for a choice that does not.

    Below coefficients of some 10^10 the margin is less than a unit, and lets no choice through; where it does, the
    choice is seen to break the capacity. The steps of peaks stay as they are: HiGHS's presolve mistakes optima by a
    tenth where a step's right side is next to nothing instead of nothing.
    """
    upper = scaled.upper.copy()
    upper[scaled.exact.row[scaled.exact.row >= 0]] += margin
    return replace(scaled, upper=upper)


def _without(scaled: FloatForm, wrong: Sequence[Sequence[int]]) -> FloatForm:
    """Exclude single choices: not all of their options at once."""
    if not wrong:
        return scaled
    from scipy.sparse import csr_array, vstack

    start, groups = scaled.exact.problem.start, scaled.exact.problem.groups
    chosen = (start[:-1] + np.array(wrong, np.int64)).ravel()
    row = np.repeat(np.arange(len(wrong)), groups)
    cuts = csr_array((np.ones(len(chosen)), (row, chosen)), shape=(len(wrong), len(scaled.objective)))
    return replace(
        scaled,
        matrix=csr_array(vstack([scaled.matrix, cuts])),
        lower=np.append(scaled.lower, np.full(len(wrong), -np.inf)),
        upper=np.append(scaled.upper, np.full(len(wrong), float(groups - 1))),
        constraint_exponent=np.append(scaled.constraint_exponent, np.zeros(len(wrong), np.int64)),
    )


def _tightened(problem: Problem, stated: Problem, found: Sequence[int]) -> Problem:
    """Lower each capacity that was broken by what it was exceeded by."""
    capacities = []
    for row, lowered, value in zip(problem.rows, stated.rows, found, strict=True):
        excess = 0 if row.capacity is None else max(0, value - row.capacity)
        capacities.append(None if lowered.capacity is None else lowered.capacity - excess)
    return stated.with_capacities(capacities)


def _exponent(greatest: npt.NDArray[Any], largest: int) -> Integers:
    """Return the powers of two by which figures are divided so that none is above two to the power of ``largest``."""
    return np.maximum(0, np.frexp(greatest.astype(np.float64))[1].astype(np.int64) - largest)


def _below(whole: Integers) -> Floats:
    """Return the greatest floats no greater than integers between -1 and 2^62."""
    floats = whole.astype(np.float64)
    return np.where(floats.astype(np.int64) > whole, np.nextafter(floats, -np.inf), floats)


def _above(whole: Integers) -> Floats:
    """Return the least floats no less than integers between -1 and 2^62."""
    floats = whole.astype(np.float64)
    return np.where(floats.astype(np.int64) < whole, np.nextafter(floats, np.inf), floats)
