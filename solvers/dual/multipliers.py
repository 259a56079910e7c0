"""Prices of all rows at which the Lagrangian function is greatest, or close to it.

What is returned are prices and a value in floating point. Any prices prove a bound: `solvers.dual.bound` evaluates them
exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from solvers.dual.intersect import Floats, Sides, climb, meet
from solvers.dual.layout import Layout, layout
from solvers.problem import Problem

__all__ = ["Dual", "against", "multipliers", "optimise", "outer_costs"]

_FEW_TERMS = 15_000
"""Up to so many terms in coupling rows, several of them are priced by linear programming."""
_TOLERANCE = 1e-6
_STEPS = 80
_WARMTHS = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""How far the smooth function may lie below, for each group, as shares of what groups can differ by on average."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dual:
    """Prices and the choices that are cheapest around them.

    Attributes:
        prices: The price of each of the problem's rows, ``(rows,)``, 0 for those that cannot be broken.
        value: The Lagrangian function there, in floating point.
        sides: The prices and choices of the blocks, at these prices of the coupling rows.
    """

    prices: Floats
    value: float
    sides: Sides


def multipliers(problem: Problem, time_s: float = 60.0) -> Dual:
    """Find prices of a problem's capacities.

    Args:
        problem: A problem without pairs and peaks; every row can be kept on its own.
        time_s: Seconds it may take, where there are several rows to a group.

    Returns:
        The prices, and the bound that they prove but for rounding. Where the capacities cannot be kept together, the
        bound lies above what any choice costs, or grows with the prices.

    >>> from solvers.problem import Row
    >>> rows = (Row(name="loss", options=[1], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=5))
    >>> dual = multipliers(Problem(start=[0, 2], rows=rows))
    >>> round(dual.value, 3), dual.prices.round(3).tolist()
    (3.111, [0.0, 0.778])
    """
    return optimise(layout(problem), time.perf_counter() + time_s)


def optimise(laid: Layout, deadline: float) -> Dual:
    """Find prices for a problem that is laid out; `multipliers` says of what kind."""
    costs, times = laid.costs.astype(np.float64), laid.local.astype(np.float64)
    room = laid.room.astype(np.float64)
    coupling = laid.bands[1:]
    if not coupling:
        return _finish(laid, [], meet(costs, times, room, laid.first))
    if len(coupling) == 1 and len(coupling[0].rows) == 1:
        return _one(laid, costs, times, room, deadline)
    if sum(int(np.count_nonzero(band.costs)) for band in laid.bands) <= _FEW_TERMS:
        prices = _by_linear_programming(laid)
    else:
        prices = _by_smoothing(laid, deadline)[1:]
    return _finish(laid, prices, meet(costs + outer_costs(laid, prices), times, room, laid.first))


def outer_costs(laid: Layout, prices: list[Floats]) -> Floats:
    """Return what the coupling rows add to each option's cost at their prices, ``(options, groups)``."""
    total = np.zeros(laid.costs.shape)
    for band, price in zip(laid.bands[1:], prices, strict=True):
        total += band.costs * np.where(band.owner >= 0, price[band.owner], 0.0)
    return total


def _finish(laid: Layout, outer: list[Floats], sides: Sides) -> Dual:
    prices = np.zeros(len(laid.problem.rows))
    value = sides.value + laid.problem.rows[laid.problem.objective].constant
    for band, price in zip(laid.bands[1:], outer, strict=True):
        prices[band.rows] = price
        value -= float(price @ band.capacities)
    if laid.bands:
        local = laid.bands[0]
        owner = local.owner[laid.first[:-1]]
        prices[local.rows[owner[owner >= 0]]] = sides.prices[owner >= 0]
    return Dual(prices=prices, value=value, sides=sides)


def _one(laid: Layout, costs: Floats, times: Floats, room: Floats, deadline: float) -> Dual:
    """Price one coupling row outside and all local rows inside."""
    band = laid.bands[1]
    uses, capacity = band.costs.astype(np.float64), float(band.capacities[0])
    best: tuple[float, float, Sides] | None = None
    guess: Floats | None = None
    scratch = np.empty_like(costs)

    def look(price: float) -> tuple[float, float]:
        nonlocal best, guess
        np.multiply(uses, price, out=scratch)
        np.add(scratch, costs, out=scratch)
        sides = meet(scratch, times, room, laid.first, guess, tolerance=_TOLERANCE / 10)
        if price:
            guess = sides.prices
        value = sides.value - price * capacity
        if best is None or value > best[0]:
            best = (value, price, sides)
        return value, float(sides.mixed(uses, laid.first).sum()) - capacity

    spread = float((costs.max(axis=0) - costs.min(axis=0)).sum())
    start = 0.3 * spread / max(1.0, float((uses.max(axis=0) - uses.min(axis=0)).sum()))
    climb(look, start or 1.0, deadline=deadline, tolerance=_TOLERANCE)
    assert best is not None  # noqa: S101 - climb looks at 0 at least
    return _finish(laid, [np.array([best[1]])], best[2])


def _by_linear_programming(laid: Layout) -> list[Floats]:
    """Take the prices of the linear relaxation, whose value is the greatest of the Lagrangian function."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    places, groups = laid.costs.shape
    column = np.arange(places * groups).reshape(places, groups)
    values, rows, columns, most, offset = [], [], [], [], 0
    for band in laid.bands:
        where = np.nonzero(band.costs)
        values.append(band.costs[where])
        rows.append(offset + band.owner[where[1]])
        columns.append(column[where])
        most.append(band.capacities)
        offset += len(band.rows)
    ceiling = np.concatenate(most).astype(np.float64)
    value, row = np.concatenate(values).astype(np.float64), np.concatenate(rows)
    # Scaled to capacities of about 1, so that the solver's absolute tolerances mean the same in every unit.
    unit = np.maximum(ceiling, 1.0)
    scale = max(1.0, float(laid.costs.max()))
    limits = csr_array((value / unit[row], (row, np.concatenate(columns))), shape=(offset, column.size))
    ones = csr_array((np.ones(column.size), (column.ravel() % groups, column.ravel())), shape=(groups, column.size))
    answer = linprog(
        laid.costs.ravel() / scale, limits, ceiling / unit, ones, np.ones(groups), bounds=(0, None), method="highs"
    )
    if answer.status != 0:
        # The relaxation has no solution, so that the function has no top; any prices will do for what follows.
        return [np.zeros(len(band.rows)) for band in laid.bands[1:]]
    prices = np.maximum(-answer.ineqlin.marginals, 0) * scale / unit
    ends = np.cumsum([len(band.rows) for band in laid.bands])
    return np.split(prices, ends[:-1])[1:]


def against(laid: Layout, deadline: float) -> Floats:
    """Find prices at which what all options take is dearest compared with the capacities, whatever they cost.

    Args:
        laid: The problem.
        deadline: When to stop, by ``time.perf_counter``.

    Returns:
        Prices of all of the problem's rows, ``(rows,)``. If the options that are cheapest at these prices are dearer
        than the capacities, then no choice keeps all of them: `solvers.dual.bound.beyond` tells, exactly.
    """
    prices = np.zeros(len(laid.problem.rows))
    nothing = replace(laid, costs=np.zeros_like(laid.costs))
    for band, found in zip(laid.bands, _by_smoothing(nothing, deadline, most=1.0), strict=True):
        prices[band.rows] = found
    return prices


def _by_smoothing(laid: Layout, deadline: float, most: float | None = None) -> list[Floats]:
    """Climb a smooth function that lies close below the Lagrangian one, closer at each stage, over all rows at once.

    The least of a group's costs is replaced by ``-t * log(mean(exp(-cost / t)))``, whose mixture of options meets
    capacities as those of the linear relaxation do (Y. Nesterov, Smooth minimization of non-smooth functions,
    Mathematical Programming 103, 2005); limited-memory BFGS climbs it.
    """
    from scipy.optimize import minimize

    places, groups = laid.costs.shape
    scale = max(float((laid.costs.max(axis=0) - laid.costs.min(axis=0)).sum()), 1.0)
    units = np.concatenate([np.maximum(band.capacities, 1) for band in laid.bands]).astype(np.float64)
    ends = np.cumsum([len(band.rows) for band in laid.bands])
    owners = [np.maximum(band.owner, 0) for band in laid.bands]
    scratch = np.empty((places, groups))

    def below(scaled: Floats, warmth: float) -> tuple[float, Floats]:
        """Return the smooth function and its slopes, negated and in parts of the objective's spread."""
        prices = np.split(scaled * scale / units, ends[:-1])
        np.copyto(scratch, laid.costs)
        for band, owner, price in zip(laid.bands, owners, prices, strict=True):
            np.add(scratch, band.costs * price[owner], out=scratch)
        least = scratch.min(axis=0)
        np.subtract(least, scratch, out=scratch)
        np.divide(scratch, warmth, out=scratch)
        np.exp(scratch, out=scratch)
        total = scratch.sum(axis=0)
        value = float((least - warmth * np.log(total / places)).sum())
        np.divide(scratch, total, out=scratch)
        slopes = [
            np.bincount(owner, (scratch * band.costs).sum(axis=0), len(band.rows)) - band.capacities
            for band, owner in zip(laid.bands, owners, strict=True)
        ]
        value -= sum(float(price @ band.capacities) for price, band in zip(prices, laid.bands, strict=True))
        return -value / scale, -np.concatenate(slopes) / units

    scaled = np.zeros(len(units))
    for warmth in _WARMTHS:
        if time.perf_counter() > deadline:
            break
        answer = minimize(
            below,
            scaled,
            args=(warmth * scale / groups,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, most)] * len(units),
            options={"maxiter": _STEPS, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-9},
            callback=_until(deadline),
        )
        scaled = np.maximum(answer.x, 0)
    return np.split(scaled * scale / units, ends[:-1])


def _until(deadline: float) -> Callable[[Floats], None]:
    def stop(_: Floats) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    return stop
