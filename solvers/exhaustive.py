"""Try every combination: the oracle that the other solvers are compared with, for small problems only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from solvers.check import floor
from solvers.problem import LARGEST, Integers, Peak, Problem, Row
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "MOST_COMBINATIONS", "solve"]

CAPABILITIES = Capabilities(exact=True)
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
    best: tuple[int, int] | None = None
    beyond = 0
    while beyond < count and (beyond == 0 or time.perf_counter() < deadline):
        first, beyond = beyond, min(count, beyond + _CHUNK)
        choices = np.unravel_index(np.arange(first, beyond), sizes)
        objective, keeps = _evaluate(problem, choices)
        if keeps.any():
            index = int(np.flatnonzero(keeps)[np.argmin(objective[keeps])])
            if best is None or int(objective[index]) < best[0]:
                best = (int(objective[index]), first + index)
    complete = beyond == count
    if best is None:
        return Solution(status=Status.INFEASIBLE if complete else Status.LIMIT)
    chosen = tuple(int(choice) for choice in np.unravel_index(best[1], sizes))
    bound = best[0] if complete else min(floor(problem), best[0])
    status = Status.OPTIMAL if bound == best[0] else Status.FEASIBLE
    return Solution(status=status, choices=chosen, objective=best[0], bound=bound)


def _evaluate(problem: Problem, choices: Sequence[npt.NDArray[np.intp]]) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Compute the objective of each combination, and whether it keeps every capacity."""
    highest = [np.max(_of_groups(problem, choices, peak), axis=0) for peak in problem.peaks]
    totals = []
    for row in problem.rows:
        total = row.constant + np.sum(_of_groups(problem, choices, row), axis=0)
        totals.append(total + sum(highest[index] for index in row.peaks))
    keeps = np.ones(len(choices[0]), np.bool_)
    for pair in problem.pairs:
        source = pair.source_format[choices[pair.source]]
        target = pair.target_format[choices[pair.target]]
        keeps &= pair.allowed[source, target]
        for row_index, matrix in pair.costs:
            totals[row_index] += matrix[source, target]
    for row, total in zip(problem.rows, totals, strict=True):
        if row.capacity is not None and row.capacity < LARGEST:
            keeps &= total <= row.capacity
    return totals[problem.objective], keeps


def _of_groups(problem: Problem, choices: Sequence[npt.NDArray[np.intp]], terms: Row | Peak) -> list[Integers]:
    """Return what each combination costs in each group, ``(groups, combinations)``."""
    costs = np.zeros(problem.options, np.int64)
    costs[terms.options] = terms.costs
    starts = problem.start[:-1].tolist()
    return [costs[first + chosen] for first, chosen in zip(starts, choices, strict=True)]
