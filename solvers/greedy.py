"""Move by move by the best ratio: fast, always checked, never better than exact solvers, proves little.

Y. Toyoda, A simplified algorithm for obtaining approximate solutions to zero-one programming problems, Management
Science 21 (1975): what an option takes of the scarce room is one figure, and what it brings is set in relation to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solvers.arrays import Integers
from solvers.moves.incumbent import Incumbent
from solvers.moves.scores import Scores, Weights
from solvers.moves.starts import cheapest, least_pressing
from solvers.moves.tables import Tables
from solvers.moves.walk import Move, Walk
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, bound=False, spreads=True, hints=True, traces=True)
_ROUNDS = 16
"""Moves are weighed again after a share of one to this many groups has moved: after each where there are few."""
_NOTHING = 1e-12
"""A share of room below this counts as nothing taken."""
_MOST_MOVES = 4
"""So many times can each option be moved to, at most; that ends walks that floats would let go in circles."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Repair a choice by the least objective for each unit of excess, then improve what is left.

    The excess is the sum over rows of what lies above the capacity, as a share of the room in that row. Three starts
    are tried: the hint, each group at its cheapest, and each group at what presses least on the capacities.

    Args:
        problem: The problem.
        limits: How long it may take.
        hint: A choice to start from.

    Returns:
        The best choice found with a simple bound, or ``limit``: greedy never proves that there is none.
    """
    best = Incumbent(problem, limits)
    scores = Scores(Tables.of(problem))
    starts = [] if hint is None else [np.asarray(hint, np.int64)]
    for start in (*starts, cheapest(scores.tables), least_pressing(scores.tables)):
        if best.objective is not None and best.ended():
            break
        walk = _descend(scores, start, best)
        if walk.keeps():
            best.offer(walk.objective, walk.places)
    return best.answer()


def _descend(scores: Scores, start: Integers, best: Incumbent) -> Walk:
    """Move while a move lowers the excess, or, without excess, the objective."""
    tables = scores.tables
    walk = Walk(tables, start.tolist())
    together = max(1, tables.problem.groups // _ROUNDS)
    left = _MOST_MOVES * tables.problem.options
    while left > 0 and not best.late():
        keeps = walk.keeps()
        moved = _make_all(walk, *_candidates(tables, scores.weigh(walk), together, keeps=keeps), keeps=keeps)
        if not moved:
            break
        left -= moved
    return walk


def _candidates(tables: Tables, weights: Weights, most: int, *, keeps: bool) -> tuple[Integers, float]:
    """Return options to take, the best of each group that helps, by falling worth, and the ratio of the last.

    Args:
        tables: The problem as accounts and blocks.
        weights: What each move would change.
        most: How many options to return at most.
        keeps: Whether nothing is broken now.
    """
    helps = (weights.dearer < 0) & (weights.relief >= 0) if keeps else weights.relief > 0
    found = np.flatnonzero(helps)
    dearer, relief = weights.dearer[found], weights.relief[found]
    taken = weights.room[found] if keeps else relief
    ratio = np.full(len(found), -np.inf)
    np.divide(dearer, taken, out=ratio, where=taken > _NOTHING if keeps else dearer > 0)
    if not len(found):
        return found, 0.0
    group = tables.of_option[found]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    least = np.minimum.reduceat(ratio, first)
    best = np.flatnonzero(ratio == np.repeat(least, np.diff(np.append(first, len(found)))))
    if len(best) > most:
        best = best[ratio[best] <= np.partition(ratio[best], most - 1)[most - 1]]
    order = best[np.lexsort(((dearer if keeps else -relief)[best], ratio[best]))]
    _, first = np.unique(group[order], return_index=True)
    chosen = order[np.sort(first)[:most]]
    return found[chosen], float(ratio[chosen[-1]])


def _make_all(walk: Walk, options: Integers, worst: float, *, keeps: bool) -> int:
    """Make those moves that still help, and as well as the last of them would have, after those made before.

    Returns:
        How many were made.
    """
    tables = walk.tables
    made = 0
    for option in options.tolist():
        group = int(tables.of_option[option])
        move: Move = walk.look(group, option - int(tables.problem.start[group]))
        if keeps:
            helps = move.excess <= 0 and move.dearer < 0
        else:
            helps = move.excess < 0 and (made == 0 or move.dearer <= 0 or move.dearer <= -move.excess * worst)
        if helps:
            walk.make(move)
            made += 1
    return made
