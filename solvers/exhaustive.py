"""Try every combination: the oracle that the other solvers are compared with, for small problems only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from solvers.check import floor
from solvers.moves.many import evaluate
from solvers.moves.tables import Tables
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "MOST_COMBINATIONS", "solve"]

CAPABILITIES = Capabilities(exact=True, spreads=True)
MOST_COMBINATIONS = 50_000_000
_CHUNK = 1 << 16


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Evaluate all combinations, in blocks, and keep the best; the first of equals.

    Args:
        problem: The problem.
        limits: How long it may take.
        hint: Not used.

    Returns:
        The optimum or the proof that there is none; what was found so far where the time ends.

    Raises:
        RefusedError: There are more than ``MOST_COMBINATIONS`` combinations.
    """
    sizes = tuple(int(size) for size in np.diff(problem.start))
    count = math.prod(sizes)
    if count > MOST_COMBINATIONS:
        shown = str(count) if count < 10**15 else f"about 10^{len(str(count)) - 1}"
        raise RefusedError(f"exhaustive tries at most {MOST_COMBINATIONS} combinations; this problem has {shown}")
    deadline = time.perf_counter() + limits.time_s
    tables = Tables.of(problem)
    # A dimension more than numpy's 64 would be refused, and groups of one option have nothing to try.
    free = np.flatnonzero(np.array(sizes) > 1)
    shape = tuple(sizes[group] for group in free)
    best: tuple[int, int] | None = None
    beyond = 0
    while beyond < count and (beyond == 0 or time.perf_counter() < deadline):
        first, beyond = beyond, min(count, beyond + _CHUNK)
        places = np.zeros((problem.groups, beyond - first), np.int64)
        if shape:
            places[free] = np.unravel_index(np.arange(first, beyond), shape)
        found = evaluate(tables, places)
        keeps = np.flatnonzero((found <= tables.capacity[:, None]).all(axis=0))
        if len(keeps):
            objective = found[problem.objective, keeps]
            index = int(np.argmin(objective))
            if best is None or int(objective[index]) < best[0]:
                best = (int(objective[index]), first + int(keeps[index]))
    complete = beyond == count
    if best is None:
        return Solution(status=Status.INFEASIBLE if complete else Status.LIMIT)
    chosen = np.zeros(problem.groups, np.int64)
    if shape:
        chosen[free] = np.unravel_index(best[1], shape)
    bound = best[0] if complete else min(floor(problem), best[0])
    status = Status.OPTIMAL if bound == best[0] else Status.FEASIBLE
    return Solution(status=status, choices=tuple(chosen.tolist()), objective=best[0], bound=bound)
