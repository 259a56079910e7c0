"""Choices of whole blocks, kept as columns, and the prices at which they are worth mixing.

G. Dantzig, P. Wolfe, Decomposition principle for linear programs (1960): the best Lagrangian bound is the least cost
of a convex mixture of each block's choices that keeps all rows. Columns come from the oracle, prices from the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.oracle import Oracle

__all__ = ["Columns", "Mixture", "Prices", "Room"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """What a unit of everything costs.

    Attributes:
        objective: The weight of the objective row: 1, or 0 where only the capacities are looked at.
        row: The price of each row, ``(rows,)``, 0 where none binds.
        step: The weight of each step of a peak, ``(steps,)``.
    """

    objective: float
    row: Floats
    step: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """What the best mixture of columns costs, and its prices.

    Attributes:
        value: What it costs; no better bound can come from these columns. With prices whose objective is 0, by how
            much all mixtures break the capacities.
        prices: The prices.
        share: The share of each column, ``(columns, blocks)``.
    """

    value: float
    prices: Prices
    share: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Room:
    """What rows leave for options, pairs and peaks, and which peaks they contain.

    Attributes:
        row: The capacity less the constant of each bound row, ``(rows,)``; infinite where none binds.
        contains: Whether a row contains a peak, ``(rows, peaks)``.
        objective: The objective row.
    """

    row: Floats
    contains: npt.NDArray[np.bool_]
    objective: int

    @staticmethod
    def of(oracle: Oracle) -> Room:
        """Read it from a problem."""
        problem = oracle.problem
        contains = np.zeros((len(problem.rows), len(problem.peaks)), np.bool_)
        for index, row in enumerate(problem.rows):
            contains[index, list(row.peaks)] = True
        room = [np.inf if row.capacity is None else float(row.capacity - row.constant) for row in problem.rows]
        return Room(row=np.array(room), contains=contains, objective=problem.objective)

    def weights(self, prices: Prices) -> Floats:
        """Return the weight of each row, the objective's included, ``(rows,)``."""
        weight = prices.row.copy()
        weight[self.objective] += prices.objective
        return weight

    def paid(self, prices: Prices) -> float:
        """Return what the rows' room is worth at these prices."""
        binding = np.isfinite(self.row)
        return float((prices.row[binding] * self.row[binding]).sum())


class Columns:
    """Choices that the oracle found, and what each costs in its block."""

    def __init__(self, oracle: Oracle) -> None:
        """Start without any."""
        self.oracle, self.room = oracle, Room.of(oracle)
        problem, blocks = oracle.problem, oracle.blocks
        self.chosen: list[Integers] = []
        self.objective: list[Floats] = []
        self.coupling: list[Floats] = []
        self.local: list[Floats] = []
        self.steps: list[Floats] = []
        self.allowed: list[npt.NDArray[np.bool_]] = []
        self.shared = (problem.objective, *blocks.coupling)
        self.dense = [_dense(oracle, row) for row in self.shared]
        self.block_of_pair = blocks.of_group[problem.pairs.source]
        self.block_of_row = blocks.block_of_row
        self.block_of_step = np.zeros(oracle.steps.count, np.int64)
        self.block_of_step[oracle.steps.step] = blocks.of_group[problem.group[oracle.steps.option]]
        self.relevant, self.sure = _relevant(oracle)
        self.active = np.zeros(oracle.steps.count, np.bool_)

    def __len__(self) -> int:
        """Return how many choices there are for each block."""
        return len(self.chosen)

    def add(self, chosen: Integers) -> None:
        """Keep a choice of every group, numbered through all groups."""
        oracle, blocks = self.oracle, self.oracle.blocks
        problem = oracle.problem
        met = problem.pairs.cells(chosen - problem.start[:-1])
        sums: list[Floats] = []
        for costs, cells in self.dense:
            of_block: Floats = np.bincount(blocks.of_group, costs[chosen], blocks.count).astype(np.float64)
            if cells is not None:
                of_block += np.bincount(self.block_of_pair, cells[met], blocks.count)
            sums.append(of_block)
        rows = oracle.options.sums(chosen, len(problem.rows)) + oracle.cells.sums(met, len(problem.rows))
        allowed = np.ones(blocks.count, np.bool_)
        allowed[self.block_of_pair[~problem.pairs.allowed[met]]] = False
        self.chosen.append(chosen)
        self.allowed.append(allowed)
        self.objective.append(sums[0])
        self.coupling.append(np.array(sums[1:]).reshape(len(sums) - 1, blocks.count))
        self.local.append(np.where(self.block_of_row >= 0, rows, 0).astype(np.float64))
        self.steps.append(oracle.steps.loads(chosen, problem.options).astype(np.float64))


def _dense(oracle: Oracle, row: int) -> tuple[Floats, Floats | None]:
    """Return what each option and each cell costs in a row."""
    weight = np.zeros(len(oracle.problem.rows))
    weight[row] = 1.0
    cells = oracle.cells.weighted(weight)
    return oracle.options.weighted(weight), cells if bool(cells.any()) else None


def _relevant(oracle: Oracle) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Tell which steps can be above what another of their peak holds at least, and mark that other one with 1."""
    steps, problem = oracle.steps, oracle.problem
    lowest, highest = np.zeros(steps.count), np.zeros(steps.count)
    # Terms by step and group: the least and the most of each group; options without a term cost 0.
    of_option = problem.group
    order = np.lexsort([of_option[steps.option], steps.step])
    step, group = steps.step[order], of_option[steps.option][order]
    heads = np.flatnonzero((np.diff(step, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
    if len(heads):
        cost = steps.cost[order].astype(np.float64)
        whole = np.diff(np.append(heads, len(order))) == np.diff(problem.start)[group[heads]]
        np.add.at(lowest, step[heads], np.where(whole, np.minimum.reduceat(cost, heads), 0.0))
        np.add.at(highest, step[heads], np.maximum.reduceat(cost, heads))
    floor = np.zeros(len(problem.peaks))
    np.maximum.at(floor, steps.peak, lowest)
    relevant = (highest > floor[steps.peak]) | (lowest >= floor[steps.peak])
    sure = np.zeros(steps.count)
    order = np.lexsort([-lowest, steps.peak])
    _, first = np.unique(steps.peak[order], return_index=True)
    sure[order[first]] = 1.0
    return relevant, sure
