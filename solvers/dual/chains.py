"""Problems in which formats meet and peaks are shared: prices, exact answers of blocks, and a mixture of them.

1. Columns and prices: for given prices the least choice of each block is a least path through its formats
   (`trellis`); mixtures of such choices set the next prices (`ascent`, `master`).
2. Each block with its own row (a deadline) kept exactly, only what couples blocks priced (`settling`, `labels`): a
   better bound than linear programming can give, and better choices.
3. One choice for each block, within what couples them (`mixing`), and moves from there.

Bounds are evaluated in whole numbers (`whole`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from solvers import greedy
from solvers.check import broken, floor, values
from solvers.dual.ascent import between, climb, mix
from solvers.dual.columns import Columns, Prices
from solvers.dual.mixing import combine, keeps
from solvers.dual.oracle import Oracle
from solvers.dual.settling import Settled, diversify, settle
from solvers.dual.sweep import never
from solvers.dual.whole import Whole, bound, paid, value, whole
from solvers.problem import LARGEST, Integers, Problem
from solvers.solution import Solution, Status
from solvers.solver import Limits

__all__ = ["min_marginals", "solve"]

_FEW_BLOCKS = 64
"""Of so many blocks each is settled again and again, at prices that suit what is known of all."""
_CLOSE = 1e-6
_STEADY = (0.5, 0.0, 0.8, 0.95)
"""How far prices stay at the best so far, at first and each time that those between prove no more."""
_VARIED = ((500, 24), (4000, 96))
"""How many labels a block may have while choices are varied, and how many choices of each block are added."""
_FEW_OPTIONS = 20_000
"""With no more options, single moves are tried from the best choice as well."""
_SHARE_OF_PRICES = 0.6
"""Of the time limit, what finding prices may take."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Find a choice and a bound by Lagrangian relaxation, where groups meet or peaks are shared.

    Args:
        problem: The problem, without ties, forbidden options, spreads and further objectives.
        limits: How long it may take.
        hint: A choice to start from.

    Returns:
        The best choice found with its bound and prices; ``infeasible`` only with a proof, ``limit`` where neither a
        choice nor a proof was found.
    """
    return _Search(problem, limits).run(hint)


class _Search:
    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.begin = time.perf_counter()
        self.best: tuple[int, Integers] | None = None
        self.bound = floor(problem)
        self.prices: Prices | None = None

    def run(self, hint: Sequence[int] | None) -> Solution:
        """Go through the steps until the gap or the time limit is reached."""
        oracle = Oracle(self.problem)
        nothing = Prices(objective=1.0, row=np.zeros(len(self.problem.rows)), step=np.zeros(oracle.steps.count))
        if value(oracle, whole(oracle, nothing)) is None:
            return Solution(status=Status.INFEASIBLE, note="no choice of formats can meet everywhere")
        if hint is not None:
            self._try(self.problem.start[:-1] + np.asarray(hint, np.int64))
        columns = Columns(oracle)
        ascent = climb(columns, self.begin + _SHARE_OF_PRICES * self.limits.time_s)
        if ascent.conflict:
            return Solution(status=Status.INFEASIBLE, note="prices of the capacities alone prove a conflict")
        if ascent.prices is not None:
            self._price(columns, ascent.prices)
        if self.best is None or (not self._done() and self.problem.options <= _FEW_OPTIONS):
            self._move()
        return self._answer()

    def _price(self, columns: Columns, prices: Prices) -> None:
        """Turn prices into a bound, blocks' exact answers, and choices."""
        oracle = columns.oracle
        self.prices = prices
        exact = whole(oracle, prices)
        found = value(oracle, exact)
        if found is not None:
            self._raise(bound(exact, found))
        self._combine(columns, prices)
        if self._done() or not exact.fits:
            return
        most = (64, 1024, 8192) if oracle.blocks.count <= _FEW_BLOCKS else (16, 64, 256, 1024, 4096)
        for settled in settle(columns, exact, most, self._left):
            self._raise(bound(exact, settled.total()))
            self._combine(columns, prices)
            if self._done():
                return
        if oracle.blocks.count <= _FEW_BLOCKS:
            self._vary(columns, prices, *self._refine(columns, prices, exact, settled))

    def _refine(self, columns: Columns, prices: Prices, exact: Whole, settled: Settled) -> tuple[Whole, Settled]:
        """Set prices of what couples blocks by mixtures of columns that keep the blocks' own rows, and settle again.

        Returns:
            The prices that prove most, and what blocks come to at them.
        """
        own = columns.block_of_row >= 0
        constant = self.problem.rows[self.problem.objective].constant
        proven, failed = settled.total() / 2.0**exact.shift, 0
        best = prices
        while failed < len(_STEADY):
            mixture = mix(columns, keeps(columns))
            if mixture is None or not mixture.prices.objective or self._done():
                break
            if mixture.value + constant - proven <= _CLOSE * abs(proven):
                break
            new = replace(mixture.prices, row=np.where(own, prices.row, mixture.prices.row))
            asked = between(best, new, _STEADY[failed])
            at = whole(columns.oracle, asked)
            if not at.fits:
                break
            *_, found = settle(columns, at, (64, 1024), self._left)
            self._raise(bound(at, found.total()))
            failed += 1
            if found.total() / 2.0**at.shift > proven:
                proven, best, failed = found.total() / 2.0**at.shift, asked, 0
                exact, settled = at, found
            self._combine(columns, prices)
        return exact, settled

    def _vary(self, columns: Columns, prices: Prices, exact: Whole, settled: Settled) -> None:
        """Mix from more choices of each block: those that may be part of something better than what is known."""
        for most, others in _VARIED:
            if self.best is None or self._done():
                return
            window = (self.best[0] - self.bound) * exact.objective
            diversify(columns, exact, settled, window, most, others)
            self._combine(columns, prices)

    def _combine(self, columns: Columns, prices: Prices) -> None:
        for chosen in combine(columns, prices.row):
            self._try(chosen)

    def _move(self) -> None:
        """Walk to better choices by single moves."""
        left = max(self._left(), 0.01)
        start = None if self.best is None else tuple((self.best[1] - self.problem.start[:-1]).tolist())
        answer = greedy.solve(self.problem, replace(self.limits, time_s=left, watch=None), start)
        if answer.choices is not None:
            self._try(self.problem.start[:-1] + np.asarray(answer.choices, np.int64))

    def _try(self, chosen: npt.NDArray[np.int64]) -> None:
        """Keep a choice where it keeps everything and is better than the best."""
        places = (chosen - self.problem.start[:-1]).tolist()
        objective = values(self.problem, places)[self.problem.objective]
        if (self.best is None or objective < self.best[0]) and not broken(self.problem, places):
            self.best = (objective, chosen)
            self._tell()

    def _raise(self, found: int) -> None:
        if found > self.bound:
            self.bound = found
            self._tell()

    def _tell(self) -> None:
        if self.limits.watch is not None:
            objective = None if self.best is None else self.best[0]
            self.limits.watch(time.perf_counter() - self.begin, objective, self.bound)

    def _left(self) -> float:
        return self.begin + self.limits.time_s - time.perf_counter()

    def _done(self) -> bool:
        if self._left() <= 0:
            return True
        return self.best is not None and self.best[0] - self.bound <= self.limits.gap * self.best[0]

    def _answer(self) -> Solution:
        prices = None if self.prices is None else tuple(self.prices.row.tolist())
        if self.bound > self.problem.most()[self.problem.objective]:
            return Solution(status=Status.INFEASIBLE, note="the bound is beyond what everything together costs")
        if self.best is None:
            return Solution(status=Status.LIMIT, bound=self.bound, prices=prices)
        objective, chosen = self.best
        status = Status.OPTIMAL if objective == self.bound else Status.FEASIBLE
        choices = tuple((chosen - self.problem.start[:-1]).tolist())
        return Solution(status=status, choices=choices, objective=objective, bound=self.bound, prices=prices)


def min_marginals(
    problem: Problem, prices: Sequence[float], time_s: float = 5.0, choices: Sequence[int] | None = None
) -> Integers:
    """Bound the objective from below with each option taken, in whole numbers.

    Args:
        problem: The problem, without ties, forbidden options and spreads.
        prices: What a unit of each row costs, ``(rows,)``, 0 or more; those of a ``Solution`` of ``solve`` do.
        time_s: What finding better bounds of blocks may take, and weights of steps where there are peaks.
        choices: A good choice, with which bounds of blocks are found sooner.

    Returns:
        ``(options,)``: no choice that keeps all capacities and takes the option costs less; ``LARGEST`` where none
        can take it.
    """
    begin = time.perf_counter()
    columns = Columns(Oracle(problem))
    row = np.array([0.0 if r.capacity is None else p for p, r in zip(prices, problem.rows, strict=True)])
    exact = whole(columns.oracle, weighed(columns, row, time_s / 2))
    if not exact.fits or value(columns.oracle, exact) is None:
        return _marginals(columns.oracle, exact, None)
    if choices is not None:
        columns.add(problem.start[:-1] + np.asarray(choices, np.int64))
    *_, settled = settle(columns, exact, (32, 256), lambda: begin + time_s - time.perf_counter())
    return _marginals(columns.oracle, exact, settled)


def weighed(columns: Columns, row: npt.NDArray[np.float64], time_s: float) -> Prices:
    """Find weights of the steps of peaks that suit given prices of rows; choices found on the way become columns."""
    oracle = columns.oracle
    found = Prices(objective=1.0, row=row, step=np.zeros(oracle.steps.count))
    if not oracle.steps.count or value(oracle, whole(oracle, found)) is None:
        return found
    ascent = climb(columns, time.perf_counter() + time_s, row)
    return found if ascent.prices is None else ascent.prices


def _marginals(oracle: Oracle, prices: Whole, settled: Settled | None) -> Integers:
    """Bound the objective with each option taken: its block by its prices, the others as far as they are settled."""
    through, least = oracle.margins(oracle.costs(prices.weights(oracle.problem.objective), prices.step))
    most = never(through.dtype)
    if settled is None:
        settled = Settled(bound=least, own=np.zeros_like(least), paid=paid(oracle, prices))
    block = oracle.blocks.of_group[oracle.problem.group]
    taken = np.where(through >= most, through, np.maximum(through - settled.own[block], settled.bound[block]))
    total = settled.total()
    beyond = [
        LARGEST if mine >= most else min(LARGEST, -(-(total + mine - alone) // prices.objective))
        for mine, alone in zip(taken.tolist(), settled.bound[block].tolist(), strict=True)
    ]
    return np.array(beyond, np.int64)
