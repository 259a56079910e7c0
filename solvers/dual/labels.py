"""Each block solved with its own row kept exactly, at given prices of everything else: labels along the trellis.

A label is a way to a node: what it costs and what it takes of the block's own row. One that costs no less and takes no
less than another of the same node is dropped, and so is one that the Lagrangian bound of what is still to come shows
to be no better than a choice that is known (M. Desrochers, F. Soumis, A generalized permanent labelling algorithm for
the shortest path problem with time windows, 1988; the bounding as in I. Dumitrescu, N. Boland, Improved preprocessing,
labeling and scaling algorithms for the weight-constrained shortest path problem, 2003). Where labels become too many,
those with the greatest bounds go, and the least bound among them stays behind as the block's bound.

All numbers are integers of 64 bits; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual import sweep
from solvers.dual.formats import spans
from solvers.dual.oracle import Oracle

__all__ = ["Best", "Task", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What is to be settled in every block.

    Attributes:
        cost: What options, classes and arcs cost, the own row left out.
        own: What they take of the own row.
        price: The price of each block's own row, ``(blocks,)``, at which what is to come is bounded.
        limit: What the own row may come to, ``(blocks,)``.
        known: What a choice that is known costs, ``(blocks,)``; only better ones are looked for.
        most: How many labels a block may have in one step.
        use: What options take of a row that couples blocks, where choices are wanted that take unlike much of it; what
            is found to be the bound is then none.
        unit: Labels whose use differs by so much do not stand in each other's way.
        others: How many choices of each block are wanted.
    """

    cost: sweep.Costs
    own: sweep.Costs
    price: Integers
    limit: Integers
    known: Integers
    most: int
    use: sweep.Costs | None = None
    unit: int = 1
    others: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """What was found.

    Attributes:
        bound: What no choice of the block that keeps its own row can undercut, ``(blocks,)``; no more than known.
        value: What the best choice found costs, ``(blocks,)``; what was known where none is better.
        chosen: The options of the best choices, ``(groups,)``; -1 in blocks where none is better.
        others: More choices of all blocks, the best first, as far as they were wanted.
    """

    bound: Integers
    value: Integers
    chosen: Integers
    others: tuple[Integers, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moves:
    """Arcs with one option each that can still be part of a better choice, by the node that they leave."""

    begin: Integers
    target: Integers
    option: Integers
    cost: Integers
    own: Integers
    use: Integers


def settle(oracle: Oracle, task: Task) -> Best:
    """Look for the best choice of every block that keeps its own row.

    Args:
        oracle: The oracle of the problem.
        task: What is to be settled.

    Returns:
        The best choices with their bounds.
    """
    return _Search(oracle, task).run()


class _Search:
    """Labels of all blocks, step by step."""

    def __init__(self, oracle: Oracle, task: Task) -> None:
        self.oracle, self.task, self.trellis = oracle, task, oracle.trellis
        trellis = self.trellis
        self.block = np.zeros(trellis.nodes, np.int64)
        self.block[: trellis.components] = np.arange(trellis.components)
        self.block[trellis.target] = trellis.component[trellis.group_of_class[trellis.arc_class]]
        self.option = task.cost.option + task.price[trellis.component][oracle.problem.group] * task.own.option
        self.of_class = oracle.sums.of_classes(self.option)
        self.arc = self.of_class[trellis.arc_class] + self._meetings()
        out = oracle.leaving()
        self.behind = sweep.backward(trellis, self.arc, out)
        self.behind_own = sweep.backward(trellis, task.own.arc, out)
        self.paid = task.price * task.limit
        self.moves = self._moves()

    def _meetings(self) -> Integers:
        """Return what arcs cost beyond their class, the own row at its price included."""
        trellis, task = self.trellis, self.task
        cost = task.cost.arc - task.cost.of_class[trellis.arc_class]
        own = task.own.arc - task.own.of_class[trellis.arc_class]
        found: Integers = cost + task.price[self.block[trellis.target]] * own
        return found

    def _moves(self) -> _Moves:
        trellis, task, sums = self.trellis, self.task, self.oracle.sums
        ahead = sweep.forward(trellis, self.arc)
        through = ahead[trellis.source] + self.arc + self.behind[trellis.target]
        block = self.block[trellis.target]
        arcs = np.flatnonzero(through - self.paid[block] < task.known[block])
        size = sums.class_size[trellis.arc_class[arcs]]
        option = sums.by_class[spans(sums.class_begin[trellis.arc_class[arcs]], size)]
        arc = np.repeat(arcs, size)
        dearer = self.option[option] - self.of_class[trellis.arc_class[arc]]
        fits = through[arc] + dearer - self.paid[block[arc]] < task.known[block[arc]]
        arc, option = arc[fits], option[fits]
        order = np.argsort(trellis.source[arc], kind="stable")
        arc, option = arc[order], option[order]
        of_class = trellis.arc_class[arc]
        return _Moves(
            begin=np.searchsorted(trellis.source[arc], np.arange(trellis.nodes + 1)),
            target=trellis.target[arc],
            option=option,
            cost=task.cost.arc[arc] - task.cost.of_class[of_class] + task.cost.option[option],
            own=task.own.arc[arc] - task.own.of_class[of_class] + task.own.option[option],
            use=np.zeros(len(arc), np.int64)
            if task.use is None
            else task.use.arc[arc] - task.use.of_class[of_class] + task.use.option[option],
        )

    def run(self) -> Best:
        """Take all steps and trace the best labels back."""
        task, trellis, moves = self.task, self.trellis, self.moves
        blocks = trellis.components
        node = np.arange(blocks)
        cost, own, use = (np.zeros(blocks, np.int64) for _ in range(3))
        dropped = np.full(blocks, sweep.NEVER)
        history: list[tuple[Integers, Integers]] = []
        ends: list[tuple[int, Integers, Integers]] = []
        value, where = task.known.copy(), np.full((blocks, 2), -1)
        for step in range(len(trellis.step_arcs) - 1):
            counts = moves.begin[node + 1] - moves.begin[node]
            parent = np.repeat(np.arange(len(node)), counts)
            move = spans(moves.begin[node], counts)
            node, cost, own = moves.target[move], cost[parent] + moves.cost[move], own[parent] + moves.own[move]
            use = use[parent] + moves.use[move]
            block = self.block[node]
            bound = cost + task.price[block] * own + self.behind[node] - self.paid[block]
            fits = (bound < value[block]) & (own + self.behind_own[node] <= task.limit[block])
            kept = np.flatnonzero(fits)
            kept = kept[_undominated(self._apart(node[kept], use[kept]), cost[kept], own[kept])]
            kept = _best(kept, block[kept], bound[kept], task.most, dropped)
            history.append((parent[kept], moves.option[move[kept]]))
            node, cost, own, use = node[kept], cost[kept], own[kept], use[kept]
            ended = np.flatnonzero(node == trellis.final[self.block[node]])
            if len(ended):
                order = ended[np.argsort(cost[ended], kind="stable")][::-1]
                better = order[cost[order] < value[self.block[node[order]]]]
                value[self.block[node[better]]] = cost[better]
                where[self.block[node[better]]] = np.stack([np.full(len(better), step), better], axis=1)
                ends.append((step, ended[_sorted(self.block[node[ended]], cost[ended])], self.block[node]))
        return Best(
            bound=np.minimum(value, dropped),
            value=value,
            chosen=self._traced(history, where),
            others=tuple(self._others(history, ends)),
        )

    def _apart(self, node: Integers, use: Integers) -> Integers:
        """Number nodes so that labels of unlike use stand at unlike ones."""
        if self.task.use is None or not len(node):
            return node
        part = use // self.task.unit
        part -= part.min()
        found: Integers = node * (int(part.max()) + 1) + part
        return found

    def _others(
        self, history: list[tuple[Integers, Integers]], ends: list[tuple[int, Integers, Integers]]
    ) -> Iterator[Integers]:
        """Trace more labels back than the best of each block, those of equal rank together."""
        for rank in range(1, self.task.others):
            where = np.full((self.trellis.components, 2), -1)
            for step, order, block in ends:
                of_block = block[order]
                place = np.arange(len(order)) - np.searchsorted(of_block, of_block)
                label = order[place == rank]
                where[block[label]] = np.stack([np.full(len(label), step), label], axis=1)
            if bool((where < 0).all()):
                return
            yield self._traced(history, where)

    def _traced(self, history: list[tuple[Integers, Integers]], where: Integers) -> Integers:
        chosen = np.full(len(self.trellis.component), -1)
        label = np.full(len(where), -1)
        of_option = self.oracle.problem.group
        for step in range(len(history) - 1, -1, -1):
            starts = where[:, 0] == step
            label[starts] = where[starts, 1]
            live = np.flatnonzero(label >= 0)
            parent, option = history[step]
            taken = option[label[live]]
            chosen[of_option[taken]] = taken
            label[live] = parent[label[live]]
        return chosen


def _undominated(node: Integers, cost: Integers, own: Integers) -> Integers:
    """Return the labels that no other of their node undercuts in both, sorted by node, then by the own row."""
    order = _sorted(node, own)
    of_node, least = node[order], cost[order].copy()
    width = 1
    while width < len(order):
        same = of_node[width:] == of_node[:-width]
        if not bool(same.any()):
            break
        # Least cost so far within the node, over windows that double.
        least[width:] = np.where(same, np.minimum(least[width:], least[:-width]), least[width:])
        width *= 2
    kept = np.ones(len(order), np.bool_)
    kept[1:] = (of_node[1:] != of_node[:-1]) | (cost[order][1:] < least[:-1])
    return order[kept]


def _sorted(major: Integers, minor: Integers) -> npt.NDArray[np.intp]:
    """Sort by two keys; by one that holds both where 64 bits suffice, which is several times faster."""
    if not len(major):
        return np.zeros(0, np.intp)
    low, first = int(minor.min()), int(major.min())
    span = int(minor.max()) - low + 1
    if (int(major.max()) - first + 1) * span < 2**62:
        return np.argsort((major - first) * span + (minor - low))
    return np.lexsort([minor, major])


def _best(kept: Integers, block: Integers, bound: Integers, most: int, dropped: Integers) -> Integers:
    """Keep the labels of least bound where a block has too many, and note the least that is lost."""
    counts = np.bincount(block, minlength=len(dropped))
    full = counts > most
    if not bool(full.any()):
        return kept
    many = np.flatnonzero(full[block])
    order = many[_sorted(block[many], bound[many])]
    sizes = counts[full]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    lost = order[rank == most]
    dropped[block[lost]] = np.minimum(dropped[block[lost]], bound[lost])
    left = np.ones(len(kept), np.bool_)
    left[order[rank >= most]] = False
    found: Integers = kept[left]
    return found
