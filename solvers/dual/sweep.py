"""Least paths through a trellis, and the least of those through every arc: Viterbi forwards and backwards.

Everything here is generic in its numbers: floats while prices are sought, integers of 64 bits where a bound has to be
right, Python's own where those do not suffice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.formats import spans
from solvers.dual.trellis import Trellis
from solvers.problem import Problem

__all__ = ["NEVER", "Costs", "Sums", "backward", "forward", "leaving", "margins", "never", "options_of", "path"]

Numbers = npt.NDArray[Any]

NEVER = 2**61
"""What integers cost that cannot be taken; nothing else costs as much."""


def never(kind: np.dtype[np.generic]) -> float | int:
    """Return what cannot be taken costs, in numbers of that kind."""
    return np.inf if kind == np.float64 else NEVER if kind == np.int64 else 2**400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Costs:
    """What a trellis costs at some prices.

    Attributes:
        option: What each option costs, what loosened pairs cost at least included, ``(options,)``.
        of_class: The least of each class, ``(classes,)``.
        arc: What each arc costs, ``(arcs,)``.
        cell: What each cell of pairs costs, and 0 behind them, ``(cells + 1,)``.
    """

    option: Numbers
    of_class: Numbers
    arc: Numbers
    cell: Numbers


class Sums:
    """Where in a problem the costs of a trellis come from, laid out once for all prices."""

    def __init__(self, problem: Problem, trellis: Trellis) -> None:
        """Sort options by class."""
        self.problem, self.trellis = problem, trellis
        of_option = trellis.classes.of_option
        self.by_class = np.argsort(of_option, kind="stable")
        self.sorted = bool((self.by_class == np.arange(len(of_option))).all())
        self.class_begin = np.searchsorted(of_option[self.by_class], np.arange(len(trellis.group_of_class)))
        self.class_size = np.diff(np.append(self.class_begin, len(of_option)))

    def costs(self, option: Numbers, cell: Numbers) -> Costs:
        """Put together what arcs cost.

        Args:
            option: What each option costs, ``(options,)``; what ``never`` returns where it cannot be taken.
            cell: What each cell of pairs costs, and 0 behind them, ``(cells + 1,)``.
        """
        trellis = self.trellis
        if len(trellis.loosened):
            option = self._loosened(option, cell)
        of_class = self.of_classes(option)
        arc = of_class[trellis.arc_class]
        for cells in trellis.arc_cells:
            arc = arc + cell[cells]
        return Costs(option=option, of_class=of_class, arc=arc, cell=cell)

    def of_classes(self, option: Numbers) -> Numbers:
        """Return the least of each class, ``(classes,)``."""
        least: Numbers = np.minimum.reduceat(option[self.by_class], self.class_begin)
        return least

    def _loosened(self, option: Numbers, cell: Numbers) -> Numbers:
        """Add to sources what their formats cost at least in the pairs that no path settles."""
        pairs, option = self.problem.pairs, option.copy()
        nothing = never(option.dtype)
        for index in self.trellis.loosened.tolist():
            first, beyond = int(pairs.cell_start[index]), int(pairs.cell_start[index + 1])
            allowed = pairs.allowed[first:beyond]
            met = np.where(allowed, cell[first:beyond], nothing).reshape(-1, int(pairs.columns[index]))
            reads = np.unique(pairs.target_format[pairs.target_start[index] : pairs.target_start[index + 1]])
            least = met[:, reads].min(axis=1)
            formats = pairs.source_format[pairs.source_start[index] : pairs.source_start[index + 1]]
            begin = int(self.problem.start[pairs.source[index]])
            here = slice(begin, begin + len(formats))
            option[here] = np.minimum(option[here] + least[formats], nothing)
        return option


def forward(trellis: Trellis, arc: Numbers) -> Numbers:
    """Return what it costs at least to come to each node, ``(nodes,)``."""
    value = np.empty(trellis.nodes, arc.dtype)
    value[: trellis.components] = 0
    most = never(arc.dtype)
    arcs, nodes = pairwise(trellis.step_arcs.tolist()), pairwise(trellis.step_nodes.tolist())
    for (first, beyond), (node, last) in zip(arcs, nodes, strict=True):
        if first == beyond:
            continue
        reached = value[trellis.source[first:beyond]] + arc[first:beyond]
        value[node:last] = np.minimum(np.minimum.reduceat(reached, trellis.arcs_into[node:last] - first), most)
    return value


def backward(trellis: Trellis, arc: Numbers, order: Integers) -> Numbers:
    """Return what it costs at least to go on from each node to the end, ``(nodes,)``.

    Args:
        trellis: The trellis.
        arc: What each arc costs.
        order: What ``leaving`` returns for the trellis.
    """
    most = never(arc.dtype)
    value = np.full(trellis.nodes, most, arc.dtype)
    value[trellis.final[trellis.final >= 0]] = 0
    for step in range(len(trellis.step_arcs) - 2, -1, -1):
        first, beyond = trellis.step_arcs[step], trellis.step_arcs[step + 1]
        if first == beyond:
            continue
        mine = order[first:beyond]
        leaves = trellis.source[mine]
        heads = np.flatnonzero(np.diff(leaves, prepend=-1))
        on = value[trellis.target[mine]] + arc[mine]
        value[leaves[heads]] = np.minimum(np.minimum.reduceat(on, heads), most)
    return value


def leaving(trellis: Trellis) -> Integers:
    """Sort the arcs of each step by the node that they leave, ``(arcs,)``; for ``backward``."""
    step = np.repeat(np.arange(len(trellis.step_arcs) - 1), np.diff(trellis.step_arcs))
    order: Integers = np.lexsort([trellis.source, step])
    return order


def path(trellis: Trellis, arc: Numbers, value: Numbers) -> Integers:
    """Return the class of each group on each component's least path, ``(groups,)``; -1 where there is no path.

    Args:
        trellis: The trellis.
        arc: What each arc costs.
        value: What ``forward`` returns for them.
    """
    reached = np.minimum(value[trellis.source] + arc, never(arc.dtype))
    tight = np.flatnonzero(reached == value[trellis.target])[::-1]
    into = np.empty(trellis.nodes, np.int64)
    into[trellis.target[tight]] = tight
    taken = np.full(len(trellis.component), -1)
    node = trellis.final[trellis.final >= 0]
    while True:
        node = node[node >= trellis.components]
        if not len(node):
            return taken
        arcs = into[node]
        chosen = trellis.arc_class[arcs]
        taken[trellis.group_of_class[chosen]] = chosen
        node = trellis.source[arcs]


def options_of(sums: Sums, costs: Costs, taken: Integers) -> Integers:
    """Return the first option of least cost in each class taken, ``(classes taken,)``."""
    begin, size = sums.class_begin[taken], sums.class_size[taken]
    members = sums.by_class[spans(begin, size)]
    least = costs.option[members] == np.repeat(costs.of_class[taken], size)
    which = np.repeat(np.arange(len(taken)), size)
    hits = np.flatnonzero(least)[::-1]
    found = np.empty(len(taken), np.int64)
    found[which[hits]] = members[hits]
    return found


def margins(sums: Sums, costs: Costs, order: Integers) -> tuple[Numbers, Numbers]:
    """Return the least of all paths through each option, ``(options,)``, and of each component, ``(components,)``."""
    trellis = sums.trellis
    most = never(costs.arc.dtype)
    ahead, behind = forward(trellis, costs.arc), backward(trellis, costs.arc, order)
    through = np.minimum(np.minimum(ahead[trellis.source] + costs.arc, most) + behind[trellis.target], most)
    by_class = np.argsort(trellis.arc_class, kind="stable")
    of_class = np.full(len(trellis.group_of_class), most, costs.arc.dtype)
    present = trellis.arc_class[by_class]
    heads = np.flatnonzero(np.diff(present, prepend=-1))
    of_class[present[heads]] = np.minimum.reduceat(through[by_class], heads)
    number = trellis.classes.of_option
    dearer = costs.option - costs.of_class[number]
    total = np.where(trellis.final >= 0, ahead[trellis.final], most)
    usable = (costs.of_class[number] < most) & (of_class[number] < most)
    return np.where(usable, np.minimum(of_class[number] + np.where(usable, dearer, 0), most), most), total
