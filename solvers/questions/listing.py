"""List all combinations of options that can still lead to a choice that keeps capacities and costs little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.check import broken, values
from solvers.dual.bound import whole
from solvers.fixing import reach
from solvers.problem import Problem

__all__ = ["listed"]

_MOST_LABELS = 200_000
_MOST_LOOKED_AT = 20_000
_BITS = 60


def listed(
    problem: Problem, prices: Sequence[float], limit: int, most_labels: int = _MOST_LABELS
) -> tuple[list[tuple[int, ...]], int]:
    """List the choices that keep the capacities and cost at most a limit.

    Beginnings of choices, one group longer each time, are kept while the least that the other groups add leaves every
    capacity and the limit whole, in each row and in the sum of all rows at the given prices. Where there are too many,
    those of the greatest such sums are dropped, and the limit up to which the list is complete falls.

    Args:
        problem: The problem, without ties and forbidden options.
        prices: What a unit of each row costs, ``(rows,)``, 0 or more; any prices will do, good ones leave few.
        limit: What a choice may cost.
        most_labels: How many beginnings to keep.

    Returns:
        The choices, and up to which cost none is missing; -1 where nothing is known to be complete.
    """
    search = _Listing(problem, prices, limit)
    for group in search.order:
        search.place(group)
        search.cut(most_labels)
        if not search.labels.shape[1]:
            return [], search.reach
    return search.finish()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Priced:
    """All rows summed up at prices: what each option costs beyond the least of its group, and what is left for it."""

    excess: Integers
    room: int
    unit: int
    multiples: list[int]
    shift: int


class _Listing:
    """Beginnings of choices: a column of ``labels`` for each, and the places they chose."""

    def __init__(self, problem: Problem, prices: Sequence[float], limit: int) -> None:
        self.problem = problem
        self.limit = limit
        self.reach = limit
        self.bound = problem.bound_rows
        self.priced = _priced(problem, prices, limit)
        objective = problem.rows[problem.objective]
        rows = [objective, *(problem.rows[row] for row in self.bound)]
        # One line of figures for the sum at prices, one for the objective, one for each bound row.
        self.figures = np.stack([self.priced.excess, *(problem.dense(row.options, row.costs) for row in rows)])
        ends = [limit, *(row.capacity or 0 for row in rows[1:])]
        self.room = [self.priced.room, *(min(end - row.constant, 2**62) for end, row in zip(ends, rows, strict=True))]
        sizes = np.diff(problem.start)
        second = [
            int(np.partition(part, 1)[1]) if len(part) > 1 else -1
            for part in np.split(self.priced.excess, problem.start[1:-1])
        ]
        # Groups without a choice first; then those in which a second option costs the most, which leave few labels.
        self.order = sorted(range(problem.groups), key=lambda group: (sizes[group] > 1, -second[group]))
        self.placed = np.zeros(problem.groups, np.bool_)
        self.slot = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)
        self.least = np.zeros(len(self.room), object)
        for group in self.order:
            self.least += self._least(group)
        self.labels = np.zeros((len(self.room), 1), np.int64)
        self.chosen = np.zeros((int((sizes > 1).sum()), 1), np.int16)
        self.cells = self._cells()

    def place(self, group: int) -> None:
        """Extend every beginning by every option of a group, and keep what can still lead to a choice."""
        first, beyond = int(self.problem.start[group]), int(self.problem.start[group + 1])
        self.least = self.least - self._least(group)
        self.placed[group] = True
        grown, parents, places = [], [], []
        for place in range(beyond - first):
            step = self.figures[:, first + place, None]
            allowed, met = self._meet(group, place)
            labels = self.labels + step + met
            room = np.array([min(end - least, 2**62) for end, least in zip(self.room, self.least, strict=True)])
            kept = np.flatnonzero(allowed & (labels <= room[:, None].astype(np.int64)).all(axis=0))
            grown.append(labels[:, kept])
            parents.append(kept)
            places.append(np.full(len(kept), place, np.int16))
        self.labels = np.concatenate(grown, axis=1)
        self.chosen = self.chosen[:, np.concatenate(parents)]
        if self.slot[group] >= 0:
            self.chosen[self.slot[group]] = np.concatenate(places)

    def cut(self, most: int) -> None:
        """Drop the beginnings of the greatest sums where there are too many; what is listed is complete up to less."""
        if self.labels.shape[1] <= most:
            return
        sums = self.labels[0]
        end = int(np.partition(sums, most)[most]) - 1
        kept = sums <= end
        self.labels, self.chosen = self.labels[:, kept], self.chosen[:, kept]
        self.room[0] = end
        # A choice of cost c has a sum of at most room - (limit - c), in units of the priced sum.
        lost = (self.priced.room - end) << self.priced.unit
        self.reach = max(-1, self.limit - -(-lost >> self.priced.shift))

    def finish(self) -> tuple[list[tuple[int, ...]], int]:
        """Look at what is left in exact arithmetic, the cheapest first."""
        objective = self.problem.rows[self.problem.objective]
        order = np.argsort(self.labels[1], kind="stable")
        if len(order) > _MOST_LOOKED_AT:
            # Peaks and spreads only add, so that a choice not looked at costs at least what its groups do.
            left_out = int(self.labels[1, order[_MOST_LOOKED_AT]]) + objective.constant
            self.reach = min(self.reach, left_out - 1)
        found = []
        for label in order[:_MOST_LOOKED_AT].tolist():
            places = np.zeros(self.problem.groups, np.int64)
            places[self.slot >= 0] = self.chosen[:, label]
            choices = tuple(places.tolist())
            if values(self.problem, choices)[self.problem.objective] <= self.reach and not broken(
                self.problem, choices
            ):
                found.append(choices)
        return found, self.reach

    def _least(self, group: int) -> npt.NDArray[np.object_]:
        part = self.figures[:, int(self.problem.start[group]) : int(self.problem.start[group + 1])]
        return np.array([int(line.min()) for line in part], object)

    def _cells(self) -> Integers:
        """Return what each cell of a pair adds to each line of figures, ``(lines, cells)``."""
        pairs = self.problem.pairs
        found = np.zeros((len(self.room), len(pairs.allowed)), np.int64)
        priced = np.zeros(len(pairs.allowed), object)
        for line, row in enumerate((self.problem.objective, *self.bound), start=1):
            mine = pairs.row == row
            found[line, pairs.cell[mine]] = pairs.cost[mine]
            multiple = 1 << self.priced.shift if line == 1 else self.priced.multiples[row]
            priced[pairs.cell[mine]] += pairs.cost[mine].astype(object) * multiple
        most = self.priced.room + 1
        found[0] = [min(cost >> self.priced.unit, most) for cost in priced.tolist()]
        return found

    def _meet(self, group: int, place: int) -> tuple[npt.NDArray[np.bool_], Integers]:
        """Return whether an option may meet what each beginning chose before, and what that costs."""
        pairs = self.problem.pairs
        allowed = np.ones(self.labels.shape[1], np.bool_)
        met = np.zeros(self.labels.shape, np.int64)
        for index in np.flatnonzero((pairs.source == group) | (pairs.target == group)).tolist():
            source, target = int(pairs.source[index]), int(pairs.target[index])
            other = target if source == group else source
            if not self.placed[other]:
                continue
            before = self._before(other)
            writes, reads = (place, before) if source == group else (before, place)
            formats = pairs.source_format[pairs.source_start[index] + writes]
            cells = pairs.cell_start[index] + formats * pairs.columns[index]
            cells = cells + pairs.target_format[pairs.target_start[index] + reads]
            allowed &= pairs.allowed[cells]
            met = np.minimum(met + self.cells[:, cells], 2**62)
        return allowed, met

    def _before(self, group: int) -> Integers:
        """Return what each beginning chose in a group, ``(labels,)``."""
        if self.slot[group] < 0:
            return np.zeros(self.chosen.shape[1], np.int64)
        found: Integers = self.chosen[self.slot[group]].astype(np.int64)
        return found


def _priced(problem: Problem, prices: Sequence[float], limit: int) -> _Priced:
    """Sum up all rows at prices, exactly, in a unit in which 64 bits hold sums; rounded so that nothing is lost."""
    multiples, shift = whole(problem, prices)
    room, excess = reach(problem, multiples, shift, limit)
    unit = max(0, room.bit_length() - _BITS)
    most = max(room, 0) + 1
    held = np.array([min(cost, most) >> unit for cost in excess.tolist()], np.int64)
    return _Priced(excess=held, room=room >> unit, unit=unit, multiples=multiples, shift=shift)
