"""Prices instead of capacities: a bound and a choice close to it, for problems of any size.

A. M. Geoffrion (Lagrangean relaxation for integer programming, Mathematical Programming Study 2, 1974) and M. L. Fisher
(Management Science 27(1), 1981), with what this kind of problem adds:

1. prices of all rows by line intersection (`solvers.dual.multipliers`);
2. with prices of the coupling rows alone, every block is a knapsack that is solved to the end, which gives a better
   bound than any linear relaxation (`solvers.dual.partial`, `solvers.dual.core`);
3. the blocks' good choices are combined so that the coupling row is kept (`solvers.dual.pool`), which gives a choice,
   and the next price to look at (`solvers.dual.coupled`).

Problems with pairs or peaks go to `solvers.dual.chains`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from solvers import exhaustive
from solvers.dual.bound import exact_bound
from solvers.dual.coupled import search
from solvers.dual.intersect import cheapest, picked
from solvers.dual.layout import layout
from solvers.dual.multipliers import optimise
from solvers.dual.progress import Progress, use
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, hints=True, traces=True)

_FEW_COMBINATIONS = 2_000_000
"""So many are tried one by one where there is neither a choice nor a proof that there is none."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Price the capacities, solve what is left, and put together a choice.

    Args:
        problem: The problem.
        limits: How long it may take, with how many threads, and at which gap it may stop.
        hint: A choice to start from; it is of use where it keeps the capacities.

    Returns:
        The best choice found and a bound, or the proof that nothing keeps the capacities.

    Raises:
        RefusedError: A few groups are far larger than the many others.
    """
    begin = time.perf_counter()
    if len(problem.pairs) or problem.peaks:
        from solvers.dual import chains

        return chains.solve(problem, limits, hint)
    progress = priced(problem, limits, hint, begin)
    answer = progress.solution()
    combinations = float(np.log(np.diff(problem.start)).sum())
    if answer.status is Status.LIMIT and combinations <= math.log(_FEW_COMBINATIONS) and not progress.late:
        return exhaustive.solve(problem, replace(limits, time_s=progress.deadline - time.perf_counter()), hint)
    return answer


def priced(problem: Problem, limits: Limits, hint: Sequence[int] | None, begin: float) -> Progress:
    """Go through the steps until nothing is left to be gained.

    Args:
        problem: A problem without pairs and peaks.
        limits: How long it may take.
        hint: A choice to start from.
        begin: When the time began, by ``time.perf_counter``.

    Returns:
        What is known in the end.
    """
    laid = layout(problem)
    progress = Progress(laid, limits, begin)
    for band in laid.bands:
        if bool((use(band, cheapest(band.costs)) > band.capacities).any()):
            progress.infeasible = True
            return progress
    if hint is not None:
        progress.offer(laid.places(hint).astype(np.int16))
    least = cheapest(laid.costs)
    progress.prove(problem.rows[problem.objective].constant + int(picked(laid.costs, least).sum()))
    progress.offer(least)
    if progress.done:
        return progress
    dual = optimise(laid, progress.deadline)
    progress.prices = tuple(dual.prices.tolist())
    progress.prove(exact_bound(problem, dual.prices))
    search(laid, dual, progress, limits)
    return progress
