"""Simulated annealing: what researchers compare with; its answers are checked, and it proves little.

S. Kirkpatrick, C. Gelatt and M. Vecchi, Optimization by simulated annealing, Science 220 (1983).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np

from solvers.moves.incumbent import Incumbent
from solvers.moves.starts import cheapest, least_pressing
from solvers.moves.tables import Tables
from solvers.moves.walk import Walk
from solvers.problem import Problem
from solvers.solution import Solution
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
    best = Incumbent(problem, limits)
    tables = Tables.of(problem)
    known = [] if hint is None else [np.asarray(hint, np.int64)]
    for start in (*known, cheapest(tables), least_pressing(tables)):
        walk = Walk(tables, start.tolist())
        _consider(walk, best)
    draw = random.Random(limits.seed)  # noqa: S311 - no secret is drawn
    free = np.flatnonzero(np.diff(problem.start) > 1).tolist()
    moves = _FIRST_RESTART + _OF_GROUP * problem.groups
    idle = 0
    while free and idle < _PATIENCE and not best.ended():
        if best.objective is not None:
            walk = Walk(tables, best.choices)
        before = best.objective
        _anneal(walk, best, draw, free, moves)
        idle = idle + 1 if best.objective == before else 0
        moves *= 2
    return best.answer()


def _consider(walk: Walk, best: Incumbent) -> None:
    """Keep where a walk stands, if it breaks nothing and is the best so far."""
    if walk.keeps() and (best.objective is None or walk.objective < best.objective):
        best.offer(walk.objective, walk.places)


def _anneal(walk: Walk, best: Incumbent, draw: random.Random, free: list[int], moves: int) -> None:
    """Let the temperature fall once, over so many moves."""
    sizes = np.diff(walk.tables.problem.start).tolist()
    chance = draw.random
    warm, price = _heat(walk, draw, free)
    falling = _COLDEST ** (_EVERY / moves)
    keeps = walk.keeps()
    for _ in range(0, moves, _EVERY):
        if best.ended():
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
                    _consider(walk, best)
            walk.make(move)
            if move.excess > 0:
                keeps = False
            elif not keeps and move.excess < 0:
                keeps = walk.keeps()
        best.work += _EVERY
        warm *= falling
        price *= _CHEAPER if keeps else _DEARER
    _consider(walk, best)


def _heat(walk: Walk, draw: random.Random, free: list[int]) -> tuple[float, float]:
    """Return a temperature at which many moves are made, and a price at which excess counts like the objective."""
    sizes = np.diff(walk.tables.problem.start).tolist()
    dearer, excess = [], []
    for _ in range(_SAMPLE):
        group = free[draw.randrange(len(free))]
        move = walk.look(group, draw.randrange(sizes[group]))
        dearer.append(abs(move.dearer))
        excess.append(abs(move.excess))
    usual = statistics.fmean(dearer) or 1.0
    return _HOT * usual, usual / (statistics.fmean(excess) or 1.0)
