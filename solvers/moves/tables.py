"""What every option costs in every account, in flat arrays, so that all single moves can be weighed at once.

An *account* is a sum that options add to: a row, the variance of a row, a step of a peak; one more counts the
forbidden meetings. A *block* is what the options of one group cost in one account, one figure each, so that an option
that costs nothing there has its place as well: what a move changes is then a difference within a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import LARGEST, Integers
from solvers.problem import Problem
from solvers.solver import RefusedError
from solvers.spread import Spread

__all__ = ["Ends", "Tables", "ranges", "summed"]


def ranges(first: Integers, lengths: Integers) -> Integers:
    """Return the numbers ``first[i]`` to ``first[i] + lengths[i] - 1`` of every i, one after the other.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    found: Integers = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - lengths), lengths)
    return found


def summed(places: Integers, weights: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Return the sum of the weights at each place, ``(length,)``.

    >>> summed(np.array([1, 1]), np.array([0.5, 2.0]), 3).tolist()
    [0.0, 2.5, 0.0]
    """
    return np.bincount(places, weights, length).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ends:
    """Both ends of every pair in every account that it costs something in, sources first, then targets.

    Attributes:
        block: The block of the group at this end in that account, ``(ends,)``.
        other: The group at the other end, ``(ends,)``.
        other_format: Where the cells of the formats that the other group's options have begin, ``(terms,)``.
        other_start: Where an end's part of ``other_format`` begins, ``(ends + 1,)``.
        cell: For each option of the group at this end, where its cells begin in ``cost``, ``(places,)``.
        cell_start: Where an end's part of ``cell`` and ``place`` begins, ``(ends + 1,)``.
        place: Where that option's cost stands among all blocks' costs, ``(places,)``.
        cost: What cells cost, ``(cells,)``.
    """

    block: Integers
    other: Integers
    other_format: Integers
    other_start: Integers
    cell: Integers
    cell_start: Integers
    place: Integers
    cost: Integers

    def far(self, places: Integers) -> Integers:
        """Return what the place of the other group adds to an end's cell, ``(ends,)``, given every group's place."""
        found: Integers = self.other_format[self.other_start[:-1] + places[self.other]]
        return found

    def met(self, block_group: Integers, places: Integers) -> tuple[Integers, Integers]:
        """Return the block of every meeting's source and what the meeting costs there, once a meeting."""
        half = len(self.block) // 2
        own = self.cell[self.cell_start[:half] + places[block_group[self.block[:half]]]]
        return self.block[:half], self.cost[own + self.far(places)[:half]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tables:
    """A problem as accounts and blocks.

    Accounts are numbered: the rows, forbidden meetings, the variances of rows that are uncertain, the steps of peaks.

    Attributes:
        problem: The problem; without ties and forbidden options.
        accounts: How many accounts there are.
        constant: What every account holds whatever is chosen, ``(accounts,)``.
        capacity: What rows and forbidden meetings may come to, ``(rows + 1,)``; ``LARGEST`` where nothing binds.
        unit: What a unit of excess counts in rows and forbidden meetings, ``(rows + 1,)``: the room that options
            compete for, so that excess is a share of it.
        of_option: The group of every option, ``(options,)``.
        block_account: The account of every block, ``(blocks,)``, ascending.
        block_group: The group of every block, ``(blocks,)``, ascending within an account.
        block_start: Where a block's costs begin, ``(blocks + 1,)``.
        cost: What options cost, block by block, without pairs, ``(places,)``.
        option: Which option stands where, ``(places,)``.
        account_start: Where an account's blocks begin, ``(accounts + 1,)``.
        variances: The row, the account and the spread of every row that is uncertain.
        peak_start: Where the accounts of a peak's steps begin, ``(peaks + 1,)``.
        row_peaks: For each row, its peaks.
        ends: The ends of pairs; None without pairs.
    """

    problem: Problem
    accounts: int
    constant: Integers
    capacity: Integers
    unit: npt.NDArray[np.float64]
    of_option: Integers
    block_account: Integers
    block_group: Integers
    block_start: Integers
    cost: Integers
    option: Integers
    account_start: Integers
    variances: tuple[tuple[int, int, Spread], ...]
    peak_start: Integers
    row_peaks: tuple[tuple[int, ...], ...]
    ends: Ends | None

    @property
    def forbidden(self) -> int:
        """The account that counts forbidden meetings."""
        return len(self.problem.rows)

    @classmethod
    def of(cls, problem: Problem) -> Tables:
        """Lay a problem out as accounts and blocks; rows that neither bind nor are the objective stay empty.

        Args:
            problem: The problem, without ties and forbidden options.

        Raises:
            RefusedError: The variances of a row could sum up beyond 64 bits.
        """
        _refuse_large(problem)
        rows = len(problem.rows)
        start, sizes = problem.start, np.diff(problem.start)
        of_option = np.repeat(np.arange(problem.groups), sizes)
        used = [i for i, row in enumerate(problem.rows) if row.capacity is not None or i == problem.objective]
        spreads = [(i, spread) for i in used if (spread := problem.rows[i].spread) is not None]
        variances = tuple((i, rows + 1 + place, spread) for place, (i, spread) in enumerate(spreads))
        terms = [_of(i, problem.rows[i].options, problem.rows[i].costs) for i in used]
        terms += [_of(account, spread.options, spread.variances) for _, account, spread in variances]
        peak_start = [rows + 1 + len(variances)]
        for peak in problem.peaks:
            _, step = np.unique(problem.steps_of(peak), return_inverse=True)
            terms.append((peak_start[-1] + step, peak.options, peak.costs))
            peak_start.append(peak_start[-1] + int(step.max(initial=-1)) + 1)
        account, option, cost = (
            np.concatenate([part[field] for part in terms]).astype(np.int64, copy=False) for field in range(3)
        )
        accounts = peak_start[-1]
        row_peaks = tuple(row.peaks if i in set(used) else () for i, row in enumerate(problem.rows))
        keys = [np.unique(account * problem.groups + of_option[option])]
        keys += _needed(problem, variances, row_peaks, of_option)
        pair_terms = _pair_terms(problem, set(used))
        met, met_account = pair_terms[:2]
        keys += [met_account * problem.groups + side[met] for side in (problem.pairs.source, problem.pairs.target)]
        key = np.unique(np.concatenate(keys))
        block_account, block_group = key // problem.groups, key % problem.groups
        block_start = np.concatenate([[0], np.cumsum(sizes[block_group])])
        costs = np.zeros(int(block_start[-1]), np.int64)
        block = np.searchsorted(key, account * problem.groups + of_option[option])
        costs[block_start[block] + option - start[block_group[block]]] = cost
        constant = np.zeros(accounts, np.int64)
        constant[:rows] = [row.constant for row in problem.rows]
        limits = [LARGEST if row.capacity is None else min(max(row.capacity, -1), LARGEST) for row in problem.rows]
        capacity = np.array([*limits, 0], np.int64)
        return cls(
            problem=problem,
            accounts=accounts,
            constant=constant,
            capacity=capacity,
            unit=_units(capacity, constant, block_account, block_start, costs),
            of_option=of_option,
            block_account=block_account,
            block_group=block_group,
            block_start=block_start,
            cost=costs,
            option=ranges(start[block_group], sizes[block_group]),
            account_start=np.searchsorted(block_account, np.arange(accounts + 1)),
            variances=variances,
            peak_start=np.array(peak_start, np.int64),
            row_peaks=row_peaks,
            ends=_ends(problem, key, block_start, *pair_terms) if len(met) else None,
        )

    def beside(self, account: int, groups: Integers) -> Integers:
        """Return where the costs of groups stand in an account; the groups have a block there, and are ascending."""
        within = slice(int(self.account_start[account]), int(self.account_start[account + 1]))
        block = within.start + np.searchsorted(self.block_group[within], groups)
        return ranges(self.block_start[block], np.diff(self.problem.start)[groups])


def _of(account: int, options: Integers, costs: Integers) -> tuple[Integers, Integers, Integers]:
    return np.full(len(options), account, np.int64), options, costs


def _needed(
    problem: Problem,
    variances: tuple[tuple[int, int, Spread], ...],
    row_peaks: tuple[tuple[int, ...], ...],
    of_option: Integers,
) -> list[Integers]:
    """List keys of blocks that rows need wherever a choice changes their peaks or variances."""
    keys = []
    for row, account, spread in variances:
        groups = np.unique(of_option[np.union1d(spread.options, problem.rows[row].options)])
        keys += [row * problem.groups + groups, account * problem.groups + groups]
    for row, peaks in enumerate(row_peaks):
        keys += [row * problem.groups + np.unique(of_option[problem.peaks[peak].options]) for peak in peaks]
    return keys


def _refuse_large(problem: Problem) -> None:
    for row in problem.rows:
        if row.spread is not None and sum(row.spread.variances.tolist()) > LARGEST:
            raise RefusedError(f"the variances of {row.name} could sum up beyond {LARGEST}; take a coarser unit")


def _units(
    capacity: Integers, constant: Integers, block_account: Integers, block_start: Integers, cost: Integers
) -> npt.NDArray[np.float64]:
    """Return the room in every row, at least a hundredth of what options differ by; a thousandth for meetings."""
    rows = len(capacity) - 1
    least, span = constant[:rows].astype(np.float64), np.zeros(rows)
    if len(cost):
        low, high = np.minimum.reduceat(cost, block_start[:-1]), np.maximum.reduceat(cost, block_start[:-1])
        low[block_account >= rows] = high[block_account >= rows] = 0
        within = np.minimum(block_account, rows - 1)
        least += np.bincount(within, low.astype(np.float64), rows)
        span += np.bincount(within, (high - low).astype(np.float64), rows)
    room = np.where(capacity[:rows] < LARGEST, capacity[:rows] - least, 0.0)
    return np.concatenate([np.maximum(np.maximum(room, span / 100), 1.0), [1e-3]])


def _pair_terms(problem: Problem, used: set[int]) -> tuple[Integers, Integers, Integers, Integers]:
    """Return which pair costs something in which account, and what its cells cost there.

    Returns:
        ``(links,)`` pairs, ``(links,)`` accounts, ``(links + 1,)`` where a link's cells begin, ``(cells,)`` costs.
    """
    pairs = problem.pairs
    cells = np.diff(pairs.cell_start)
    of_cell = np.repeat(np.arange(len(cells)), cells)
    closed = np.flatnonzero(~pairs.allowed)
    kept = np.isin(pairs.row, list(used))
    cell = np.concatenate([pairs.cell[kept], closed])
    account = np.concatenate([pairs.row[kept], np.full(len(closed), len(problem.rows))])
    cost = np.concatenate([pairs.cost[kept], np.ones(len(closed), np.int64)])
    width = len(problem.rows) + 1
    link, of_term = np.unique(of_cell[cell] * width + account, return_inverse=True)
    pair = link // width
    first = np.concatenate([[0], np.cumsum(cells[pair])])
    costs = np.zeros(int(first[-1]), np.int64)
    costs[first[of_term] + cell - pairs.cell_start[pair[of_term]]] = cost
    return pair, link % width, first, costs


def _ends(
    problem: Problem,
    key: Integers,
    block_start: Integers,
    pair: Integers,
    account: Integers,
    first: Integers,
    cost: Integers,
) -> Ends:
    """Lay out both ends of every link between two groups."""
    pairs, sizes = problem.pairs, np.diff(problem.start)
    one = np.ones(len(pair), np.int64)
    sides = (
        (pairs.source[pair], pairs.source_start[pair], pairs.source_format, pairs.columns[pair]),
        (pairs.target[pair], pairs.target_start[pair], pairs.target_format, one),
    )
    parts = []
    for (group, own_start, own, stride), (other, other_start, others, far) in (sides, sides[::-1]):
        block = np.searchsorted(key, account * problem.groups + group)
        own_cells = own[ranges(own_start, sizes[group])] * np.repeat(stride, sizes[group])
        far_cells = others[ranges(other_start, sizes[other])] * np.repeat(far, sizes[other])
        cell = np.repeat(first[:-1], sizes[group]) + own_cells
        place = ranges(block_start[block], sizes[group])
        parts.append((block, other, far_cells, sizes[other], cell, sizes[group], place))
    block, other, other_format, other_sizes, cell, own_sizes, place = (
        np.concatenate([part[field] for part in parts]) for field in range(7)
    )
    return Ends(
        block=block,
        other=other,
        other_format=other_format,
        other_start=np.concatenate([[0], np.cumsum(other_sizes)]),
        cell=cell,
        cell_start=np.concatenate([[0], np.cumsum(own_sizes)]),
        place=place,
        cost=cost,
    )
