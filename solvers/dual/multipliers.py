"""Prices of all rows at which the Lagrangian function is greatest, or close to it.

What is returned are prices and a value in floating point. Any prices prove a bound: `solvers.dual.bound` evaluates them
exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from solvers.arrays import Integers
from solvers.dual.intersect import Floats, Sides, climb, meet, picked
from solvers.dual.layout import Band, Layout, layout
from solvers.problem import Problem

__all__ = ["Dual", "multipliers", "optimise", "outer_costs"]

_FEW_TERMS = 200_000
"""Up to so many terms in coupling rows, several of them are priced by linear programming."""
_TOLERANCE = 1e-6
_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dual:
    """Prices and the choices that are cheapest around them.

    Attributes:
        prices: The price of each of the problem's rows, ``(rows,)``, 0 for those that cannot be broken.
        value: The Lagrangian function there, in floating point.
        sides: The prices and choices of the blocks, at these prices of the coupling rows.
        risen: Whether the function still rose where the search ended: then perhaps nothing keeps the capacities.
    """

    prices: Floats
    value: float
    sides: Sides
    risen: bool = False


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
        return _finish(laid, [], meet(costs, times, room, laid.first), risen=False)
    if len(coupling) == 1 and len(coupling[0].rows) == 1:
        return _one(laid, costs, times, room)
    if sum(int(np.count_nonzero(band.costs)) for band in laid.bands) <= _FEW_TERMS:
        prices, risen = _by_linear_programming(laid)
    else:
        prices, risen = _by_steps(laid, costs, times, room, deadline), False
    return _finish(laid, prices, meet(costs + outer_costs(laid, prices), times, room, laid.first), risen=risen)


def outer_costs(laid: Layout, prices: list[Floats]) -> Floats:
    """Return what the coupling rows add to each option's cost at their prices, ``(options, groups)``."""
    total = np.zeros(laid.costs.shape)
    for band, price in zip(laid.bands[1:], prices, strict=True):
        total += band.costs * np.where(band.owner >= 0, price[band.owner], 0.0)
    return total


def _finish(laid: Layout, outer: list[Floats], sides: Sides, *, risen: bool) -> Dual:
    prices = np.zeros(len(laid.problem.rows))
    value = sides.value + laid.problem.rows[laid.problem.objective].constant
    for band, price in zip(laid.bands[1:], outer, strict=True):
        prices[band.rows] = price
        value -= float(price @ band.capacities)
    if laid.bands:
        local = laid.bands[0]
        owner = local.owner[laid.first[:-1]]
        prices[local.rows[owner[owner >= 0]]] = sides.prices[owner >= 0]
    return Dual(prices=prices, value=value, sides=sides, risen=risen)


def _one(laid: Layout, costs: Floats, times: Floats, room: Floats) -> Dual:
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
    _, topped = climb(look, start or 1.0, tolerance=_TOLERANCE)
    assert best is not None  # noqa: S101 - climb looks at 0 at least
    return _finish(laid, [np.array([best[1]])], best[2], risen=not topped)


def _by_linear_programming(laid: Layout) -> tuple[list[Floats], bool]:
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
        # Without a top: prices by how far the rows are from being kept say where to look for the proof of it.
        return [np.zeros(len(band.rows)) for band in laid.bands[1:]], True
    prices = np.maximum(-answer.ineqlin.marginals, 0) * scale / unit
    ends = np.cumsum([len(band.rows) for band in laid.bands])
    return np.split(prices, ends[:-1])[1:], False


def _by_steps(laid: Layout, costs: Floats, times: Floats, room: Floats, deadline: float) -> list[Floats]:
    """Follow subgradients of the coupling rows, the local rows inside being solved at each step.

    The step is the one that would reach a target just above the best value if the function were linear (B. T. Polyak,
    Minimization of unsmooth functionals, USSR Computational Mathematics 9(3), 1969); the target comes closer whenever
    it proves too far.
    """
    coupling = laid.bands[1:]
    units = [np.maximum(band.capacities, 1).astype(np.float64) for band in coupling]
    prices = [np.zeros(len(band.rows)) for band in coupling]
    best, best_value, guess = prices, -np.inf, None
    ahead, failed = 0.05, 0
    direction = [np.zeros(len(price)) for price in prices]
    for _ in range(_STEPS):
        sides = meet(costs + outer_costs(laid, prices), times, room, laid.first, guess, tolerance=1e-5)
        guess = sides.prices
        value = sides.value - sum(float(p @ band.capacities) for p, band in zip(prices, coupling, strict=True))
        if value > best_value + 1e-6 * abs(best_value):
            best, best_value, failed = prices, value, 0
        else:
            failed += 1
        if failed >= 8:
            ahead, failed, prices = ahead / 2, 0, best
            if ahead < 1e-5:
                break
        if time.perf_counter() > deadline:
            break
        slopes = [_slope(band, sides, laid.first) / unit for band, unit in zip(coupling, units, strict=True)]
        direction = [0.7 * slope + 0.3 * old for slope, old in zip(slopes, direction, strict=True)]
        norm = sum(float(d @ d) for d in direction)
        if not norm:
            break
        step = (best_value - value + ahead * max(abs(best_value), 1.0)) / norm
        prices = [
            np.maximum(price + step * d / unit, 0.0) for price, d, unit in zip(prices, direction, units, strict=True)
        ]
    return best


def _slope(band: Band, sides: Sides, first: Integers) -> Floats:
    """Return how far the mixture of each block's two sides lies beyond each row of a band."""
    share = np.repeat(sides.share, np.diff(first))
    inner, outer = (picked(band.costs, places).astype(np.float64) for places in (sides.kept, sides.broken))
    there = band.owner >= 0
    used = (share * inner + (1 - share) * outer)[there]
    found: Floats = np.bincount(band.owner[there], used, len(band.rows)).astype(np.float64)
    found -= band.capacities
    return found
