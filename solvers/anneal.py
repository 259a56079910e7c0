"""Simulated annealing: what researchers compare with; its answers are checked, and it proves little.

S. Kirkpatrick, C. Gelatt and M. Vecchi, Optimization by simulated annealing, Science 220 (1983).
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence

import numpy as np

from solvers.check import broken, floor, values
from solvers.moves.starts import cheapest, least_pressing
from solvers.moves.tables import Tables
from solvers.moves.walk import Walk
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, bound=False, spreads=True, hints=True, deterministic=True, traces=True)
_SAMPLE = 200
"""Moves that are looked at to learn how much one changes."""
_FIRST_RESTART = 2_000
"""Moves in the first descent of temperature, and for each group; every restart has twice as many."""
_OF_GROUP = 20
_HOT, _COLDEST = 0.2, 1e-3
"""The first temperature, as a share of what a move usually changes, and the last, as a share of the first."""
_PATIENCE = 4
"""It ends where so many descents in a row brought nothing."""
_EVERY = 100
"""So many moves between looks at the clock and changes of temperature and price."""
_DEARER, _CHEAPER = 1.05, 0.95
"""By what the price of excess is multiplied after moves that end in excess, and after moves that end without."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Move at random, upwards the more rarely the colder it is, from the best choice known, again and again.

    What is lowered is the objective plus a price on the excess, which is the sum over rows of what lies above the
    capacity, as a share of the room in that row. The price rises while there is excess and falls slowly without.

    Args:
        problem: The problem.
        limits: How long it may take; ``work`` is the number of moves that are looked at, and makes answers the same
            on every machine as long as the time suffices.
        hint: A choice to start from.

    Returns:
        The best choice found with a simple bound, or ``limit``: annealing never proves that there is none.
    """
    search = _Search(problem, limits)
    tables = search.tables
    starts = [] if hint is None else [np.asarray(hint, np.int64)]
    for start in (*starts, least_pressing(tables), cheapest(tables)):
        search.consider(Walk(tables, start.tolist()))
    walk = Walk(tables, (starts[0] if starts else least_pressing(tables)).tolist())
    free = np.flatnonzero(np.diff(problem.start) > 1).tolist()
    moves = _FIRST_RESTART + _OF_GROUP * problem.groups
    idle = 0
    while free and idle < _PATIENCE and not search.ended():
        before = search.best
        _anneal(walk, search, free, moves)
        idle = idle + 1 if search.best == before else 0
        moves *= 2
        if search.best is not None:
            walk = Walk(tables, search.best[1])
    return search.answer()


class _Search:
    """What was found so far, and what is left of the limits."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.tables = Tables.of(problem)
        self.limits = limits
        self.random = random.Random(limits.seed)  # noqa: S311 - no secret is drawn
        self.floor = floor(problem)
        self.best: tuple[int, tuple[int, ...]] | None = None
        self.looked = 0
        self._begin = time.perf_counter()

    def ended(self) -> bool:
        """Return whether a limit is reached, or the best choice is good enough."""
        if self.best is not None and self.best[0] - self.floor <= self.limits.gap * self.best[0]:
            return True
        if self.limits.work is not None and self.looked >= self.limits.work:
            return True
        return time.perf_counter() - self._begin >= self.limits.time_s

    def consider(self, walk: Walk) -> None:
        """Keep where a walk stands, if it breaks nothing and is the best so far."""
        if walk.keeps() and (self.best is None or walk.objective < self.best[0]):
            self.best = (walk.objective, tuple(walk.places))
            if self.limits.watch is not None:
                self.limits.watch(time.perf_counter() - self._begin, walk.objective, self.floor)

    def answer(self) -> Solution:
        """Return the best choice, looked at once more by itself."""
        problem = self.tables.problem
        if self.best is None or broken(problem, self.best[1]):
            return Solution(status=Status.LIMIT, bound=self.floor)
        objective = values(problem, self.best[1])[problem.objective]
        status = Status.OPTIMAL if objective == self.floor else Status.FEASIBLE
        return Solution(status=status, choices=self.best[1], objective=objective, bound=self.floor)


def _anneal(walk: Walk, search: _Search, free: list[int], moves: int) -> None:
    """Let the temperature fall once, over so many moves."""
    sizes = np.diff(walk.tables.problem.start).tolist()
    chance = search.random.random
    warm, price = _heat(walk, search, free)
    falling = _COLDEST ** (_EVERY / moves)
    keeps = walk.keeps()
    for _ in range(0, moves, _EVERY):
        if search.ended():
            break
        for _ in range(_EVERY):
            group = free[int(chance() * len(free))]
            place = int(chance() * (sizes[group] - 1))
            move = walk.look(group, place + (place >= walk.places[group]))
            worse = move.dearer + price * move.excess
            if worse > 0:
                if chance() >= math.exp(-worse / warm):
                    continue
                if keeps:
                    search.consider(walk)
            walk.make(move)
            if move.excess > 0:
                keeps = False
            elif not keeps and move.excess < 0:
                keeps = walk.keeps()
        search.looked += _EVERY
        warm *= falling
        price *= _CHEAPER if keeps else _DEARER
    search.consider(walk)


def _heat(walk: Walk, search: _Search, free: list[int]) -> tuple[float, float]:
    """Return a temperature at which many moves are made, and a price at which excess counts like the objective."""
    sizes = np.diff(walk.tables.problem.start).tolist()
    dearer, excess = [], []
    for _ in range(_SAMPLE):
        group = free[search.random.randrange(len(free))]
        move = walk.look(group, search.random.randrange(sizes[group]))
        dearer.append(abs(move.dearer))
        excess.append(abs(move.excess))
    usual = statistics.fmean(dearer) or 1.0
    return _HOT * usual, usual / (statistics.fmean(excess) or 1.0)
