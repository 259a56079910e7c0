"""A problem laid out for arithmetic on all groups at once: matrices of options by groups, rows gathered in bands.

Rows that share no group can be treated at the same time: they form a *band*. A thousand models with a deadline each and
one memory are two bands, whatever the number of rows. The first band, the *local* one, cuts the groups into blocks that
nothing but the other bands connects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Problem, Row
from solvers.solver import RefusedError

__all__ = ["Band", "Layout", "layout"]

_MOST_CELLS = 2**28
"""A matrix of options by groups may have so many cells, 2 GiB; more are made only by few very large groups."""
_MOST_OPTIONS = 2**15 - 1
"""A choice of all groups is held in 16 bits for each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """Rows with capacities that share no group.

    Attributes:
        rows: Their indices in the problem, ``(R,)``.
        owner: Which of them, from 0 within the band, concerns each group, ``(groups,)``; -1 for none.
        costs: What each option costs in its row, ``costs[option][group]``.
        capacities: What each row may cost at most, without its constant, ``(R,)``.
    """

    rows: Integers
    owner: Integers
    costs: Integers
    capacities: Integers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A problem without pairs and peaks as matrices, its groups ordered by blocks.

    Attributes:
        problem: The problem.
        order: The problem's group at each place, ``(groups,)``.
        sizes: The number of options of each group, ``(groups,)``; beyond them the last one is repeated.
        costs: What each option costs in the objective, ``costs[option][group]``.
        bands: The local band first; rows that cannot be broken are in none.
        first: Where each block's groups begin, ``(blocks + 1,)``; a group without a local row is a block of its own.
        block: The block of each group, ``(groups,)``.
        room: What each block may cost in its local row, ``(blocks,)``; 0 where it has none, and costs nothing.
    """

    problem: Problem
    order: Integers
    sizes: Integers
    costs: Integers
    bands: tuple[Band, ...]
    first: Integers
    block: Integers
    room: Integers

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return len(self.first) - 1

    @property
    def local(self) -> Integers:
        """What each option costs in its block's local row, ``(options, groups)``; zeros without a local band."""
        return self.bands[0].costs if self.bands else np.zeros_like(self.costs)

    def choices(self, places: npt.NDArray[np.integer]) -> tuple[int, ...]:
        """Return options by the order of the layout, ``(groups,)``, as choices of the problem."""
        found = np.empty(len(self.order), np.int64)
        found[self.order] = np.minimum(places, self.sizes - 1)
        return tuple(found.tolist())

    def places(self, choices: npt.ArrayLike) -> Integers:
        """Return choices of the problem in the order of the layout."""
        found: Integers = np.asarray(choices, dtype=np.int64)[self.order]
        return found


def layout(problem: Problem) -> Layout:
    """Lay a problem out.

    Args:
        problem: A problem without pairs and peaks. A capacity of the objective is left out: whoever minimises a sum
            sees in the end whether it is kept.

    Returns:
        The layout. Capacities below what their rows always cost are kept as they are, below 0.

    Raises:
        RefusedError: A few groups are so much larger than the others that a matrix of all would not fit in memory.
    """
    sizes = np.diff(problem.start)
    places = int(sizes.max())
    if places > _MOST_OPTIONS or places * problem.groups > _MOST_CELLS:
        raise RefusedError(
            f"the largest of {problem.groups} groups has {places} options: lagrangian takes at most {_MOST_OPTIONS}, "
            f"pads groups to equal sizes, and takes at most {_MOST_CELLS} in all"
        )
    group = np.repeat(np.arange(problem.groups), sizes)
    bands = _bands(problem, group)
    owner = bands[0][1] if bands else np.full(problem.groups, -1)
    order = np.argsort(np.where(owner < 0, len(problem.rows), owner), kind="stable")
    owner = owner[order]
    sizes = sizes[order]
    begins = np.ones(problem.groups, np.bool_)
    begins[1:] = (owner[1:] < 0) | (owner[1:] != owner[:-1])
    first = np.append(np.flatnonzero(begins), problem.groups)
    option = problem.start[order] + np.minimum(np.arange(places)[:, None], sizes - 1)
    objective = problem.rows[problem.objective]
    made = []
    for rows, owners in bands:
        capacities = [_room(problem.rows[row]) for row in rows]
        costs = _matrix(problem, [problem.rows[row] for row in rows], option)
        made.append(Band(rows=np.array(rows), owner=owners[order], costs=costs, capacities=np.array(capacities)))
    held = owner[first[:-1]]
    room = np.zeros(len(held), np.int64)
    if made:
        room[held >= 0] = made[0].capacities[held[held >= 0]]
    return Layout(
        problem=problem,
        order=order,
        sizes=sizes,
        costs=_matrix(problem, [objective], option),
        bands=tuple(made),
        first=first,
        block=np.cumsum(begins) - 1,
        room=room,
    )


def _room(row: Row) -> int:
    assert row.capacity is not None  # noqa: S101 - rows without one are in no band
    # All capacities below 0 are alike: nothing keeps them.
    return max(row.capacity - row.constant, -1)


def _matrix(problem: Problem, rows: list[Row], option: Integers) -> Integers:
    """Spread the costs of rows that share no group over all options, ``(options, groups)``."""
    flat = np.zeros(problem.options, np.int64)
    for row in rows:
        # Rows of one band may name the same option, all but one of them with a cost of 0.
        flat[row.options] += row.costs
    return flat[option]


def _bands(problem: Problem, group: Integers) -> list[tuple[list[int], Integers]]:
    """Gather rows into bands, those of few groups first; leave out those that no choice can break."""
    touched: list[tuple[int, int, Integers]] = []
    for index in problem.bound_rows:
        row = problem.rows[index]
        if index == problem.objective:
            continue
        there = row.costs > 0
        groups = group[row.options[there]]
        begins = np.flatnonzero(np.diff(groups, prepend=-1))
        most = int(np.maximum.reduceat(row.costs[there], begins).sum()) if len(begins) else 0
        if most > _room(row):
            touched.append((len(begins), index, groups[begins]))
    bands: list[tuple[list[int], Integers]] = []
    for _, index, groups in sorted(touched, key=lambda entry: entry[:2]):
        free = (band for band in bands if bool((band[1][groups] < 0).all()))
        band = next(free, None)
        if band is None:
            band = ([], np.full(problem.groups, -1))
            bands.append(band)
        band[1][groups] = len(band[0])
        band[0].append(index)
    return bands
