"""A walk from choice to choice, exact in Python's integers: what a single move changes, and making it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solvers.arrays import Integers
from solvers.moves.tables import Tables
from solvers.spread import Spread

__all__ = ["Move", "Walk"]

_KEPT = 50_000
"""Of how many groups the figures are kept as Python's own integers, which are fast to read and large to hold."""


class Move(NamedTuple):
    """A move, and all that it would change.

    Attributes:
        group: The group that takes another option.
        place: The option that it takes, from 0 within the group.
        accounts: What is added to each account that changes.
        rows: What each row that changes comes to.
        tops: What each peak that changes comes to.
        excess: What is added to the excess, as shares of the room in each row; below 0 where less is broken.
        dearer: What is added to the objective.
    """

    group: int
    place: int
    accounts: dict[int, int]
    rows: dict[int, int]
    tops: dict[int, int]
    excess: float
    dearer: int


@dataclass(frozen=True, slots=True)
class _Group:
    """What the options of one group cost: ``cost[place][i]`` in account ``accounts[i]``, and where it meets others."""

    accounts: list[int]
    cost: list[list[int]]
    ends: list[_End]


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a pair in an account: the cost of a cell is ``cost[own[place] + other[the other's place]]``."""

    account: int
    own: list[int]
    group: int
    other: list[int]


class Walk:
    """Where a walk stands: the options taken, and what every account, peak and row comes to.

    Attributes:
        tables: The problem as accounts and blocks.
        places: For each group, which of its options it takes.
        rows: What every row comes to, and how many forbidden meetings there are.
        loads: What every step of every peak comes to, ``(steps,)``.
        tops: What every peak comes to.
    """

    def __init__(self, tables: Tables, places: Sequence[int]) -> None:
        """Stand at a choice."""
        self.tables = tables
        self.places = [int(place) for place in places]
        self._spreads: dict[int, tuple[int, Spread]] = {a: (row, spread) for row, a, spread in tables.variances}
        self._first_step = int(tables.peak_start[0])
        self._capacity: list[int] = tables.capacity.tolist()
        self._unit: list[float] = tables.unit.tolist()
        self._peak_start: list[int] = tables.peak_start.tolist()
        self._rows_of_peak: list[list[int]] = [[] for _ in tables.problem.peaks]
        for row, peaks in enumerate(tables.row_peaks):
            for peak in peaks:
                self._rows_of_peak[peak].append(row)
        self._groups: dict[int, _Group] = {}
        by_group = np.argsort(tables.block_group, kind="stable")
        self._blocks = by_group
        self._blocks_start = np.searchsorted(tables.block_group[by_group], np.arange(tables.problem.groups + 1))
        self._ends, self._ends_start = by_group[:0], np.zeros(tables.problem.groups + 1, np.int64)
        if tables.ends is not None:
            of_end = tables.block_group[tables.ends.block]
            self._ends = np.argsort(of_end, kind="stable")
            self._ends_start = np.searchsorted(of_end[self._ends], np.arange(tables.problem.groups + 1))
        self._stand()

    def _stand(self) -> None:
        tables = self.tables
        places = np.array(self.places, np.int64)
        account = tables.constant.copy()
        np.add.at(account, tables.block_account, tables.cost[tables.block_start[:-1] + places[tables.block_group]])
        if tables.ends is not None:
            blocks, cost = tables.ends.met(tables.block_group, places)
            np.add.at(account, tables.block_account[blocks], cost)
        self.accounts: list[int] = account[: self._first_step].tolist()
        self.loads: Integers = account[self._first_step :]
        self.tops = [
            int(self.loads[first - self._first_step : beyond - self._first_step].max(initial=0))
            for first, beyond in zip(self._peak_start[:-1], self._peak_start[1:], strict=True)
        ]
        self.rows = self.accounts[: tables.forbidden + 1]
        for row, peaks in enumerate(tables.row_peaks):
            self.rows[row] += sum(self.tops[peak] for peak in peaks)
        for variance, (row, spread) in self._spreads.items():
            self.rows[row] += spread.value(self.accounts[variance])

    def keeps(self) -> bool:
        """Return whether nothing is broken."""
        return all(value <= capacity for value, capacity in zip(self.rows, self._capacity, strict=True))

    @property
    def objective(self) -> int:
        """What the objective row comes to."""
        found: int = self.rows[self.tables.problem.objective]
        return found

    def look(self, group: int, place: int) -> Move:
        """Compute what it would change that a group takes another option."""
        accounts = self._changes(group, place)
        rows: dict[int, int] = {}
        steps: dict[int, list[int]] = {}
        now = self.rows
        for account, more in accounts.items():
            if account < len(now):
                rows[account] = rows.get(account, now[account]) + more
            elif account < self._first_step:
                row, spread = self._spreads[account]
                wider = spread.value(self.accounts[account] + more) - spread.value(self.accounts[account])
                rows[row] = rows.get(row, now[row]) + wider
            else:
                steps.setdefault(bisect_right(self._peak_start, account) - 1, []).append(account)
        tops: dict[int, int] = {}
        for peak, changed in steps.items():
            top = tops[peak] = self._top(peak, changed, accounts)
            for row in self._rows_of_peak[peak]:
                rows[row] = rows.get(row, now[row]) + top - self.tops[peak]
        excess = 0.0
        for row, value in rows.items():
            over, before = value - self._capacity[row], now[row] - self._capacity[row]
            if over > 0 or before > 0:
                excess += (max(0, over) - max(0, before)) / self._unit[row]
        goal = self.tables.problem.objective
        return Move(group, place, accounts, rows, tops, excess, rows.get(goal, now[goal]) - now[goal])

    def make(self, move: Move) -> None:
        """Make a move that was looked at from where the walk stands."""
        self.places[move.group] = move.place
        for account, more in move.accounts.items():
            if account < self._first_step:
                self.accounts[account] += more
            else:
                self.loads[account - self._first_step] += more
        for row, value in move.rows.items():
            self.rows[row] = value
        for peak, top in move.tops.items():
            self.tops[peak] = top

    def _top(self, peak: int, changed: list[int], accounts: dict[int, int]) -> int:
        """Return what a peak comes to, looking at all its steps only where its greatest one may be lower."""
        first = self._first_step
        now = [int(self.loads[account - first]) for account in changed]
        highest = max(load + accounts[account] for load, account in zip(now, changed, strict=True))
        top = self.tops[peak]
        if highest >= top:
            return highest
        if max(now) < top:
            return top
        within = self.loads[self._peak_start[peak] - first : self._peak_start[peak + 1] - first].copy()
        within[[account - self._peak_start[peak] for account in changed]] = highest
        return int(within.max(initial=0))

    def _changes(self, group: int, place: int) -> dict[int, int]:
        """Return what is added to each account that changes."""
        figures = self._groups.get(group) or self._read(group)
        before = self.places[group]
        after, now = figures.cost[place], figures.cost[before]
        found = {a: x - y for a, x, y in zip(figures.accounts, after, now, strict=True) if x != y}
        if figures.ends and self.tables.ends is not None:
            cost = self.tables.ends.cost
            for end in figures.ends:
                far = end.other[self.places[end.group]]
                if end.own[place] != end.own[before]:
                    more = int(cost[end.own[place] + far]) - int(cost[end.own[before] + far])
                    found[end.account] = found.get(end.account, 0) + more
        return found

    def _read(self, group: int) -> _Group:
        """Read what a group's options cost out of the tables."""
        tables = self.tables
        blocks = self._blocks[self._blocks_start[group] : self._blocks_start[group + 1]]
        size = int(tables.problem.start[group + 1] - tables.problem.start[group])
        cost = tables.cost[tables.block_start[blocks][None, :] + np.arange(size)[:, None]]
        ends = []
        if tables.ends is not None:
            for end in self._ends[self._ends_start[group] : self._ends_start[group + 1]].tolist():
                far = tables.ends.other_format[tables.ends.other_start[end] : tables.ends.other_start[end + 1]]
                own = tables.ends.cell[tables.ends.cell_start[end] : tables.ends.cell_start[end + 1]]
                account = int(tables.block_account[tables.ends.block[end]])
                ends.append(_End(account, own.tolist(), int(tables.ends.other[end]), far.tolist()))
        if len(self._groups) >= _KEPT:
            self._groups.clear()
        found = self._groups[group] = _Group(tables.block_account[blocks].tolist(), cost.tolist(), ends)
        return found
