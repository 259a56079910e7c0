"""The bound that keeps the local rows as they are and gives only the coupling rows a price.

Its blocks are knapsacks with one row, which `solvers.dual.core` solves, mostly to the end: the bound is then the best
that prices of the coupling rows can prove, and well above what prices of all rows can (A. M. Geoffrion, 1974: the
blocks lack the integrality property). All in whole numbers of a small unit, so that it is exact.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from solvers.arrays import Integers
from solvers.dual.core import Blocks, relax, search
from solvers.dual.intersect import Floats, Places
from solvers.dual.layout import Layout

__all__ = ["Answer", "Prices", "evaluate", "varied", "whole_prices"]

_BITS = 57
_GROUPS_AT_ONCE = 6400
"""Blocks are searched together until they have so many groups: few enough for their arrays to stay in the cache."""
_LABELS_AT_ONCE = 2**18
"""And until they may have so many labels."""
_LANES = 32
"""Choices that differ in use are told apart by this share of what they may cost more."""
_FULL = 2**56


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """Prices of all rows in whole multiples of two to the power of minus ``shift``.

    Attributes:
        shift: How fine they are.
        outer: Those of the coupling rows, one array a band.
        inner: That of each block's local row, ``(blocks,)``; good ones make the search short, none makes it wrong.
    """

    shift: int
    outer: tuple[Integers, ...]
    inner: Integers

    def rent(self, laid: Layout) -> int:
        """Return what the capacities of the coupling rows come to at these prices."""
        return sum(
            price * capacity
            for prices, band in zip(self.outer, laid.bands[1:], strict=True)
            for price, capacity in zip(prices.tolist(), band.capacities.tolist(), strict=True)
        )


def whole_prices(laid: Layout, outer: list[Floats], inner: Floats) -> Prices | None:
    """Make prices whole, as finely as the sums over a block allow.

    Args:
        laid: The problem.
        outer: Prices of the coupling rows, one array a band.
        inner: Prices of the blocks' local rows, ``(blocks,)``.

    Returns:
        The prices; None where a block's costs leave no room for them in 64 bits.
    """
    starts = laid.first[:-1]
    most = np.add.reduceat(laid.costs.max(axis=0).astype(np.float64), starts)
    for band, price in zip(laid.bands[1:], outer, strict=True):
        each = band.costs.max(axis=0) * np.where(band.owner >= 0, price[band.owner], 0.0)
        most += np.add.reduceat(each, starts)
    local = np.add.reduceat(laid.local.max(axis=0).astype(np.float64), starts)
    most += inner * np.maximum(local, laid.room)
    shift = _BITS - math.frexp(float(most.max()))[1]
    if shift < 0:
        return None
    shift = min(shift, 60)
    wholes = [np.floor(np.ldexp(price, shift)) for price in (*outer, inner)]
    if any(len(price) and float(price.max()) >= _FULL for price in wholes):
        return None
    *outside, inside = (price.astype(np.int64) for price in wholes)
    return Prices(shift=shift, outer=tuple(outside), inner=inside)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What an evaluation found.

    Attributes:
        bound: No choice that keeps all capacities costs less in the objective, its constant not counted.
        value: The same, not rounded up.
        open: How far the blocks' best choices at these prices lie above the bound.
        places: The best choice of each block at these prices, ``(groups,)``.
        others: Good choices of each block, ``(kept, groups)``.
    """

    bound: int
    value: float
    open: float
    places: Places
    others: Places


def evaluate(
    laid: Layout,
    prices: Prices,
    known: Places,
    *,
    widths: tuple[int, ...],
    kept: int,
    workers: int,
    deadline: float,
    share: float = 0.0,
) -> Answer:
    """Minimise every block at the coupling rows' prices.

    Args:
        laid: The problem.
        prices: The prices.
        known: A choice that keeps the local rows, the better the shorter the search, ``(groups,)``.
        widths: How many labels a block may have; blocks that one width leaves open are searched with the next.
        kept: How many choices to return for each block.
        workers: Threads.
        deadline: When to stop, by ``time.perf_counter``; a block that was not searched has the bound of its relaxation.
        share: A search is made only where more than this times its width is open, as a share of the bound.

    Returns:
        The bound and the choices.
    """
    lower = np.zeros(laid.blocks, np.int64)
    value = np.zeros(laid.blocks, np.int64)
    places = known.copy()
    others = np.tile(known, (kept, 1))

    def work(part: Integers, width: int, *, again: bool) -> None:
        if again and time.perf_counter() > deadline:
            return
        blocks, groups = _cut(laid, prices, part)
        if time.perf_counter() > deadline:
            found = relax(blocks, places[groups])
        else:
            found = search(blocks, places[groups], width=width, kept=kept)
        lower[part] = np.maximum(lower[part], found.lower) if again else found.lower
        value[part] = found.value
        places[groups] = found.places
        others[:, groups] = found.others

    todo = np.arange(laid.blocks)
    with ThreadPoolExecutor(workers) as threads:
        for turn, (width, following) in enumerate(zip(widths, (*widths[1:], 0), strict=True)):
            # Asking for each result raises what went wrong in its thread.
            for done in [threads.submit(work, part, width, again=turn > 0) for part in _parts(laid, todo, width)]:
                done.result()
            bound, left = sum(lower.tolist()) - prices.rent(laid), sum((value - lower).tolist())
            todo = np.flatnonzero(value > lower)
            if not len(todo) or left <= share * following * abs(bound) or time.perf_counter() > deadline:
                break
    unit = 1 << prices.shift
    return Answer(bound=-(-bound // unit), value=bound / unit, open=left / unit, places=places, others=others)


def varied(laid: Layout, prices: Prices, known: Places, *, more: float, width: int) -> Places:
    """List choices of few blocks that differ in what they take of the one coupling row.

    Args:
        laid: The problem, with one coupling row.
        prices: Prices of all rows.
        known: A choice that keeps the local rows, ``(groups,)``.
        more: By how much choices may cost more than it at these prices, in the objective's unit.
        width: How many labels a block may have.

    Returns:
        Choices of every block, each within its local row, ``(width, groups)``.
    """
    blocks, _ = _cut(laid, prices, np.arange(laid.blocks))
    allowed = max(1, int(min(math.ldexp(more, prices.shift), 2.0**_BITS)))
    price = max(1, int(prices.outer[0][0]))
    # A single block may take all that there is of the row; what one of several may take, nobody knows.
    ration = laid.bands[1].capacities if laid.blocks == 1 else None
    grain = max(1, allowed // (price * _LANES))
    grained = replace(blocks, uses=laid.bands[1].costs, grain=grain, ration=ration, price=price)
    return search(grained, known, width=width, kept=width, more=np.full(laid.blocks, allowed)).others


def _parts(laid: Layout, blocks: Integers, width: int) -> list[Integers]:
    """Cut a list of blocks into parts of not too many groups and labels each, at least one block."""
    share = np.maximum(np.diff(laid.first)[blocks] / _GROUPS_AT_ONCE, width / _LABELS_AT_ONCE)
    cuts = np.flatnonzero(np.diff(np.floor(np.cumsum(share)))) + 1
    return np.split(blocks, cuts)


def _cut(laid: Layout, prices: Prices, part: Integers) -> tuple[Blocks, Integers]:
    """Cut some blocks out, their costs with the coupling rows' prices, and name their groups."""
    begins, ends = laid.first[part], laid.first[part + 1]
    first = np.concatenate([[0], np.cumsum(ends - begins)])
    groups = np.arange(first[-1]) + np.repeat(begins - first[:-1], ends - begins)
    costs = laid.costs[:, groups] << prices.shift
    for band, price in zip(laid.bands[1:], prices.outer, strict=True):
        owner = band.owner[groups]
        costs += band.costs[:, groups] * np.where(owner >= 0, price[owner], 0)
    times = laid.bands[0].costs[:, groups] if laid.bands else np.zeros_like(costs)
    return Blocks(costs=costs, times=times, room=laid.room[part], first=first, prices=prices.inner[part]), groups
