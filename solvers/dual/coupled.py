"""The search around prices of the coupling rows: blocks solved to the end, their choices combined, prices moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from solvers.dual.bound import beyond
from solvers.dual.intersect import Floats, Places, meet
from solvers.dual.layout import Layout
from solvers.dual.multipliers import Dual, against, optimise, outer_costs
from solvers.dual.partial import Answer, evaluate, varied, whole_prices
from solvers.dual.pool import Pool
from solvers.dual.progress import Progress, use
from solvers.dual.repair import descend, exchange, repair
from solvers.solver import Limits

__all__ = ["search"]

_WIDTHS = (16, 128, 1024, 8192)
"""Labels a block may have; the next width is for those that the one before left open."""
_LITTLE = 1e-7
"""Differences of bounds, as shares of them, that are not worth a search."""
_PER_LABEL = 1e-8
"""A search of so many labels is made where more than this times their number is open, as a share of the bound."""
_ENOUGH = 1e-6
"""With so little left between choice and bound, as a share, the search ends."""
_MASTER_WIDTH = 250
_ROUNDS = 12
_STRIDE = 0.01
"""How far the price moves at most in the first round, as a share of it; twice as far in each one that follows."""
_SAME = 1e-9
_FEW_BLOCKS = 16
_VARIED = (128, 512, 1024)
"""So few blocks are searched for so many choices that differ in what they take of the coupling row."""
_FEW_GROUPS = 3000
"""In problems of so many groups moves are tried in pairs, and choices of few blocks are varied."""
_CHOICES = 4096
"""Few blocks are combined from many choices each, many blocks from few: about so many in all, within limits."""

_PLACES = 2_000_000
"""And so many options of groups are named in all, where the groups are not too many."""

_Point = tuple[float, float, float]
"""A price, the partial bound there, and its slope."""


def search(laid: Layout, dual: Dual, progress: Progress, limits: Limits) -> None:
    """Search for choices and better bounds, beginning at prices that are good for the relaxation.

    Args:
        laid: The problem; each of its rows can be kept on its own.
        dual: Prices of all rows.
        progress: What is known, and where to note what is found.
        limits: With how many threads, and at which gap to stop.
    """
    _Search(laid, dual, progress, limits).run()


class _Search:
    def __init__(self, laid: Layout, dual: Dual, progress: Progress, limits: Limits) -> None:
        self._laid = laid
        self._dual = dual
        self._progress = progress
        self._limits = limits
        self._constant = laid.problem.rows[laid.problem.objective].constant

    def run(self) -> None:
        """Search by what connects the blocks: nothing, one row, or several."""
        laid, dual, progress = self._laid, self._dual, self._progress
        progress.offer(dual.sides.kept)
        coupling = laid.bands[1:]
        outer = [dual.prices[band.rows] for band in coupling]
        if not coupling:
            answer = self._evaluate(laid, outer, dual.sides.prices, dual.sides.kept, 1)
            if answer is not None:
                progress.offer(answer.places)
                progress.prove(self._constant + answer.bound)
        elif len(coupling) == 1 and len(coupling[0].rows) == 1:
            self._one(float(outer[0][0]))
        else:
            self._several(outer)

    def _evaluate(self, laid: Layout, outer: list[Floats], inner: Floats, known: Places, kept: int) -> Answer | None:
        """Minimise the blocks; None where their figures are too large for whole prices."""
        prices = whole_prices(laid, outer, inner)
        if prices is None:
            return None
        return evaluate(
            laid,
            prices,
            known,
            widths=_WIDTHS,
            kept=kept,
            workers=self._limits.threads,
            deadline=self._progress.deadline,
            share=max(_PER_LABEL, self._limits.gap / 1000),
        )

    def _one(self, price: float) -> None:
        """Move the price of the one coupling row, and combine what the blocks choose at each."""
        laid, dual, progress = self._laid, self._dual, self._progress
        pool = Pool(laid)
        pool.add(dual.sides.kept[None])
        guess = dual.sides.prices
        if progress.places is None:
            self._repair([dual.sides.kept], [np.array([price])], guess)
        kept = int(np.clip(min(_CHOICES // laid.blocks, _PLACES // len(laid.order)), 8, 256))
        low: _Point | None = None
        high: _Point | None = None
        best_price = price
        for step in range(_ROUNDS):
            answer = self._evaluate(laid, [np.array([price])], guess, pool.cheapest(price), kept)
            if answer is None:
                break
            progress.prove(self._constant + answer.bound)
            pool.add(answer.others)
            balance = self._combine(pool)
            if self._enough() or balance is None:
                break
            slope = float(use(laid.bands[1], answer.places)[0] - laid.bands[1].capacities[0])
            low, high = ((price, answer.value, slope), high) if slope > 0 else (low, (price, answer.value, slope))
            best_price = price if answer.value >= max(top[1] for top in (low, high) if top is not None) else best_price
            following = _following(low, high, balance, step)
            if following is None or abs(following - price) <= _SAME * price:
                break
            price = following
            guess = self._inner(price, guess)
        if laid.blocks <= _FEW_BLOCKS and len(laid.order) <= _FEW_GROUPS and not self._enough():
            self._vary(pool, best_price, guess)
        if progress.places is None:
            self._repair([dual.sides.kept, dual.sides.broken], [np.array([price])], guess)
        if not self._enough():
            self._polish([np.array([price])], guess)

    def _enough(self) -> bool:
        """Tell whether what is left is not worth a search."""
        progress = self._progress
        if progress.done or progress.objective is None or progress.bound is None:
            return progress.done
        return progress.objective - progress.bound <= _ENOUGH * progress.objective

    def _vary(self, pool: Pool, price: float, guess: Floats) -> None:
        """Combine few blocks from choices that differ in what they take of the coupling row."""
        progress = self._progress
        if progress.objective is None or progress.bound is None:
            return
        guess = self._inner(price, guess)
        prices = whole_prices(self._laid, [np.array([price])], guess)
        if prices is None:
            return
        for width in _VARIED:
            known = pool.cheapest(price)
            pool.add(varied(self._laid, prices, known, more=progress.objective - progress.bound, width=width))
            self._combine(pool)
            if self._enough():
                break

    def _inner(self, price: float, guess: Floats) -> Floats:
        """Return prices of the local rows that go with another price of the coupling one."""
        laid = self._laid
        costs = laid.costs + price * laid.bands[1].costs
        times, room = laid.local.astype(np.float64), laid.room.astype(np.float64)
        return meet(costs, times, room, laid.first, guess, tolerance=_LITTLE).prices

    def _combine(self, pool: Pool) -> float | None:
        """Combine the pool's choices; return the price at which they balance, None where none keeps the row."""
        # With a choice that keeps the row among them, they can always be combined.
        known = self._progress.places if self._progress.places is not None else self._least_use()
        pool.add(known[None])
        combined = pool.combine(_MASTER_WIDTH)
        if combined is None:
            return None
        self._progress.offer(combined[0])
        return combined[1]

    def _least_use(self) -> Places:
        """Return the choice that takes least of the coupling row; note if even that takes too much, proven."""
        laid, progress = self._laid, self._progress
        alone = replace(laid, costs=laid.bands[1].costs, bands=laid.bands[:1])
        sides = optimise(alone, progress.deadline).sides
        answer = self._evaluate(alone, [], sides.prices, sides.kept, 1)
        if answer is None:
            return sides.kept
        if answer.bound > int(laid.bands[1].capacities[0]):
            progress.infeasible = True
        return answer.places

    def _several(self, outer: list[Floats]) -> None:
        """Solve the blocks at the prices of several coupling rows, and repair what they break."""
        dual, progress = self._dual, self._progress
        answer = self._evaluate(self._laid, outer, dual.sides.prices, dual.sides.kept, 8)
        starts = [dual.sides.kept, dual.sides.broken]
        if answer is not None:
            progress.prove(self._constant + answer.bound)
            starts = [*answer.others, *starts]
        self._repair(starts, outer, dual.sides.prices)
        if progress.places is None and not progress.late:
            progress.infeasible = beyond(self._laid.problem, against(self._laid, progress.deadline))
        if not self._enough():
            self._polish(outer, dual.sides.prices)

    def _repair(self, starts: Iterable[Places], outer: list[Floats], inner: Floats) -> None:
        """Make moves from each choice until it keeps all rows."""
        prices = [self._of_rows(inner), *outer]
        for places in starts:
            if self._progress.done:
                return
            self._progress.offer(repair(self._laid, places, prices, self._progress.deadline))

    def _polish(self, outer: list[Floats], inner: Floats) -> None:
        """Make moves from the best choice that lower the objective."""
        laid, progress = self._laid, self._progress
        if progress.places is None:
            return
        progress.offer(descend(laid, progress.places, [self._of_rows(inner), *outer], progress.deadline))
        if len(laid.bands) > 2 and len(laid.order) <= _FEW_GROUPS:
            # With one coupling row, combining choices of whole blocks has done more than pairs of moves could.
            reduced = laid.costs + outer_costs(laid, outer) + laid.local * inner[laid.block]
            progress.offer(exchange(laid, progress.places, reduced, progress.deadline))

    def _of_rows(self, inner: Floats) -> Floats:
        """Return prices of the local rows, ``(rows of the band,)``, from those of blocks."""
        local = self._laid.bands[0]
        owner = local.owner[self._laid.first[:-1]]
        prices = np.zeros(len(local.rows))
        prices[owner[owner >= 0]] = inner[owner >= 0]
        return prices


def _following(low: _Point | None, high: _Point | None, balance: float, step: int) -> float | None:
    """Return the price to look at next; None where the bound's top is found.

    Where the price lies between two with slopes of either sign, the top is where their lines meet, or below.
    """
    if low is None or high is None:
        price = high[0] if high is not None else low[0] if low is not None else 0.0
        if high is not None and price == 0:
            return None
        away = _STRIDE * 2**step
        nearest, farthest = (price * (1 - away), price) if high is not None else (price, price * (1 + away))
        # The balance of few choices can lie far off; that of none in this direction says nothing.
        inside = nearest < balance < farthest
        return balance if inside else max(nearest, price / 2) if high is not None else farthest
    meeting = (high[1] - high[2] * high[0] - low[1] + low[2] * low[0]) / (low[2] - high[2])
    top = low[1] + low[2] * (meeting - low[0])
    if top - max(low[1], high[1]) <= _LITTLE * abs(top):
        return None
    return balance if low[0] < balance < high[0] else meeting
