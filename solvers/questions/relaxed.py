"""The linear relaxation under many capacities: one model that stays with the solver, of which one bound changes.

After a change the basis of the last answer is still dual feasible, so that the dual simplex method goes on from there
(C. Lemke, The dual method of solving the linear programming problem, Naval Research Logistics Quarterly 1, 1954).
As a function of one capacity the value is convex and made of lines, whose slopes are the prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from solvers.floating import float_form
from solvers.linear import linear_form
from solvers.mathopt import model_message, read_reply
from solvers.problem import Problem

__all__ = ["Line", "Relaxed", "Stretch"]

_MOST_LINES = 60
_SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The value of the relaxation where a row is allowed ``capacity``, and what it falls by with each unit more.

    Attributes:
        capacity: What the row is allowed.
        value: The value of the relaxation, in units of the objective.
        price: How much it falls with a unit more, 0 or more; between two lines, any price between theirs.

    >>> Line(capacity=10.0, value=7.0, price=2.0).at(12.0)
    3.0
    """

    capacity: float
    value: float
    price: float

    def at(self, capacity: float) -> float:
        """Return the value of the line, which nowhere lies above that of the relaxation."""
        return self.value - self.price * (capacity - self.capacity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Capacities over which one price holds.

    Attributes:
        price: How much the value of the relaxation falls with each unit.
        low: The least such capacity.
        high: The greatest; None where there is none.

    >>> Stretch(price=0.0, low=12.0, high=None).high is None
    True
    """

    price: float
    low: float
    high: float | None


class Relaxed:
    """The relaxation of a problem, in which the capacity of one row changes."""

    def __init__(self, problem: Problem, row: int, *, time_limit_s: float = 60.0) -> None:
        """Hand the relaxation to GLOP.

        Args:
            problem: The problem, without ties, forbidden options and spreads.
            row: The row; where it has no capacity, it has one that does not bind.
            time_limit_s: Wall-clock seconds for each answer.
        """
        from ortools.math_opt.core.python import solver as core
        from ortools.math_opt.python import mathopt

        self.most = problem.most()[row]
        capacities = [entry.capacity for entry in problem.rows]
        if capacities[row] is None:
            capacities[row] = self.most
        exact = linear_form(problem.with_capacities(capacities))
        self.form = float_form(exact)
        self.offset = exact.offset
        self.constant = problem.rows[row].constant
        self.constraint = int(exact.row[row])
        parameters = mathopt.SolveParameters(
            time_limit=timedelta(seconds=time_limit_s),
            # Without them the basis of the last answer is of use for the next.
            presolve=mathopt.Emphasis.OFF,
            lp_algorithm=mathopt.LPAlgorithm.DUAL_SIMPLEX,
        )
        self._parameters = parameters.to_proto()
        self._more = mathopt.ModelSolveParameters().to_proto()
        self._callbacks = mathopt.CallbackRegistration().to_proto()
        self._solver: Any = core.new(
            mathopt.SolverType.GLOP.value,
            model_message(self.form, whole=False),
            mathopt.StreamableSolverInitArguments().to_proto(),
        )

    def at(self, capacity: float) -> Line | None:
        """Return value and price under a capacity; None where nothing keeps all capacities, or time ended."""
        from ortools.math_opt import model_update_pb2

        update = model_update_pb2.ModelUpdateProto()
        exponent = int(self.form.constraint_exponent[self.constraint])
        bound = update.linear_constraint_updates.upper_bounds
        bound.ids.append(self.constraint)
        bound.values.append(float(np.ldexp(capacity - self.constant, -exponent)))
        if not self._solver.update(update):
            raise RuntimeError("GLOP refuses a change of one bound, which it is known to take")
        answer = self._solver.solve(self._parameters, self._more, None, self._callbacks, None, None)
        reply = read_reply(self.form, answer, whole=False)
        if reply.infeasible or reply.values is None or reply.duals is None:
            return None
        value = float(np.ldexp(self.form.objective @ reply.values, self.form.objective_exponent)) + self.offset
        price = -float(np.ldexp(reply.duals[self.constraint], self.form.objective_exponent - exponent))
        return Line(capacity=capacity, value=value, price=max(0.0, price))

    def front(self, capacities: Sequence[float]) -> tuple[Line | None, ...]:
        """Return values and prices under many capacities, each solved from the one beside it."""
        order = sorted(set(capacities), reverse=True)
        found = {capacity: self.at(capacity) for capacity in order}
        return tuple(found[capacity] for capacity in capacities)

    def stretch(self, capacity: float, low: float) -> Stretch | None:
        """Return the capacities around one over which the same price holds, by intersecting lines.

        Args:
            capacity: Where to look.
            low: A capacity below which nothing keeps all, or below which it is of no interest.

        Returns:
            The stretch; None where nothing keeps all capacities.
        """
        here = self.at(capacity)
        if here is None:
            return None
        far = max(float(self.most), capacity + 1.0)
        high = None if here.price == 0.0 else self._end(here, far)
        return Stretch(price=here.price, low=self._end(here, low), high=high)

    def _end(self, here: Line, far: float) -> float:
        """Return how far a line goes on towards a capacity, or the capacity where it goes on beyond that."""
        scale = max(abs(here.value), 1.0)
        there = self.at(far)
        if there is None:
            return here.capacity
        for _ in range(_MOST_LINES):
            if there.value - here.at(there.capacity) <= _SAME * scale:
                return there.capacity
            # The lines of both cross where the one here ends, unless there is another line between them.
            if there.price == here.price:
                return there.capacity
            cross = here.capacity + ((here.value - there.at(here.capacity)) / (here.price - there.price))
            between = self.at(cross)
            if between is None:
                return here.capacity
            if abs(between.capacity - there.capacity) <= _SAME * max(abs(cross), 1.0):
                return cross
            there = between
        return there.capacity
