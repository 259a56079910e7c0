"""Costs of groups that meet, by the formats of their options; stored flat, so that 10^5 of them are nothing special."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers, integers

__all__ = ["Pair", "Pairs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """What it costs that two groups meet, by the *formats* of their options rather than by the options.

    Attributes:
        source: The group that writes.
        target: The group that reads.
        source_format: The format that each option of the source writes, ``(options of source,)``, from 0.
        target_format: The format that each option of the target reads, ``(options of target,)``, from 0.
        allowed: Which formats may meet, ``allowed[source format][target format]``.
        costs: For each row that is concerned, its index and ``costs[source format][target format]``.

    >>> Pair(
    ...     source=0,
    ...     target=1,
    ...     source_format=[0, 1],
    ...     target_format=[0, 1],
    ...     allowed=[[True, False], [False, True]],
    ...     costs=(),
    ... ).allowed.shape
    (2, 2)
    """

    source: int
    target: int
    source_format: Integers
    target_format: Integers
    allowed: npt.NDArray[np.bool_]
    costs: tuple[tuple[int, npt.NDArray[np.int64]], ...] = ()

    def __post_init__(self) -> None:
        """Hold read-only arrays of agreeing shapes."""
        name = f"pair {self.source}-{self.target}"
        if self.source == self.target:
            raise ValueError(f"{name}: a group cannot meet itself")
        object.__setattr__(self, "source_format", integers(f"{name}.source_format", self.source_format))
        object.__setattr__(self, "target_format", integers(f"{name}.target_format", self.target_format))
        allowed = np.array(self.allowed, dtype=np.bool_)
        shape = (int(self.source_format.max(initial=-1)) + 1, int(self.target_format.max(initial=-1)) + 1)
        if allowed.ndim != 2 or allowed.shape[0] < shape[0] or allowed.shape[1] < shape[1]:
            raise ValueError(f"{name}: allowed has shape {allowed.shape}; expected at least {shape}")
        allowed.flags.writeable = False
        object.__setattr__(self, "allowed", allowed)
        matrices = []
        for row, costs in self.costs:
            matrix = np.array(costs, dtype=np.int64)
            if matrix.shape != allowed.shape or int(matrix.min(initial=0)) < 0:
                raise ValueError(f"{name}: costs of row {row} have shape {matrix.shape} or are negative")
            matrix.flags.writeable = False
            matrices.append((operator.index(row), matrix))
        if len({row for row, _ in matrices}) < len(matrices):
            raise ValueError(f"{name}: a row is there twice")
        object.__setattr__(self, "costs", tuple(matrices))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs(Sequence[Pair]):
    """Many meetings in flat arrays; as a sequence, they are ``Pair``s made on demand, which is slow for many.

    The cell of source format ``f`` and target format ``g`` in pair ``p`` is ``cell_start[p] + f * columns[p] + g``.

    Attributes:
        source: The group that writes, ``(pairs,)``.
        target: The group that reads, ``(pairs,)``.
        source_start: Where the formats of each pair's source begin, ``(pairs + 1,)``.
        source_format: The formats that the source's options write, one pair after the other.
        target_start: Where the formats of each pair's target begin, ``(pairs + 1,)``.
        target_format: The formats that the target's options read, one pair after the other.
        cell_start: Where the cells of each pair begin, ``(pairs + 1,)``.
        columns: How many target formats each pair has, ``(pairs,)``.
        allowed: Whether the two formats of a cell may meet, ``(cells,)``.
        row: The row of each cost, ``(terms,)``.
        cell: The cell of each cost, ``(terms,)``; sorted by row, then by cell, none twice.
        cost: The costs, ``(terms,)``, none negative.

    >>> pair = Pair(source=0, target=1, source_format=[0, 1], target_format=[0, 0], allowed=[[True], [False]])
    >>> pairs = Pairs.of([pair])
    >>> len(pairs), pairs.cell_start.tolist(), pairs[0].allowed.tolist()
    (1, [0, 2], [[True], [False]])
    """

    source: Integers
    target: Integers
    source_start: Integers
    source_format: Integers
    target_start: Integers
    target_format: Integers
    cell_start: Integers
    columns: Integers
    allowed: npt.NDArray[np.bool_]
    row: Integers
    cell: Integers
    cost: Integers

    def __post_init__(self) -> None:
        """Hold read-only arrays of agreeing lengths."""
        count = len(np.asarray(self.source))
        lengths = {"source": count, "target": count, "columns": count}
        lengths |= dict.fromkeys(("source_start", "target_start", "cell_start"), count + 1)
        for name in ("source", "target", "source_start", "source_format", "target_start", "target_format"):
            object.__setattr__(self, name, integers(f"pairs.{name}", getattr(self, name), lengths.get(name)))
        for name in ("cell_start", "columns", "row", "cell", "cost"):
            object.__setattr__(self, name, integers(f"pairs.{name}", getattr(self, name), lengths.get(name)))
        allowed = np.array(self.allowed, dtype=np.bool_)
        allowed.flags.writeable = False
        object.__setattr__(self, "allowed", allowed)
        for start, flat in (
            (self.source_start, self.source_format),
            (self.target_start, self.target_format),
            (self.cell_start, self.allowed),
        ):
            if int(start[0]) != 0 or int(start[-1]) != len(flat) or bool((np.diff(start) < 0).any()):
                raise ValueError("where the formats or cells of the pairs begin does not fit what there is")
        self._check()

    def _check(self) -> None:
        if bool((self.source == self.target).any()):
            raise ValueError(f"group {int(self.source[self.source == self.target][0])} cannot meet itself")
        cells = np.diff(self.cell_start)
        if bool(((self.columns < 1) | (cells % np.maximum(self.columns, 1) != 0)).any()):
            raise ValueError("the cells of a pair are no whole number of rows of its target formats")
        formats = cells // np.maximum(self.columns, 1)
        for flat, start, most in (
            (self.source_format, self.source_start, formats),
            (self.target_format, self.target_start, self.columns),
        ):
            limit = np.repeat(most, np.diff(start))
            if len(flat) and (int(flat.min()) < 0 or bool((flat >= limit).any())):
                raise ValueError("an option of a pair has a format that the pair has no cell for")
        if not len(self.row) == len(self.cell) == len(self.cost):
            raise ValueError("the costs of the pairs have unequal lengths")
        if len(self.cost):
            ahead = (np.diff(self.row) > 0) | ((np.diff(self.row) == 0) & (np.diff(self.cell) > 0))
            if not bool(ahead.all()):
                raise ValueError("the costs of the pairs are not sorted by row and cell, or one is there twice")
            if int(self.cell.min()) < 0 or int(self.cell.max()) >= len(self.allowed) or int(self.cost.min()) < 0:
                raise ValueError("a cost of the pairs has no cell, or is negative")

    @staticmethod
    def of(pairs: Iterable[Pair]) -> Pairs:
        """Store pairs flat.

        Args:
            pairs: The pairs; flat ones are returned as they are.
        """
        if isinstance(pairs, Pairs):
            return pairs
        listed = tuple(pairs)
        cell_start = _starts([pair.allowed.size for pair in listed])
        terms = [
            (row, int(first) + cell, cost)
            for first, pair in zip(cell_start[:-1], listed, strict=True)
            for row, costs in pair.costs
            for cell, cost in enumerate(costs.ravel().tolist())
            if cost
        ]
        terms.sort()
        return Pairs(
            source=np.array([pair.source for pair in listed], np.int64),
            target=np.array([pair.target for pair in listed], np.int64),
            source_start=_starts([len(pair.source_format) for pair in listed]),
            source_format=_joined([pair.source_format for pair in listed]),
            target_start=_starts([len(pair.target_format) for pair in listed]),
            target_format=_joined([pair.target_format for pair in listed]),
            cell_start=cell_start,
            columns=np.array([pair.allowed.shape[1] for pair in listed], np.int64),
            allowed=np.concatenate([pair.allowed.ravel() for pair in listed]) if listed else np.zeros(0, np.bool_),
            row=np.array([row for row, _, _ in terms], np.int64),
            cell=np.array([cell for _, cell, _ in terms], np.int64),
            cost=np.array([cost for _, _, cost in terms], np.int64),
        )

    def __len__(self) -> int:
        """Return how many meetings there are."""
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Pair, ...]: ...

    def __getitem__(self, index: int | slice) -> Pair | tuple[Pair, ...]:
        """Make a pair, or several, with all that they cost."""
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        first, beyond = int(self.cell_start[place]), int(self.cell_start[place + 1])
        mine = np.flatnonzero((self.cell >= first) & (self.cell < beyond))
        return self._pair(place, mine)

    def __iter__(self) -> Iterator[Pair]:
        """Make the pairs one after the other."""
        by_cell = np.argsort(self.cell, kind="stable")
        bounds = np.searchsorted(self.cell[by_cell], self.cell_start)
        for place in range(len(self)):
            yield self._pair(place, by_cell[bounds[place] : bounds[place + 1]])

    def _pair(self, place: int, terms: npt.NDArray[np.intp]) -> Pair:
        first, beyond = int(self.cell_start[place]), int(self.cell_start[place + 1])
        shape = (-1, int(self.columns[place]))
        costs = []
        for row in np.unique(self.row[terms]).tolist():
            matrix = np.zeros(beyond - first, np.int64)
            of_row = terms[self.row[terms] == row]
            matrix[self.cell[of_row] - first] = self.cost[of_row]
            costs.append((row, matrix.reshape(shape)))
        return Pair(
            source=int(self.source[place]),
            target=int(self.target[place]),
            source_format=self.source_format[self.source_start[place] : self.source_start[place + 1]],
            target_format=self.target_format[self.target_start[place] : self.target_start[place + 1]],
            allowed=self.allowed[first:beyond].reshape(shape),
            costs=tuple(costs),
        )

    def cells(self, choices: Integers) -> Integers:
        """Return the cell in which each pair meets, ``(pairs,)``, given the place chosen in each group."""
        source = self.source_format[self.source_start[:-1] + choices[self.source]]
        target = self.target_format[self.target_start[:-1] + choices[self.target]]
        found: Integers = self.cell_start[:-1] + source * self.columns + target
        return found


def _starts(sizes: list[int]) -> Integers:
    return np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))]).astype(np.int64)


def _joined(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
