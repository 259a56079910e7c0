"""Every choice that prices leave in doubt, in depth first, so that memory does not grow with their number.

Labels of the groups decided so far go on together, as in `solvers.labels.enumerate`; where they become too many, the
most promising go first. What the groups to come cost at least, given what a label has left of each capacity, is
bounded at many prices at once: those at which the Lagrangian function of these groups is greatest for some label are
good for many of its neighbours (M. Held, P. Wolfe and H. Crowder, Validation of subgradient optimization, Mathematical
Programming 6 (1974), for the function; sharing its prices between nodes is what makes a chunk cheaper than a tree).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.labels.part import Part
from solvers.labels.prices import prices

__all__ = ["Descent"]

Floats = npt.NDArray[np.float64]

_CHUNK = 20_000
_PRICES = 12
"""Prices kept for each number of decided groups."""
_MANY, _SEVERAL = 2000, 200
"""So many labels are worth three new prices, or one."""
_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True, eq=False)
class _Trace:
    """Which label of the chunk before, and which option, each label came from."""

    before: _Trace | None
    parent: Integers
    place: Integers


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Labels of the first groups: what they cost, ``(labels,)``, and what they leave, ``(rows, labels)``."""

    depth: int
    cost: Integers
    room: Integers
    low: float
    trace: _Trace | None

    def only(self, labels: npt.NDArray[np.intp] | npt.NDArray[np.bool_], low: float) -> _Chunk:
        """Return these labels alone."""
        trace = self.trace
        if trace is not None:
            trace = _Trace(trace.before, trace.parent[labels], trace.place[labels])
        return _Chunk(self.depth, self.cost[labels], self.room[:, labels], low, trace)


class Descent:
    """Goes through all choices of a part that could cost no more than a limit.

    Attributes:
        made: How many labels were made.
    """

    def __init__(self, part: Part, first: Floats, limit: Callable[[], int]) -> None:
        """Lay out the groups in the order in which they are decided.

        Args:
            part: The groups and capacities.
            first: Prices that hold for all groups, ``(rows,)``. Groups whose options take the most unlike shares of the
                capacities at these prices are decided first.
            limit: Says what a choice worth having costs at most, without what is decided; falls while this goes on.
        """
        taken = np.tensordot(first, part.usage.astype(np.float64), axes=1)
        reach = np.where(part.alive, taken, -np.inf).max(axis=1) - np.where(part.alive, taken, np.inf).min(axis=1)
        order = np.argsort(-reach, kind="stable")
        self.part = replace(
            part,
            cost=part.cost[order],
            usage=part.usage[:, order],
            option=part.option[order],
            alive=part.alive[order],
        )
        self.limit, self.made = limit, 0
        self.groups, self.rows = len(order), len(part.room)
        least = np.where(self.part.alive, self.part.usage, 2**62).min(axis=2)
        # What the groups from each on take of each row at least.
        self.rest = np.zeros((self.rows, self.groups + 1), np.int64)
        self.rest[:, :-1] = np.cumsum(least[:, ::-1], axis=1)[:, ::-1]
        self.prices: list[list[tuple[Floats, float, float]]] = [[] for _ in range(self.groups)]
        self.first = first
        room = np.array([min(left, 2**62) for left in part.room], np.int64).reshape(-1, 1)
        self.stack = [_Chunk(0, np.zeros(1, np.int64), room, -np.inf, None)]

    @property
    def low(self) -> float:
        """What no choice that was not looked at can undercut, but for nothing; infinite once all were."""
        return min((chunk.low for chunk in self.stack), default=np.inf)

    def steps(self) -> Iterator[tuple[int, tuple[int, ...]] | None]:
        """Go on chunk by chunk; yields each better choice that is found, as its cost and options, or None."""
        while self.stack:
            chunk = self._worth(self.stack.pop())
            if not len(chunk.cost):
                yield None
                continue
            if chunk.depth == self.groups:
                best = int(chunk.cost.argmin())
                cost = int(chunk.cost[best])
                yield (cost, self._options(chunk, best)) if cost <= self.limit() else None
                continue
            # Popped last is gone into first: the most promising labels.
            self.stack.extend(self._grown(chunk))
            yield None

    def _grown(self, chunk: _Chunk) -> list[_Chunk]:
        """Decide one more group; returns chunks, the most promising last."""
        group = chunk.depth
        places = np.flatnonzero(self.part.alive[group])
        cost, usage = self.part.cost[group, places], self.part.usage[:, group][:, places]
        parts = []
        for place, one, take in zip(places.tolist(), cost.tolist(), usage.T, strict=True):
            fits = np.flatnonzero((chunk.room >= (take + self.rest[:, group + 1])[:, None]).all(axis=0))
            if len(fits):
                parts.append(
                    (fits, np.full(len(fits), place), chunk.cost[fits] + one, chunk.room[:, fits] - take[:, None])
                )
        if not parts:
            return []
        parent, place_of, costs, room = (np.concatenate(found, axis=-1) for found in zip(*parts, strict=True))
        self.made += len(costs)
        trace = _Trace(chunk.trace, parent, place_of)
        grown = self._worth(_Chunk(group + 1, costs, room, chunk.low, trace))
        if len(grown.cost) <= _CHUNK:
            return [grown] if len(grown.cost) else []
        low = self._bounds(grown)
        order = np.argsort(low, kind="stable")
        pieces = [order[first : first + _CHUNK] for first in range(0, len(order), _CHUNK)]
        return [grown.only(piece, max(chunk.low, float(low[piece[0]]))) for piece in reversed(pieces)]

    def _worth(self, chunk: _Chunk) -> _Chunk:
        """Keep the labels from which something worth having can come, and look for prices that cut more."""
        limit = self.limit()
        if chunk.depth == self.groups:
            return chunk.only(chunk.cost <= limit, chunk.low)
        low = self._bounds(chunk)
        chunk, low = chunk.only(low <= limit, chunk.low), low[low <= limit]
        if self.groups - chunk.depth > 2:
            for turn in range(3 if len(low) > _MANY else 1):
                if len(low) <= _SEVERAL:
                    break
                # The most promising label is the hardest to cut; what cuts one in the middle cuts many.
                label = int(low.argmin()) if turn != 1 else len(low) // 2
                low = np.maximum(low, self._price(chunk, label))
                chunk, low = chunk.only(low <= limit, chunk.low), low[low <= limit]
        return replace(chunk, low=max(chunk.low, float(low.min()))) if len(low) else chunk

    def _bounds(self, chunk: _Chunk) -> Floats:
        """Return what no choice that follows a label can undercut, ``(labels,)``, less what rounding can hide."""
        if chunk.depth == self.groups:
            return chunk.cost.astype(np.float64)
        known = self.prices[chunk.depth]
        if not known:
            self._know(chunk.depth, self.first)
            if chunk.depth:
                for given, _, _ in self.prices[chunk.depth - 1][1:]:
                    self._know(chunk.depth, given)
        room = chunk.room.astype(np.float64)
        table = np.stack([given for given, _, _ in known])
        constants = np.array([constant - hidden for _, constant, hidden in known])
        low: Floats = (constants[:, None] - table @ room).max(axis=0) + chunk.cost
        return low

    def _price(self, chunk: _Chunk, label: int) -> Floats:
        """Find the best prices for one label; returns what they say of all."""
        suffix = slice(chunk.depth, None)
        left = replace(
            self.part,
            cost=self.part.cost[suffix],
            usage=self.part.usage[:, suffix],
            option=self.part.option[suffix],
            alive=self.part.alive[suffix],
            room=tuple(chunk.room[:, label].tolist()),
        )
        self._know(chunk.depth, prices(left))
        given, constant, hidden = self.prices[chunk.depth][-1]
        return chunk.cost + (constant - hidden) - given @ chunk.room.astype(np.float64)

    def _know(self, depth: int, given: Floats) -> None:
        """Keep prices for all labels of so many decided groups, and forget the oldest but the first."""
        part = self.part
        priced = part.cost[depth:] + np.tensordot(given, part.usage[:, depth:].astype(np.float64), axes=1)
        constant = float(np.where(part.alive[depth:], priced, np.inf).min(axis=1).sum())
        # All terms are positive: rounding moves each sum by less than its number of terms times the unit.
        largest = constant + float(given @ np.abs(np.array(part.room, np.float64))) + 2.0 * abs(self.limit()) + 1.0
        hidden = 4.0 * (self.groups + self.rows + 8) * _UNIT * largest
        known = self.prices[depth]
        if len(known) >= _PRICES:
            known.pop(1)
        known.append((given, constant, hidden))

    def _options(self, chunk: _Chunk, label: int) -> tuple[int, ...]:
        """Go back from a label to the options that led to it."""
        found, trace, group = [], chunk.trace, self.groups
        while trace is not None:
            group -= 1
            found.append(int(self.part.option[group, trace.place[label]]))
            label = int(trace.parent[label])
            trace = trace.before
        return tuple(found)
