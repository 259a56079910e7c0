"""The Lagrangian function of a problem with pairs and peaks: what is least once every row has a price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual import blocks, sweep, trellis, weights
from solvers.dual.formats import spans
from solvers.problem import Problem

__all__ = ["Answer", "Oracle"]

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What is least at some weights.

    Attributes:
        value: What the groups of each block come to, weighted, ``(blocks,)``.
        chosen: The option of each group, numbered through all groups, ``(groups,)``; -1 in blocks without a choice.
    """

    value: Numbers
    chosen: Integers


class Oracle:
    """Finds what is least for given weights of rows and of the steps of peaks.

    With weights ``w`` of the rows, the objective's included, and ``v`` of the steps, where the weights of a peak's
    steps sum up to no more than those of the rows that contain it, the least of ``sum(w * rows without peaks) +
    sum(v * steps)`` is no more than the least of ``sum(w * rows)``: no peak is below a mean of its steps.
    """

    def __init__(self, problem: Problem) -> None:
        """Lay out paths and terms, once for all weights."""
        self.problem = problem
        self.steps = blocks.steps(problem)
        self.step_begin = np.searchsorted(self.steps.step, np.arange(self.steps.count + 1))
        self.blocks = blocks.find(problem, self.steps)
        self.trellis = trellis.build(problem, self.blocks.of_group)
        self.sums = sweep.Sums(problem, self.trellis)
        self.options = weights.option_terms(problem)
        self.cells = weights.pair_terms(problem)
        self.order: Integers | None = None

    def costs(self, row: Numbers, step: Numbers) -> sweep.Costs:
        """Put together what options and arcs cost at these weights.

        Args:
            row: The weight of each row, ``(rows,)``.
            step: The weight of each step, ``(steps,)``.
        """
        option = self.options.weighted(row)
        # Few steps have weights; their terms stand together, step after step.
        weighs = np.flatnonzero(step)
        terms = spans(self.step_begin[weighs], np.diff(self.step_begin)[weighs])
        weight, cost = step[self.steps.step[terms]], self.steps.cost[terms].astype(step.dtype)
        np.add.at(option, self.steps.option[terms], weight * cost)
        return self.sums.costs(option, self.cells.weighted(row))

    def least(self, costs: sweep.Costs) -> Answer:
        """Find the least choice of every block."""
        ahead = sweep.forward(self.trellis, costs.arc)
        value = self._of_blocks(ahead)
        taken = sweep.path(self.trellis, costs.arc, ahead)
        chosen = np.full(self.problem.groups, -1)
        there = taken >= 0
        chosen[there] = sweep.options_of(self.sums, costs, taken[there])
        return Answer(value=value, chosen=chosen)

    def value(self, costs: sweep.Costs) -> Numbers:
        """Return what the least choice of every block costs, ``(blocks,)``."""
        return self._of_blocks(sweep.forward(self.trellis, costs.arc))

    def margins(self, costs: sweep.Costs) -> tuple[Numbers, Numbers]:
        """Return the least with each option taken, of its block alone, ``(options,)``, and the least of each block."""
        return sweep.margins(self.sums, costs, self.leaving())

    def total(self, costs: sweep.Costs, chosen: Integers) -> Numbers:
        """Return what a choice costs in each block, as paths see it, ``(blocks,)``."""
        pairs, count = self.problem.pairs, self.blocks.count
        found = np.zeros(count, costs.option.dtype)
        np.add.at(found, self.blocks.of_group, costs.option[chosen])
        met = pairs.cells(chosen - self.problem.start[:-1])
        settled = np.ones(len(pairs), np.bool_)
        settled[self.trellis.loosened] = False
        np.add.at(found, self.blocks.of_group[pairs.source[settled]], costs.cell[met[settled]])
        return found

    def leaving(self) -> Integers:
        """Return the arcs by the node that they leave; for sweeps backwards."""
        if self.order is None:
            self.order = sweep.leaving(self.trellis)
        return self.order

    def _of_blocks(self, ahead: Numbers) -> Numbers:
        final = self.trellis.final
        return np.where(final >= 0, ahead[final], sweep.never(ahead.dtype))
