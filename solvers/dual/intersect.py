"""The Lagrangian dual by line intersection: all prices of one band at once, then one price around them.

Along one price the function is concave and piecewise linear. Two points on either side of its top each give a line that
lies above it; where the lines meet is the next price to look at (M. L. Fisher, The Lagrangian relaxation method for
solving integer programming problems, Management Science 27(1), 1981, section 4; the one-dimensional case of Kelley's
cutting planes). Blocks share no row of the band, so one pass over all options serves all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers

__all__ = ["Floats", "Sides", "cheapest", "climb", "meet", "picked"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int16]
Number = TypeVar("Number", np.int64, np.float64)

_STEPS = 60
_WIDENING = 0.02
"""How far from a price that held nearby the other side is looked for first, as a share of the price."""


def cheapest(costs: npt.NDArray[Number]) -> Places:
    """Return the first of the cheapest options of each group, from ``costs[option][group]``.

    numpy's own argmin over the first axis visits memory in the wrong order; this one goes through it in rows.
    """
    best = costs[0].copy()
    found = np.zeros(costs.shape[1], np.int16)
    for place in range(1, len(costs)):
        better = costs[place] < best
        np.copyto(found, np.int16(place), where=better)
        np.minimum(best, costs[place], out=best)
    return found


def picked(costs: npt.NDArray[Number], places: npt.NDArray[np.integer]) -> npt.NDArray[Number]:
    """Return ``costs[places[group]][group]`` for each group."""
    flat = places.astype(np.int64)
    flat *= costs.shape[1]
    flat += np.arange(costs.shape[1])
    return costs.ravel().take(flat)


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Where the Lagrangian function of each block is greatest, with the choices on either side.

    Attributes:
        prices: The price of each block's local row, ``(blocks,)``.
        value: The sum of the blocks' values at these prices; the dual's value or, by the tolerance, a little less.
        kept: The option of each group on the side that keeps the local rows, ``(groups,)``.
        broken: The option of each group on the side that does not; that of ``kept`` where all do.
        share: The share of ``kept`` in the mixture of both that fills the row, ``(blocks,)``.
    """

    prices: Floats
    value: float
    kept: Places
    broken: Places
    share: Floats

    def mixed(self, costs: Floats, first: Integers) -> Floats:
        """Return what the mixture costs in each block, by ``costs[option][group]``."""
        starts = first[:-1]
        inner = np.add.reduceat(picked(costs, self.kept), starts)
        outer = np.add.reduceat(picked(costs, self.broken), starts)
        found: Floats = outer + self.share * (inner - outer)
        return found


class _Bracket:
    """What is known of each block's function: the nearest choice on either side of its top."""

    def __init__(self, costs: Floats, times: Floats, room: Floats, first: Integers) -> None:
        self._costs, self._times, self._room = costs, times, room
        self._starts, self._sizes = first[:-1], np.diff(first)
        self._scratch = np.empty_like(costs)
        self.prices = np.zeros(len(room))
        self.broken, self.low_cost, self.low_time = self._respond(self.prices)
        self.free = self.low_time <= room
        """Blocks whose row is kept without a price."""
        np.copyto(self._scratch, costs)
        np.copyto(self._scratch, np.inf, where=times > times.min(axis=0))
        self.kept, high_cost, high_time = self._total(cheapest(self._scratch))
        self._over(self.broken, self.free, self.kept)
        self.high_cost = np.where(self.free, self.low_cost, high_cost)
        self.high_time = np.where(self.free, self.low_time, high_time)
        self.best = np.where(self.free, self.low_cost, -np.inf)

    def _respond(self, prices: Floats) -> tuple[Places, Floats, Floats]:
        np.multiply(self._times, np.repeat(prices, self._sizes), out=self._scratch)
        np.add(self._scratch, self._costs, out=self._scratch)
        return self._total(cheapest(self._scratch))

    def _total(self, places: Places) -> tuple[Places, Floats, Floats]:
        cost, time = (np.add.reduceat(picked(of, places), self._starts) for of in (self._costs, self._times))
        return places, cost, time

    def _over(self, places: Places, chosen: npt.NDArray[np.bool_], others: Places) -> None:
        if chosen.any():
            np.copyto(others, places, where=np.repeat(chosen, self._sizes))

    def look(self, at: Floats, active: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Evaluate active blocks at these prices, and take their choices as sides where they lie nearer.

        Returns:
            Each block's value, and whether its choice keeps the row.
        """
        places, cost, time = self._respond(np.where(active, at, 0.0))
        value = cost + at * (time - self._room)
        better = active & (value > self.best)
        np.copyto(self.best, value, where=better)
        np.copyto(self.prices, at, where=better)
        keeps = time <= self._room
        nearer = active & keeps & (time >= self.high_time)
        self._over(places, nearer, self.kept)
        self.high_cost[nearer], self.high_time[nearer] = cost[nearer], time[nearer]
        nearer = active & ~keeps & (time <= self.low_time)
        self._over(places, nearer, self.broken)
        self.low_cost[nearer], self.low_time[nearer] = cost[nearer], time[nearer]
        return value, keeps

    def meeting(self, active: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return where the two lines of each active block meet, and how high."""
        apart = active & (self.low_time > self.high_time)
        span = np.where(apart, self.low_time - self.high_time, 1.0)
        at = np.maximum(np.where(apart, (self.high_cost - self.low_cost) / span, 0.0), 0.0)
        return at, self.low_cost + at * (self.low_time - self._room)

    def sides(self) -> Sides:
        """Return what was found; where nothing was looked at, a price of 0 is as valid as any."""
        span = self.low_time - self.high_time
        whole = self.free | (span <= 0)
        share = np.clip((self.low_time - self._room) / np.where(span > 0, span, 1.0), 0.0, 1.0)
        value = float(self.best.sum())
        return Sides(self.prices, value, self.kept, self.broken, np.where(whole, 1.0, share))


def meet(
    costs: Floats, times: Floats, room: Floats, first: Integers, guess: Floats | None = None, tolerance: float = 1e-9
) -> Sides:
    """Maximise the Lagrangian function of every block over the price of its own row.

    Args:
        costs: What each option costs, other prices included, ``costs[option][group]``.
        times: What it costs in the local row, likewise.
        room: What each block may cost there, ``(blocks,)``; at least the least that it can cost.
        first: Where each block's groups begin, ``(blocks + 1,)``.
        guess: Prices that were best for costs not far from these.
        tolerance: What may be left of the total, as a share of it.

    Returns:
        The prices and the choices around them.
    """
    bracket = _Bracket(costs, times, room, first)
    active = ~bracket.free
    if guess is not None and active.any():
        _, keeps = bracket.look(guess, active)
        bracket.look(guess * np.where(keeps, 1 - _WIDENING, 1 + _WIDENING), active)
    for _ in range(_STEPS):
        at, line = bracket.meeting(active)
        left = np.where(active, line - bracket.best, 0.0).sum()
        if left <= tolerance * abs(bracket.best[np.isfinite(bracket.best)].sum()):
            break
        value, _ = bracket.look(at, active)
        active = active & (value < line - 1e-12 * (np.abs(line) + at * room))
    return bracket.sides()


def climb(
    look: Callable[[float], tuple[float, float]],
    start: float,
    *,
    deadline: float = math.inf,
    steps: int = 40,
    tolerance: float = 1e-7,
) -> None:
    """Maximise a concave function of one price, 0 or more.

    Args:
        look: Returns the value and a slope at a price, and keeps the best.
        start: A price to look at first, above 0.
        deadline: When to stop, by ``time.perf_counter``.
        steps: How often to look at most.
        tolerance: What may be left, as a share of the value.
    """
    value, slope = look(0.0)
    if slope <= 0:
        return
    best, low, high = value, (value, slope, 0.0), None
    at, growth = start, 4.0
    for step in range(steps):
        if time.perf_counter() > deadline:
            break
        value, slope = look(at)
        best = max(best, value)
        if slope > 0:
            low = (value, slope, at)
        else:
            high = (value, slope, at)
        if high is None:
            at *= growth
            growth *= 2
            continue
        bottom = (high[0] - high[1] * high[2]) - (low[0] - low[1] * low[2])
        meeting = bottom / (low[1] - high[1])
        if low[0] + low[1] * (meeting - low[2]) - best <= tolerance * abs(best):
            break
        # Where the function is curved on one side alone, meeting points creep: every third step halves instead.
        at = 0.5 * (low[2] + high[2]) if step % 3 == 2 else min(max(meeting, low[2]), high[2])
