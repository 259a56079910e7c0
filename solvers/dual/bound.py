"""The bound that prices prove, in whole numbers: all that a certificate needs to be verified without a solver.

A. M. Geoffrion, Lagrangean relaxation for integer programming, Mathematical Programming Study 2 (1974): for any prices
``p >= 0`` no choice that keeps all capacities costs less than

    L(p) = constant + sum over groups of min over options of (cost + sum over rows of p[row] * cost[row])
           - sum over rows of p[row] * (capacity[row] - constant[row]).

Prices are taken as whole multiples of a power of two, so that nothing is ever rounded but the result, upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Problem, Row

__all__ = ["beyond", "exact_bound", "reduced_costs", "whole"]

_BITS = 61
"""What one option costs with all prices stays below two to this power, so that 64 bits hold it."""
_FINEST = 200


def exact_bound(problem: Problem, prices: Sequence[float] | npt.NDArray[np.float64]) -> int:
    """Evaluate the Lagrangian function exactly.

    Pairs, peaks, spreads, ties and forbidden options are left out: they only add costs, which are never negative, or
    take options away, so that what holds without them holds with them.

    Args:
        problem: The problem.
        prices: What a unit of each row costs, ``(rows,)``, 0 or more; those of rows without a capacity count for
            nothing.

    Returns:
        What no choice that keeps the capacities can undercut in the objective row.

    Raises:
        ValueError: There is not one price for each row, or one is negative or not finite.

    >>> rows = (Row(name="loss", options=[1], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=5))
    >>> exact_bound(Problem(start=[0, 2], rows=rows), [0.0, 0.7])
    3
    """
    multiples, shift = whole(problem, prices)
    objective = problem.rows[problem.objective]
    largest = (int(objective.costs.max(initial=0)) << shift) + sum(
        multiple * int(row.costs.max(initial=0)) for multiple, row in zip(multiples, problem.rows, strict=True)
    )
    # Where one option's cost could pass 64 bits, Python's own integers are slower and have no end.
    kind = np.int64 if max(largest, 1 << shift, *multiples) < 2**_BITS else object
    cost = np.zeros(problem.options, kind)
    cost[objective.options] = objective.costs.astype(kind) * (1 << shift)
    total = objective.constant << shift
    for multiple, row in zip(multiples, problem.rows, strict=True):
        if multiple and row.capacity is not None:
            cost[row.options] += row.costs.astype(kind) * multiple
            total -= multiple * (row.capacity - row.constant)
    total += sum(np.minimum.reduceat(cost, problem.start[:-1]).tolist())
    return int(-(-total >> shift))


def beyond(problem: Problem, prices: Sequence[float] | npt.NDArray[np.float64]) -> bool:
    """Tell whether prices prove that no choice keeps all capacities (J. Farkas, 1902, for sums of whole options).

    Args:
        problem: The problem.
        prices: What a unit of each row costs, ``(rows,)``.

    Returns:
        Whether even the options that are cheapest at these prices, their costs in the objective not counted, are
        dearer than all capacities together.

    >>> rows = (Row(name="time", options=[0, 1], costs=[9, 2]), Row(name="size", options=[0, 1], costs=[2, 9]))
    >>> both = Problem(start=[0, 2], rows=rows).with_capacities([5, 5])
    >>> beyond(both, [1.0, 1.0]), beyond(both, [1.0, 0.0])
    (True, False)
    """
    free = Row(name="nothing", options=np.zeros(0, np.int64), costs=np.zeros(0, np.int64))
    alone = replace(problem, rows=(*problem.rows, free), objective=len(problem.rows), then=())
    return exact_bound(alone, [*prices, 0.0]) > 0


def reduced_costs(problem: Problem, prices: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute what each option costs beyond the cheapest of its group at these prices, in floating point.

    Args:
        problem: The problem; only costs of options count, as in `exact_bound`.
        prices: What a unit of each row costs, ``(rows,)``.

    Returns:
        ``(options,)``, 0 or more: how much the bound rises where that option must be taken.
    """
    objective = problem.rows[problem.objective]
    cost = np.zeros(problem.options)
    cost[objective.options] = objective.costs
    for price, row in zip(prices, problem.rows, strict=True):
        if price and row.capacity is not None:
            cost[row.options] += price * row.costs
    cost -= np.repeat(np.minimum.reduceat(cost, problem.start[:-1]), np.diff(problem.start))
    return cost


def whole(problem: Problem, prices: Sequence[float] | npt.NDArray[np.float64]) -> tuple[list[int], int]:
    """Write prices as whole multiples of two to the power of minus a shift, as finely as 64 bits allow.

    Args:
        problem: The problem.
        prices: What a unit of each row costs, ``(rows,)``.

    Returns:
        The multiples, 0 for rows without a capacity, and the shift, 0 or more.

    Raises:
        ValueError: There is not one price for each row, or one is negative or not finite.
    """
    given = [float(price) for price in prices]
    if len(given) != len(problem.rows):
        raise ValueError(f"got {len(given)} prices; expected one for each of the {len(problem.rows)} rows")
    for price, row in zip(given, problem.rows, strict=True):
        if not (price >= 0 and math.isfinite(price)):
            raise ValueError(f"the price of {row.name} is {price}; expected a finite number, 0 or more")
    paid = [price if row.capacity is not None else 0.0 for price, row in zip(given, problem.rows, strict=True)]
    most = float(_most(problem.rows[problem.objective])) + sum(
        price * _most(row) for price, row in zip(paid, problem.rows, strict=True) if price
    )
    # One bit less than fits: rounding in this sum must not matter.
    shift = min(max(0, _BITS - 1 - math.frexp(most)[1]), _FINEST) if math.isfinite(most) else 0
    return [int(Fraction(price) * (1 << shift)) if price else 0 for price in paid], shift


def _most(row: Row) -> int:
    costs: Integers = row.costs
    return int(costs.max(initial=0))
