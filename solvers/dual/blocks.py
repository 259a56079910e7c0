"""Which groups hang together by pairs and by rows of their own, and which rows couple them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.arrays import Integers
from solvers.problem import Problem

__all__ = ["Blocks", "Steps", "connected", "find", "steps"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """The steps of all peaks, numbered through.

    Attributes:
        peak: The peak of each step, ``(steps,)``.
        option: The option of each term, ``(terms,)``.
        step: The step of each term, ascending.
        cost: Its cost.
    """

    peak: Integers
    option: Integers
    step: Integers
    cost: Integers

    @property
    def count(self) -> int:
        """The number of steps."""
        return len(self.peak)

    def loads(self, chosen: Integers, options: int) -> Integers:
        """Return what the chosen options come to in each step, exactly, ``(steps,)``."""
        taken = np.zeros(options, np.int64)
        taken[chosen] = 1
        found = np.zeros(self.count, np.int64)
        np.add.at(found, self.step, self.cost * taken[self.option])
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Groups put into blocks that only coupling rows connect.

    Attributes:
        of_group: The block of each group, ``(groups,)``, from 0.
        coupling: The bound rows that several blocks pay into; where there is one block, all bound rows but one.
        block_of_row: The block of each row, ``(rows,)``; -1 for coupling rows, unbound rows and the objective.
    """

    of_group: Integers
    coupling: tuple[int, ...]
    block_of_row: Integers

    @property
    def count(self) -> int:
        """The number of blocks."""
        return int(self.of_group.max()) + 1


def steps(problem: Problem) -> Steps:
    """Number the steps of all peaks."""
    peak, option, step, cost = [], [], [], []
    count = 0
    for index, entry in enumerate(problem.peaks):
        numbers, inverse = np.unique(problem.steps_of(entry), return_inverse=True)
        peak.append(np.full(len(numbers), index))
        option.append(entry.options)
        step.append(inverse.reshape(-1) + count)
        cost.append(entry.costs)
        count += len(numbers)
    empty = [np.zeros(0, np.int64)]
    return Steps(
        peak=np.concatenate(empty + peak),
        option=np.concatenate(empty + option),
        step=np.concatenate(empty + step),
        cost=np.concatenate(empty + cost),
    )


def find(problem: Problem, taken: Steps) -> Blocks:
    """Put groups that meet, or that share a step of a peak, into blocks, and join these by rows of few groups.

    Args:
        problem: The problem.
        taken: The steps of its peaks.
    """
    pairs, of_option = problem.pairs, problem.group
    links = [(pairs.source, pairs.target), _chained(taken.step, of_option[taken.option])]
    block = connected(problem.groups, *(np.concatenate(ends) for ends in zip(*links, strict=True)))
    touched = {}
    bounds = np.searchsorted(pairs.row, np.arange(len(problem.rows) + 1))
    of_cell = np.repeat(np.arange(len(pairs)), np.diff(pairs.cell_start))
    for index in problem.bound_rows:
        row = problem.rows[index]
        met = pairs.source[of_cell[pairs.cell[bounds[index] : bounds[index + 1]]]]
        peaks = [of_option[problem.peaks[peak].options] for peak in row.peaks]
        touched[index] = np.unique(np.concatenate([of_option[row.options], met, *peaks]))
    coupling = []
    for index in sorted(touched, key=lambda row: len(touched[row])):
        mine = np.unique(block[touched[index]])
        if len(mine) < 2:
            continue
        if int(np.isin(block, mine).sum()) * 2 > problem.groups:
            coupling.append(index)
            continue
        block = np.where(np.isin(block, mine), mine[0], block)
    coupling = [index for index in coupling if len(np.unique(block[touched[index]])) > 1]
    if len(np.unique(block)) == 1:
        # One block with several rows: one is its own, the others are as good as coupling ones.
        alone = sorted(touched, key=lambda row: (len(problem.rows[row].peaks), row))
        coupling = alone[1:]
    _, block = np.unique(block, return_inverse=True)
    block_of_row = np.full(len(problem.rows), -1)
    for index, groups in touched.items():
        if index not in coupling:
            block_of_row[index] = block[groups[0]] if len(groups) else 0
    return Blocks(of_group=block.reshape(-1), coupling=tuple(sorted(coupling)), block_of_row=block_of_row)


def _chained(key: Integers, group: Integers) -> tuple[Integers, Integers]:
    """Link, one after the other, the groups that have a key in common."""
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return group[order[same]], group[order[same + 1]]


def connected(groups: int, source: Integers, target: Integers) -> Integers:
    """Number the connected components, ``(groups,)``, in the order of their first groups.

    >>> connected(4, np.array([1, 3]), np.array([2, 2])).tolist()
    [0, 1, 1, 1]
    """
    root = np.arange(groups, dtype=np.int64)
    while True:
        ends = root[source], root[target]
        apart = ends[0] != ends[1]
        if not bool(apart.any()):
            break
        low, high = np.minimum(*ends)[apart], np.maximum(*ends)[apart]
        np.minimum.at(root, high, low)
        while bool((root[root] != root).any()):
            root = root[root]
    _, number = np.unique(root, return_inverse=True)
    return number.reshape(-1).astype(np.int64)
