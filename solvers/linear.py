"""A problem as one sparse linear form in exact integers: what solvers of linear programs are handed.

Columns are the options (0 or 1), the greatest costs (peaks) and the formats in which two groups can meet (cells).
Constraints, in this order: one option of each group; the rows that bind; every step of a peak; and, for each pair of
groups, that cells and options agree on the format on either side. Meetings counted by format rather than by option
have the same relaxation with fewer columns (A. Koster, S. van Hoesel and A. Kolen, The partial constraint satisfaction
problem: facets and lifting theorems, Operations Research Letters 23 (1998), give the local polytope).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import LARGEST, Integers
from solvers.problem import Peak, Problem

__all__ = ["LinearForm", "linear_form"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearForm:
    """Minimise ``offset + objective @ x`` where ``matrix @ x`` is at most ``upper``, or equals it.

    Attributes:
        problem: What it states.
        matrix: The constraints, a ``scipy.sparse.csr_array`` of int64, ``(constraints, columns)``.
        upper: What each constraint may come to, ``(constraints,)``.
        equal: Whether it has to come to exactly that, ``(constraints,)``.
        objective: What each column costs, ``(columns,)``.
        offset: What is paid whatever is chosen.
        least: The least value of each column, ``(columns,)``.
        most: The greatest value of each column, ``(columns,)``.
        row: The constraint of each of the problem's rows, ``(rows,)``; -1 where a row does not bind.
        peak: The column of each of the problem's peaks, ``(peaks,)``; -1 where no row needs it.
        cell: The column of each of the pairs' cells, ``(cells,)``; -1 where two groups cannot meet in it, or where
            it makes no difference.
        first_link: The first constraint that ties a cell to options.

    >>> from solvers.problem import Row
    >>> rows = (
    ...     Row(name="loss", options=[1], costs=[7]),
    ...     Row(name="time", options=[0, 1], costs=[9, 4], constant=1, capacity=6),
    ... )
    >>> form = linear_form(Problem(start=[0, 2], rows=rows))
    >>> form.matrix.toarray().tolist(), form.upper.tolist(), form.equal.tolist()
    ([[1, 1], [9, 4]], [1, 5], [True, False])
    """

    problem: Problem
    matrix: Any
    upper: Integers
    equal: npt.NDArray[np.bool_]
    objective: Integers
    offset: int
    least: Integers
    most: Integers
    row: Integers
    peak: Integers
    cell: Integers
    first_link: int

    @property
    def options(self) -> int:
        """How many columns are options, which are whole; all other columns follow from them."""
        return self.problem.options

    def columns(self, choices: Sequence[int]) -> Integers:
        """Return the value of every column for a choice, ``(columns,)``.

        A meeting that is forbidden has no cell, so that its links are left broken.

        Args:
            choices: For each group, which of its options is chosen, from 0 within the group.
        """
        places = np.asarray(choices, np.int64)
        values = np.zeros(len(self.objective), np.int64)
        values[self.problem.start[:-1] + places] = 1
        for column, peak in zip(self.peak.tolist(), self.problem.peaks, strict=True):
            if column >= 0:
                mine = values[peak.options] == 1
                steps, costs = self.problem.steps_of(peak)[mine], peak.costs[mine]
                values[column] = max(_sums(steps, costs).max(initial=0), self.least[column])
        if len(self.problem.pairs):
            met = self.cell[self.problem.pairs.cells(places)]
            values[met[met >= 0]] = 1
        return values

    def choices(self, values: npt.NDArray[np.float64]) -> tuple[int, ...]:
        """Return, for each group, the option of the greatest value; the first of equals.

        Args:
            values: The value of every column, ``(columns,)``.
        """
        start = self.problem.start
        level = values[: self.options]
        top = np.repeat(np.maximum.reduceat(level, start[:-1]), np.diff(start))
        place = np.arange(self.options) - np.repeat(start[:-1], np.diff(start))
        place[level < top] = self.options
        return tuple(np.minimum.reduceat(place, start[:-1]).tolist())

    def floor(self) -> int:
        """Return what no choice can undercut: the cheapest of each group, peaks at their least."""
        cheapest = np.minimum.reduceat(self.objective[: self.options], self.problem.start[:-1])
        column = self.peak[self.peak >= 0]
        return self.offset + int(cheapest.sum()) + int((self.objective[column] * self.least[column]).sum())

    def impossible(self) -> bool:
        """Say whether one constraint alone shows that no choice keeps all; often none does though there is none."""
        bound = np.flatnonzero(self.row >= 0)
        first, beyond = self.problem.groups, self.problem.groups + len(bound)
        below = np.zeros(len(bound), np.int64)
        data = slice(self.matrix.indptr[first], self.matrix.indptr[beyond])
        constraint = np.repeat(np.arange(len(bound)), np.diff(self.matrix.indptr[first : beyond + 1]))
        column, cost = self.matrix.indices[data].astype(np.int64), self.matrix.data[data]
        option = column < self.options
        rows, low, _ = _extremes(self.problem, constraint[option], column[option], cost[option])
        np.add.at(below, rows, low)
        # Peaks have a least value of their own; all other columns can be nothing.
        np.add.at(below, constraint[~option], cost[~option] * self.least[column[~option]])
        if bool((below > self.upper[first:beyond]).any()):
            return True
        pairs = self.problem.pairs
        return bool(len(pairs)) and not np.logical_or.reduceat(_meeting(self.problem), pairs.cell_start[:-1]).all()


@dataclass(slots=True)
class _Terms:
    """The entries of a matrix while it is put together."""

    rows: list[Integers] = field(default_factory=list)
    columns: list[Integers] = field(default_factory=list)
    values: list[Integers] = field(default_factory=list)

    def add(self, rows: Integers, columns: Integers, values: Integers) -> None:
        """Add entries; the three are of one length once they are broadcast."""
        rows, columns, values = np.broadcast_arrays(rows, columns, values)
        self.rows.append(rows)
        self.columns.append(columns)
        self.values.append(values)


def linear_form(problem: Problem) -> LinearForm:
    """Write a problem as a linear form; 10^5 groups take about a second.

    Args:
        problem: The problem, without ties, forbidden options and spreads.

    Returns:
        The form; no figure is rounded.

    Raises:
        ValueError: The problem has what no linear form states.
    """
    from scipy.sparse import csr_array

    if problem.ties or len(problem.forbidden) or any(row.spread is not None for row in problem.rows):
        raise ValueError("a linear form states no ties, forbidden options or spreads: reduce the problem first")
    binding = np.array([row.capacity is not None for row in problem.rows])
    stated = binding.copy()
    stated[problem.objective] = True
    row = np.where(binding, problem.groups + np.cumsum(binding) - 1, -1)
    used = sorted({index for index in np.flatnonzero(stated).tolist() for index in problem.rows[index].peaks})
    peak = np.full(len(problem.peaks), -1)
    peak[used] = problem.options + np.arange(len(used))
    linked = _matters(problem, stated)
    meeting = _meeting(problem) & np.repeat(linked, np.diff(problem.pairs.cell_start))
    cell = np.where(meeting, problem.options + len(used) + np.cumsum(meeting) - 1, -1)
    count = problem.options + len(used) + int((cell >= 0).sum())
    terms = _Terms()
    terms.add(problem.group, np.arange(problem.options), np.ones(1, np.int64))
    objective = np.zeros(count, np.int64)
    for index in np.flatnonzero(stated).tolist():
        columns, costs = _row(problem, index, peak, cell)
        if binding[index]:
            terms.add(row[index], columns, costs)
        if index == problem.objective:
            objective[columns] = costs
    least, most = np.zeros(count, np.int64), np.ones(count, np.int64)
    above = problem.groups + int(binding.sum())
    for index in used:
        column = peak[index]
        steps, least[column], most[column] = _add_steps(terms, problem, problem.peaks[index], above, int(column))
        above += steps
    links = _add_links(terms, problem, cell, linked, above)
    rows, columns, values = (np.concatenate(part) for part in (terms.rows, terms.columns, terms.values))
    matrix = csr_array((values, (rows, columns)), shape=(above + links, count))
    matrix.eliminate_zeros()
    upper, equal = np.zeros(above + links, np.int64), np.zeros(above + links, np.bool_)
    upper[: problem.groups] = 1
    equal[: problem.groups] = equal[above:] = True
    for index in problem.bound_rows:
        entry = problem.rows[index]
        upper[row[index]] = max(-1, min((entry.capacity or 0) - entry.constant, LARGEST))
    return LinearForm(
        problem=problem,
        matrix=matrix,
        upper=upper,
        equal=equal,
        objective=objective,
        offset=problem.rows[problem.objective].constant,
        least=least,
        most=most,
        row=row,
        peak=peak,
        cell=cell,
        first_link=above,
    )


def _row(problem: Problem, index: int, peak: Integers, cell: Integers) -> tuple[Integers, Integers]:
    """Return the columns of a row and what they cost in it."""
    row, pairs = problem.rows[index], problem.pairs
    peaks = peak[list(row.peaks)]
    first, beyond = np.searchsorted(pairs.row, [index, index + 1])
    met, costs = cell[pairs.cell[first:beyond]], pairs.cost[first:beyond]
    columns = np.concatenate([row.options, peaks, met[met >= 0]])
    return columns, np.concatenate([row.costs, np.ones(len(peaks), np.int64), costs[met >= 0]])


def _add_steps(terms: _Terms, problem: Problem, peak: Peak, above: int, column: int) -> tuple[int, int, int]:
    """Add that a peak is no less than any of its steps; returns how many steps, its least and its greatest value.

    A step that cannot rise above what another step has at least needs no constraint.
    """
    if not len(peak.options):
        return 0, 0, 0
    steps = problem.steps_of(peak)
    keys, low, high = _extremes(problem, steps, peak.options, peak.costs)
    low, high = _sums(keys, low), _sums(keys, high)
    least = int(low.max())
    kept = high > least
    number = np.where(kept, above + np.cumsum(kept) - 1, -1)
    constraint = number[np.cumsum(np.diff(steps, prepend=steps[0]) != 0)]
    mine = constraint >= 0
    terms.add(constraint[mine], peak.options[mine], peak.costs[mine])
    terms.add(number[kept], np.array(column), np.array(-1))
    return int(kept.sum()), least, int(high.max())


def _extremes(
    problem: Problem, keys: Integers, options: Integers, costs: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return the least and the greatest that each group costs under each key, with the keys, ``(key-groups,)`` each.

    Terms are sorted by key, then by option; an option that a key does not name costs nothing under it.
    """
    if not len(options):
        return keys, costs, costs
    group = np.searchsorted(problem.start, options, side="right") - 1
    first = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
    whole = np.diff(np.append(first, len(keys))) == np.diff(problem.start)[group[first]]
    low = np.where(whole, np.minimum.reduceat(costs, first), 0)
    return keys[first], low, np.maximum.reduceat(costs, first)


def _sums(steps: Integers, costs: Integers) -> Integers:
    """Sum up by step, ``(different steps,)``, where the terms of a step stand together."""
    found: Integers = np.add.reduceat(costs, np.flatnonzero(np.diff(steps, prepend=-1))) if len(steps) else costs
    return found


def _meeting(problem: Problem) -> npt.NDArray[np.bool_]:
    """Return which cells two groups can meet in, ``(cells,)``: allowed, and of formats that options have."""
    pairs = problem.pairs
    found: npt.NDArray[np.bool_] = pairs.allowed.copy()
    for place, (_, used) in zip(_places(problem), _sides(problem), strict=True):
        occurs = np.zeros(int(place.max(initial=-1)) + 1, np.bool_)
        occurs[used] = True
        found &= occurs[place]
    return found


def _matters(problem: Problem, stated: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which pairs forbid something, or cost something in the rows that are stated, ``(pairs,)``."""
    pairs = problem.pairs
    if not len(pairs):
        return np.zeros(0, np.bool_)
    found: npt.NDArray[np.bool_] = ~np.logical_and.reduceat(pairs.allowed, pairs.cell_start[:-1])
    costly = pairs.cell[stated[pairs.row] & (pairs.cost > 0)]
    found[np.searchsorted(pairs.cell_start, costly, side="right") - 1] = True
    return found


def _places(problem: Problem) -> tuple[Integers, Integers]:
    """Number the formats of all sources through, and those of all targets; return those of each cell, ``(cells,)``."""
    pairs = problem.pairs
    sizes = np.diff(pairs.cell_start)
    columns = np.repeat(pairs.columns, sizes)
    inside = np.arange(len(pairs.allowed)) - np.repeat(pairs.cell_start[:-1], sizes)
    first = np.cumsum(sizes // pairs.columns) - sizes // pairs.columns
    source = np.repeat(first, sizes) + inside // columns
    target = np.repeat(np.cumsum(pairs.columns) - pairs.columns, sizes) + inside % columns
    return source, target


def _sides(problem: Problem) -> tuple[tuple[Integers, Integers], tuple[Integers, Integers]]:
    """Return, for sources and for targets, each entry's option and its format, numbered through as ``_places`` does."""
    pairs = problem.pairs
    formats = np.diff(pairs.cell_start) // pairs.columns
    found = []
    for group, start, of_option, count in (
        (pairs.source, pairs.source_start, pairs.source_format, formats),
        (pairs.target, pairs.target_start, pairs.target_format, pairs.columns),
    ):
        sizes = np.diff(start)
        option = np.arange(len(of_option)) + np.repeat(problem.start[group] - start[:-1], sizes)
        found.append((option, of_option + np.repeat(np.cumsum(count) - count, sizes)))
    return found[0], found[1]


def _add_links(terms: _Terms, problem: Problem, cell: Integers, linked: npt.NDArray[np.bool_], above: int) -> int:
    """Add, for each side of a pair and each format there, that the cells come to what the options come to."""
    pairs = problem.pairs
    count = 0
    for place, (option, used), start in zip(
        _places(problem), _sides(problem), (pairs.source_start, pairs.target_start), strict=True
    ):
        of_linked = np.repeat(linked, np.diff(start))
        number, added = np.unique(used[of_linked], return_inverse=True)
        terms.add(above + count + np.searchsorted(number, place[cell >= 0]), cell[cell >= 0], np.ones(1, np.int64))
        terms.add(above + count + added, option[of_linked], np.array(-1))
        count += len(number)
    return count
