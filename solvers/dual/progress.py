"""What a search knows so far: the best choice, the best bound, and how much time is left."""

from __future__ import annotations

import time

import numpy as np

from solvers.arrays import Integers
from solvers.dual.intersect import Places, picked
from solvers.dual.layout import Band, Layout
from solvers.solution import Solution, Status
from solvers.solver import Limits

__all__ = ["Progress", "use"]


def use(band: Band, places: Places) -> Integers:
    """Return what a choice takes of each row of a band, exactly, ``(R,)``."""
    costs = picked(band.costs, places)
    total = np.zeros(len(band.rows), np.int64)
    there = band.owner >= 0
    np.add.at(total, band.owner[there], costs[there])
    return total


class Progress:
    """Keeps the best choice and bound of a problem that is laid out, and tells whoever watches.

    Attributes:
        objective: What the best choice costs; None without one.
        bound: What no choice that keeps the capacities can undercut; None where nothing is known.
        prices: Prices of all rows that prove a bound, perhaps a lower one; None before there are any.
        infeasible: Whether it is proven that nothing keeps the capacities.
    """

    def __init__(self, laid: Layout, limits: Limits, begin: float) -> None:
        self._laid = laid
        self._limits = limits
        self._begin = begin
        self._constant = laid.problem.rows[laid.problem.objective].constant
        self.deadline = begin + limits.time_s
        self.places: Places | None = None
        self.objective: int | None = None
        self.bound: int | None = None
        self.prices: tuple[float, ...] | None = None
        self.infeasible = False

    @property
    def done(self) -> bool:
        """Whether there is nothing more to do: the gap is reached, there is proof against any choice, or no time."""
        return self.infeasible or self.closed or self.late

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self.deadline

    @property
    def closed(self) -> bool:
        """Whether the gap is reached."""
        if self.objective is None or self.bound is None:
            return False
        return self.objective - self.bound <= self._limits.gap * self.objective

    def keeps(self, places: Places) -> bool:
        """Tell whether a choice keeps every capacity that could be broken, but for the objective's own."""
        return all(bool((use(band, places) <= band.capacities).all()) for band in self._laid.bands)

    def offer(self, places: Places | None) -> bool:
        """Take a choice if it keeps the capacities and is better than the best so far; tell whether it was."""
        if places is None or not self.keeps(places):
            return False
        objective = self._constant + int(picked(self._laid.costs, places).sum())
        if self.objective is not None and objective >= self.objective:
            return False
        self.places, self.objective = places.copy(), objective
        self._tell()
        return True

    def prove(self, bound: int) -> None:
        """Take a bound if it is better than the best so far."""
        if self.bound is None or bound > self.bound:
            self.bound = bound
            self._tell()

    def _tell(self) -> None:
        if self._limits.watch is not None:
            self._limits.watch(time.perf_counter() - self._begin, self.objective, self.bound)

    def solution(self) -> Solution:
        """Return what is known as an answer, the objective's own capacity considered."""
        capacity = self._laid.problem.rows[self._laid.problem.objective].capacity
        if capacity is not None and self.bound is not None and self.bound > capacity:
            self.infeasible = True
        if self.infeasible:
            return Solution(status=Status.INFEASIBLE)
        if self.places is None or self.objective is None or (capacity is not None and self.objective > capacity):
            return Solution(status=Status.LIMIT, bound=self.bound, prices=self.prices)
        status = Status.OPTIMAL if self.bound == self.objective else Status.FEASIBLE
        return Solution(
            status=status,
            choices=self._laid.choices(self.places),
            objective=self.objective,
            bound=self.bound,
            prices=self.prices,
        )
