"""Try every combination: the oracle that the other solvers are compared with, for small problems only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from solvers.check import floor
from solvers.problem import Integers, Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "MOST_COMBINATIONS", "solve"]

CAPABILITIES = Capabilities(exact=True)
MOST_COMBINATIONS = 50_000_000
_CHUNK = 1 << 16


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:  # noqa: ARG001
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
        raise RefusedError(
            f"exhaustive tries at most {MOST_COMBINATIONS} combinations; this problem has {shown}"
        )
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


def _evaluate(
    problem: Problem, choices: Sequence[npt.NDArray[np.intp]]
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Compute the objective of each combination, and whether it keeps every capacity."""
    count = len(choices[0])

    def of_group(costs: Integers, group: int) -> Integers:
        part: Integers = costs[problem.start[group] : problem.start[group + 1]][choices[group]]
        return part

    def dense(options: Integers, costs: Integers) -> Integers:
        array = np.zeros(problem.options, np.int64)
        array[options] = costs
        return array

    peaks = []
    for peak in problem.peaks:
        costs, highest = dense(peak.options, peak.costs), np.zeros(count, np.int64)
        for group in range(problem.groups):
            np.maximum(highest, of_group(costs, group), out=highest)
        peaks.append(highest)
    totals = []
    for row in problem.rows:
        costs, total = dense(row.options, row.costs), np.full(count, row.constant, np.int64)
        for group in range(problem.groups):
            total += of_group(costs, group)
        for index in row.peaks:
            total += peaks[index]
        totals.append(total)
    keeps = np.ones(count, np.bool_)
    for pair in problem.pairs:
        source = pair.source_format[choices[pair.source]]
        target = pair.target_format[choices[pair.target]]
        keeps &= pair.allowed[source, target]
        for row_index, matrix in pair.costs:
            totals[row_index] += matrix[source, target]
    for row, total in zip(problem.rows, totals, strict=True):
        if row.capacity is not None:
            keeps &= total <= row.capacity if row.capacity < 2**63 else True
    return totals[problem.objective], keeps
