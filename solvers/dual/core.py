"""Choices for blocks of one row each, searched among the groups whose best option is in doubt, with an exact bound.

For one row the Lagrangian relaxation decides most groups: taking another than their cheapest option would cost more
than all that is in doubt. The few others are the *core* (D. Pisinger, A minimal algorithm for the multiple-choice
knapsack problem, European Journal of Operational Research 83(2), 1995). They are decided one after the other, and all
sets of decisions are kept as labels (cost beyond the relaxation, use of the row), without those that another label
dominates and those that a relaxation of what is still to come proves useless. Where the labels of a block become too
many, the least promising ones are dropped, and what they could have come to at best limits the block's bound.

All figures are whole numbers, so that bounds are exact. Many blocks are searched at once: labels of all blocks stand in
flat arrays, ordered by block, then by use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.arrays import Integers
from solvers.dual.intersect import Places, cheapest, picked

__all__ = ["Blocks", "Found", "relax", "search"]

_NEVER = 2**62
_DEPTH = 16
"""So many times more groups than labels are decided at most; those beyond stay at their cheapest options."""
_TILTS = ((-1, 3), (-1, 8), (-1, 40), (1, 40), (1, 8), (1, 3))
"""Changes of a block's price, as shares of it, at which what is still to come is bounded a second time."""
_TWISTS = tuple((a, b) for a in (-1, 0, 1) for b in (-1, 1))
"""Changes of both prices of a block that has a ration, in eighths of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Blocks of groups, each with one row.

    Attributes:
        costs: What each option costs, whole, ``costs[option][group]``; sums over a block stay below 2^58.
        times: What it costs in the block's row, likewise.
        room: What each block may cost there, ``(blocks,)``.
        first: Where each block's groups begin, ``(blocks + 1,)``.
        prices: Price of each block's row, whole, 0 or more, ``(blocks,)``; a price times a block's times stays below
            2^58 too.
        uses: What each option takes of a row that connects the blocks, ``uses[option][group]``; None where that does
            not matter: then of two labels that differ in it alone, one is as good as the other.
        grain: By how much such uses must differ for labels to be kept beside each other, 1 or more.
        ration: What each block may take of it, where that is known, ``(blocks,)``: choices that take more are of no
            use, and not counted.
        price: The price of that row, which is part of the costs already.
    """

    costs: Integers
    times: Integers
    room: Integers
    first: Integers
    prices: Integers
    uses: Integers | None = None
    grain: int = 1
    ration: Integers | None = None
    price: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a search found, for each block.

    Attributes:
        lower: No choice that keeps the block's row costs less, ``(blocks,)``.
        value: What the best choice costs that is known, ``(blocks,)``.
        places: That choice, ``(groups,)``.
        others: Good choices, the best first, all within the row, ``(kept, groups)``; the last repeats where there are
            fewer.
    """

    lower: Integers
    value: Integers
    places: Places
    others: Places


@dataclass(slots=True, eq=False)
class _Labels:
    """Sets of decisions in flat arrays, ordered by row; ``row`` counts blocks, those of the largest cores first.

    ``cost`` is what lies beyond the relaxation; ``time`` is what lies beyond the room, so that 0 or less is kept;
    ``use`` is what is taken of the row that connects the blocks, more or less than with the cheapest options.
    """

    row: Integers
    cost: Integers
    time: Integers
    use: Integers


class _Core:
    """The groups in doubt of some blocks, in the order in which they are decided."""

    def __init__(self, blocks: Blocks, upper: Places, more: Integers, deepest: int) -> None:
        starts, count = blocks.first[:-1], len(blocks.room)
        block = np.repeat(np.arange(count), np.diff(blocks.first))
        excess = blocks.times * blocks.prices[block]
        excess += blocks.costs
        self.base = cheapest(excess)
        floor = picked(excess, self.base)
        excess -= floor
        self.relaxed = np.add.reduceat(floor, starts) - blocks.prices * blocks.room
        self.known = np.add.reduceat(picked(blocks.costs, upper), starts)
        self.reach = self.known - self.relaxed + more
        beyond = blocks.times - picked(blocks.times, self.base)
        self.spare = blocks.room - np.add.reduceat(picked(blocks.times, self.base), starts)

        excess[self.base, np.arange(len(block))] = _NEVER
        key = excess.min(axis=0)
        excess[self.base, np.arange(len(block))] = 0
        groups = np.flatnonzero(key < self.reach[block])
        groups = groups[np.lexsort((key[groups], block[groups]))]
        owner = block[groups]
        counts = np.bincount(owner, minlength=count)
        self.dropped = np.full(count, _NEVER, np.int64)
        """The least cost beyond the relaxation, by block, of what is not looked at."""
        deep = counts > deepest
        if deep.any():
            begin = np.cumsum(counts) - counts
            self.dropped[deep] = key[groups[begin[deep] + deepest]]
            shallow = np.arange(len(groups)) - begin[owner] < deepest
            groups, owner = groups[shallow], owner[shallow]
            counts = np.minimum(counts, deepest)
        self.rows = np.argsort(-counts, kind="stable")
        """The block of each row."""
        self.counts = counts[self.rows]
        self.groups = groups
        self.begin = (np.cumsum(counts) - counts)[self.rows]
        ranked = np.argsort(excess[:, groups], axis=0, kind="stable")
        self.place = ranked.T.astype(np.int16)
        """The options of each core group by what they cost beyond the cheapest, ``(core groups, options)``."""
        self.excess = np.ascontiguousarray(np.take_along_axis(excess[:, groups], ranked, 0).T)
        self.beyond = np.ascontiguousarray(np.take_along_axis(beyond[:, groups], ranked, 0).T)
        self.grain = blocks.grain if blocks.uses is not None else 0
        self.uses = self.beyond
        if blocks.uses is not None:
            uses = (blocks.uses - picked(blocks.uses, self.base))[:, groups]
            self.uses = np.ascontiguousarray(np.take_along_axis(uses, ranked, 0).T)
        self.owed = np.zeros(count, np.int64)
        """What is left of each block's ration when all take their cheapest option."""
        self.rationed = blocks.ration is not None
        if blocks.ration is not None and blocks.uses is not None:
            self.owed = blocks.ration - np.add.reduceat(picked(blocks.uses, self.base), starts)
        self.many = (self.excess < self.reach[owner, None]).sum(axis=1)
        self._look_ahead(blocks, owner, counts)

    def _look_ahead(self, blocks: Blocks, owner: Integers, counts: Integers) -> None:
        """Bound what groups still to be decided come to: ``tails[tilt][row][groups decided]``, ``least`` their time."""
        row = np.empty(len(counts), np.int64)
        row[self.rows] = np.arange(len(counts))
        deep = int(counts.max(initial=0))
        at = (row[owner], np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner])
        dead = np.arange(self.excess.shape[1]) >= self.many[:, None]
        prices = blocks.prices[self.rows]
        self.tilts = [(prices * over // under, 0) for over, under in _TILTS]
        if self.rationed:
            self.tilts += [(prices * over // 8, blocks.price * other // 8) for over, other in _TWISTS]
        self.tails = np.zeros((len(self.tilts), len(counts), deep + 1), np.int64)
        self.least = np.zeros((2, len(counts), deep + 1), np.int64)
        for least, taken in zip(self.least, (self.beyond, self.uses), strict=True):
            least[at] = np.where(dead, 0, taken).min(axis=1)
        for (tilt, twist), tail in zip(self.tilts, self.tails, strict=True):
            gain = self.excess + tilt[at[0], None] * self.beyond
            if twist:
                gain += twist * self.uses
            tail[at] = np.where(dead, 0, gain).min(axis=1)
        for ahead in (*self.tails, *self.least):
            ahead[:] = ahead[:, ::-1].cumsum(axis=1)[:, ::-1]


def relax(blocks: Blocks, upper: Places) -> Found:
    """Bound the blocks by the relaxation alone, without a search.

    Args:
        blocks: The blocks.
        upper: A choice that keeps every block's row, ``(groups,)``.

    Returns:
        The bounds, and the choice as it was.
    """
    core = _Core(blocks, upper, np.zeros(len(blocks.room), np.int64), deepest=0)
    return Found(lower=core.relaxed, value=core.known, places=upper, others=upper[None])


def search(blocks: Blocks, upper: Places, *, width: int, kept: int = 1, more: Integers | None = None) -> Found:
    """Search the blocks for choices that cost less than those known.

    Args:
        blocks: The blocks.
        upper: A choice that keeps every block's row, ``(groups,)``.
        width: How many labels a block may have after each group; with enough of them the search is exact.
        kept: How many choices to return for each block.
        more: By how much a choice may cost more than the known one and still be of use, ``(blocks,)``; None for 0.

    Returns:
        The best choices, and a bound for each block.
    """
    count = len(blocks.room)
    core = _Core(blocks, upper, np.zeros(count, np.int64) if more is None else more, deepest=_DEPTH * width)
    prices, spare, reach = (of[core.rows] for of in (blocks.prices, core.spare, core.reach))
    dropped = core.dropped[core.rows]
    labels = _Labels(np.arange(count), np.zeros(count, np.int64), -spare, -core.owed[core.rows])
    ways: list[tuple[Integers, Integers]] = []
    ended: list[tuple[Integers, _Labels]] = []
    for depth in range(int(core.counts[0]) + 1):
        # Rows are ordered so that those whose cores are decided are the last ones.
        active = int(np.searchsorted(-core.counts, -depth, side="left"))
        going = int(np.searchsorted(labels.row, active))
        ended.append((np.arange(going, len(labels.row)), _slice(labels, slice(going, None))))
        if not going:
            break
        labels, promise, way = _grow(core, _slice(labels, slice(0, going)), depth, reach)
        labels, promise, way = _undominated(labels, promise, way, prices, core.grain)
        labels, way = _narrow(labels, promise, way, width, dropped)
        ways.append(way)
    return _gather(core, blocks, upper, ended, ways, prices, dropped, kept)


def _slice(labels: _Labels, part: slice | Integers) -> _Labels:
    return _Labels(labels.row[part], labels.cost[part], labels.time[part], labels.use[part])


def _grow(
    core: _Core, labels: _Labels, depth: int, reach: Integers
) -> tuple[_Labels, Integers, tuple[Integers, Integers]]:
    """Decide one more group of each row: every label with every option, without those that cannot come to anything.

    Returns:
        The labels; what each can come to at best; and the label and the rank of the option that it comes from.
    """
    row = labels.row
    group = core.begin[row] + depth
    most = int(core.many[group].max())
    cost = labels.cost[:, None] + core.excess[group, :most]
    time = labels.time[:, None] + core.beyond[group, :most]
    alive = (cost < reach[row, None]) & (time + core.least[0, row, depth + 1, None] <= 0)
    if core.rationed:
        taken = labels.use[:, None] + core.uses[group, :most]
        alive &= taken + core.least[1, row, depth + 1, None] <= 0
    index = np.flatnonzero(alive)
    parent, rank = np.divmod(index, most)
    cost, time, row = cost.ravel()[index], time.ravel()[index], row[parent]
    use = labels.use[parent]
    if core.grain:
        use += core.uses[group[parent], rank]
    promise = cost.copy()
    for (tilt, twist), tail in zip(core.tilts, core.tails, strict=True):
        tilted = cost + tilt[row] * time + tail[row, depth + 1]
        if twist:
            tilted += twist * use
        np.maximum(promise, tilted, out=promise)
    useful = np.flatnonzero(promise < reach[row])
    made = _Labels(row[useful], cost[useful], time[useful], use[useful])
    return made, promise[useful], (parent[useful], rank[useful])


def _undominated(
    labels: _Labels, promise: Integers, way: tuple[Integers, Integers], prices: Integers, grain: int
) -> tuple[_Labels, Integers, tuple[Integers, Integers]]:
    """Drop every label of which another one of its row needs no more time and costs no more without the price.

    With a grain, only labels of about the same use are compared: each row falls into lanes.
    """
    if not len(labels.row):
        return labels, promise, way
    lane = labels.row
    if grain:
        step = labels.use // grain
        step -= step.min()
        lane = lane * (int(step.max()) + 1) + step
    order = _by_lane_and_time(lane, labels.time)
    lane = lane[order]
    bare = labels.cost[order] - (prices[labels.row] * labels.time)[order]
    first = np.flatnonzero(np.diff(lane, prepend=-1))
    # Lowered from lane to lane by more than they spread, the figures of one lane hide nothing of the next.
    low = int(bare.min())
    spread = int(bare.max()) - low + 1
    if spread * (int(lane[-1]) + 1) < _NEVER:
        bare -= low + lane * spread
        least = np.minimum.accumulate(bare)
    else:
        least = np.concatenate([np.minimum.accumulate(part) for part in np.split(bare, first[1:])])
    good = np.ones(len(lane), np.bool_)
    good[1:] = bare[1:] < least[:-1]
    good[first] = True
    order = order[good]
    return _slice(labels, order), promise[order], (way[0][order], way[1][order])


def _by_lane_and_time(lane: Integers, time: Integers) -> Integers:
    """Return the order of labels by lane, then by time."""
    low = int(time.min())
    bits = [int(most).bit_length() for most in (time.max() - low, len(lane) - 1)]
    if int(lane.max()).bit_length() + sum(bits) > 62:
        return np.lexsort((time, lane))
    # Packed into one number with their index, labels sort several times as fast as by an argsort.
    key = (lane << bits[0]) + (time - low)
    key <<= bits[1]
    key += np.arange(len(key))
    key.sort()
    key &= (1 << bits[1]) - 1
    return key


def _narrow(
    labels: _Labels, promise: Integers, way: tuple[Integers, Integers], width: int, dropped: Integers
) -> tuple[_Labels, tuple[Integers, Integers]]:
    """Keep the most promising labels of rows that have too many; note in ``dropped`` what the others promised."""
    counts = np.bincount(labels.row)
    wide = np.flatnonzero(counts > width)
    if not len(wide):
        return labels, way
    most = int(counts[wide].max())
    begin = (np.cumsum(counts) - counts)[wide]
    index = begin[:, None] + np.arange(most)
    there = np.arange(most) < counts[wide, None]
    ranked = np.where(there, promise[np.where(there, index, 0)], _NEVER)
    part = np.argpartition(ranked, width, axis=1)
    dropped[wide] = np.minimum(dropped[wide], np.take_along_axis(ranked, part[:, width : width + 1], 1)[:, 0])
    stays = ~np.isin(labels.row, wide) if len(wide) < len(counts) else np.zeros(len(labels.row), np.bool_)
    stays[np.take_along_axis(index, part[:, :width], 1)] = True
    order = np.flatnonzero(stays)
    return _slice(labels, order), (way[0][order], way[1][order])


def _gather(
    core: _Core,
    blocks: Blocks,
    upper: Places,
    ended: list[tuple[Integers, _Labels]],
    ways: list[tuple[Integers, Integers]],
    prices: Integers,
    dropped: Integers,
    kept: int,
) -> Found:
    """Take the best complete labels of every row, and follow them back to the options they stand for."""
    index = np.concatenate([places for places, _ in ended])
    row = np.concatenate([labels.row for _, labels in ended])
    cost = np.concatenate([labels.cost for _, labels in ended])
    time = np.concatenate([labels.time for _, labels in ended])
    kept_row = time <= 0
    if core.rationed:
        kept_row &= np.concatenate([labels.use for _, labels in ended]) <= 0
    good = np.flatnonzero(kept_row)
    index, row = index[good], row[good]
    value = cost[good] - prices[row] * time[good]
    order = np.lexsort((value, row))
    index, row, value = index[order], row[order], value[order]
    first = np.flatnonzero(np.diff(row, prepend=-1))
    rank = np.arange(len(row)) - np.repeat(first, np.diff(np.append(first, len(row))))
    best = rank < kept
    index, row, value, rank = index[best], row[best], value[best], rank[best]

    others = np.tile(upper, (kept, 1))
    block = np.repeat(np.arange(len(blocks.room)), np.diff(blocks.first))
    improved = core.known.copy()
    tops = np.flatnonzero(rank == 0)
    owner = core.rows[row[tops]]
    improved[owner] = np.minimum(improved[owner], core.relaxed[owner] + value[tops])
    # Missing choices repeat the last one there is: as many copies as places are left.
    last = np.append(row[1:] != row[:-1], True)[: len(row)] if len(row) else np.zeros(0, np.bool_)
    copies = np.where(last, kept - rank, 1)
    entry = np.repeat(np.arange(len(row)), copies)
    offset = np.arange(len(entry)) - np.repeat(np.cumsum(copies) - copies, copies)
    row, at, slot = row[entry], index[entry], rank[entry] + offset
    has = np.zeros(len(blocks.room), np.bool_)
    has[core.rows[row]] = True
    np.copyto(others, core.base, where=has[block])
    for depth in range(len(ways) - 1, -1, -1):
        going = np.flatnonzero(core.counts[row] > depth)
        came, rank_there = ways[depth]
        group = core.begin[row[going]] + depth
        others[slot[going], core.groups[group]] = core.place[group, rank_there[at[going]]]
        at[going] = came[at[going]]
    better = improved < core.known
    found = np.where(better[block], others[0], upper)
    left = np.full(len(improved), _NEVER, np.int64)
    left[core.rows] = dropped
    lower = np.minimum(improved, np.where(left < _NEVER, core.relaxed + np.minimum(left, _NEVER >> 2), _NEVER))
    return Found(lower=lower, value=improved, places=found, others=others)
