"""Branch and bound over prices, whose leaves are listed: exact, in integers, for a few capacities and no pairs.

E. Balas and E. Zemel, An algorithm for large zero-one knapsack problems, Operations Research 28(5) (1980); D. Pisinger,
A minimal algorithm for the multiple-choice knapsack problem, European Journal of Operational Research 83 (1995). At
each node capacities get prices, which prove a bound and what each option costs beyond it; as soon as the choices that
could still be better are few enough, all are listed at once.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solvers.check import broken, values
from solvers.labels.enumerate import expected, listing
from solvers.labels.part import Part, part_of
from solvers.labels.prices import Top, top
from solvers.labels.reduced import Reduced, reduced
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, pairs=False, peaks=False, hints=True, deterministic=True, traces=True)
_FIGURES = 20_000_000
"""The figures that may be laid out densely."""
_NODE = 1000
"""A node is as much work as so many labels; work is counted in labels."""
_FIRST = 20_000
_AT_ROOT = 1_000_000
_AT_NODE = 100_000
"""Labels: for a first look, at most at the root, and at most further down."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve by branch and bound over prices.

    Args:
        problem: The problem, without pairs and peaks.
        limits: How long it may take; its work is counted in labels.
        hint: A choice that need not be beaten by less; left out where it breaks a capacity.

    Returns:
        The answer, with the prices at the root.

    Raises:
        RefusedError: There are too many figures.
    """
    figures = problem.groups * int(np.diff(problem.start).max()) * (1 + len(problem.bound_rows))
    if figures > _FIGURES:
        raise RefusedError(f"core lays out up to {_FIGURES} figures; there are {figures}")
    tree = _Tree(problem, limits)
    if hint is not None and not broken(problem, hint):
        tree.best = values(problem, hint)[problem.objective]
        tree.options = tuple((problem.start[:-1] + np.array(hint, dtype=np.int64)).tolist())
    return tree.search()


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    part: Part
    top: Top
    reduced: Reduced
    bound: int


class _Tree:
    """What is known so far, and the nodes that are left."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.begin = time.perf_counter()
        self.best: int | None = None
        self.options: tuple[int, ...] = ()
        self.heap: list[tuple[int, int, _Node]] = []
        self.number = itertools.count()
        self.told: tuple[int | None, int] = (None, -1)
        self.ceiling = 0
        self.prices: tuple[float, ...] | None = None
        self.nodes = self.labels = 0

    def search(self) -> Solution:
        whole = part_of(self.problem)
        whole = _binding(whole.keeping(whole.undominated()))
        lowest = whole.spent + sum(np.where(whole.alive, whole.cost, 2**62).min(axis=1, initial=2**62).tolist())
        self.ceiling = whole.spent + sum(np.where(whole.alive, whole.cost, 0).max(axis=1, initial=0).tolist())
        own = self.problem.rows[self.problem.objective].capacity
        self.ceiling = self.ceiling if own is None else min(self.ceiling, own)
        self.push(whole)
        while self.heap:
            lowest = max(lowest, self.heap[0][0])
            if self.best is not None and self.best - lowest <= self.limits.gap * self.best:
                break
            if time.perf_counter() - self.begin > self.limits.time_s:
                break
            if self.limits.work is not None and self.labels + _NODE * self.nodes > self.limits.work:
                break
            self.open(heapq.heappop(self.heap)[2])
            self.tell(lowest)
        return self.answer(lowest)

    def answer(self, lowest: int) -> Solution:
        done = not self.heap
        note = f"{self.nodes} nodes, {self.labels} labels"
        if self.best is None:
            if done:
                return Solution(status=Status.INFEASIBLE, note=note)
            return Solution(status=Status.LIMIT, bound=lowest, prices=self.prices, note=note)
        bound = self.best if done else min(lowest, self.best)
        choices = np.sort(np.array(self.options, dtype=np.int64)) - self.problem.start[:-1]
        return Solution(
            status=Status.OPTIMAL if bound == self.best else Status.FEASIBLE,
            choices=tuple(choices.tolist()),
            objective=self.best,
            bound=bound,
            prices=self.prices,
            note=note,
        )

    def tell(self, lowest: int) -> None:
        """Tell whoever watches, where there is something new."""
        bound = max(lowest, self.heap[0][0]) if self.heap else lowest
        if self.best is not None:
            bound = min(bound, self.best) if self.heap else self.best
        if self.limits.watch is not None and (self.best, bound) != self.told:
            self.told = (self.best, bound)
            self.limits.watch(time.perf_counter() - self.begin, self.best, bound)

    @property
    def limit(self) -> int:
        """What a choice worth having costs at most."""
        return self.ceiling if self.best is None else self.best - 1

    def improve(self, cost: int, options: tuple[int, ...]) -> None:
        if cost <= self.limit:
            self.best, self.options = cost, options

    def push(self, part: Part) -> None:
        """Bound a part, and keep it if something better can be in it."""
        self.nodes += 1
        kept = _possible(part)
        if kept is None:
            return
        part = _binding(kept)
        if not len(part.cost):
            if all(left >= 0 for left in part.room):
                self.improve(part.spent, part.decided)
            return
        found = top(part)
        exact = reduced(part, found.prices)
        if self.prices is None:
            prices = dict(zip(part.rows, found.prices.tolist(), strict=True))
            self.prices = tuple(prices.get(row, 0.0) for row in range(len(self.problem.rows)))
        for _, choice in found.mixture:
            line = np.arange(len(choice))
            used = part.usage[:, line, choice].sum(axis=1).tolist()
            if all(a <= b for a, b in zip(used, part.room, strict=True)):
                cost = part.spent + int(part.cost[line, choice].sum())
                self.improve(cost, (*part.decided, *part.option[line, choice].tolist()))
        bound = exact.bound(part.spent)
        if bound <= self.limit:
            heapq.heappush(self.heap, (bound, next(self.number), _Node(part, found, exact, bound)))

    def open(self, node: _Node) -> None:
        """List what is left in a node, or the best of it and then its children."""
        part, exact = node.part, node.reduced
        allowance = exact.allowance(self.limit, part.spent)
        if allowance < 0:
            return
        quota = _AT_ROOT if self.nodes == 1 else _AT_NODE
        for most in (_FIRST, quota):
            reach, everything = expected(exact.costs, allowance, most)
            if most > _FIRST and not everything:
                break
            found = listing(part, [(exact, reach)], 4 * most)
            self.labels += found.labels
            if found.cost is not None:
                self.improve(part.spent + found.cost, (*part.decided, *found.options))
                allowance = exact.allowance(self.limit, part.spent)
            if found.allowance >= allowance:
                return
        self.branch(node, allowance)

    def branch(self, node: _Node, allowance: int) -> None:
        """Decide the group whose options take the most unlike shares of the capacities."""
        part = node.part
        alive = node.reduced.costs <= allowance
        priced = np.tensordot(node.top.prices, part.usage.astype(np.float64), axes=1)
        reach = np.where(alive, priced, -np.inf).max(axis=1) - np.where(alive, priced, np.inf).min(axis=1)
        first = node.top.mixture[0][1]
        split = np.zeros(len(first), dtype=np.bool_)
        for _, choice in node.top.mixture[1:]:
            split |= choice != first
        split &= alive.sum(axis=1) > 1
        group = int(np.where(split, reach, -1.0).argmax()) if bool(split.any()) else int(reach.argmax())
        for place in np.flatnonzero(alive[group]).tolist():
            child = alive.copy()
            child[group] = False
            child[group, place] = True
            self.push(part.keeping(child))


def _binding(part: Part) -> Part:
    """Leave out the capacities that no choice can exceed."""
    if not len(part.cost):
        return part
    most = np.where(part.alive, part.usage, 0).max(axis=2).sum(axis=1).tolist()
    rows = [row for row, (used, left) in enumerate(zip(most, part.room, strict=True)) if used > left]
    return replace(
        part,
        usage=part.usage[rows],
        rows=tuple(part.rows[row] for row in rows),
        room=tuple(part.room[row] for row in rows),
    )


def _possible(part: Part) -> Part | None:
    """Leave out options that no capacity has room for beside the least of the other groups; None: none is left."""
    while len(part.cost):
        usage = np.where(part.alive, part.usage, 2**62)
        least = usage.min(axis=2)
        spare = [left - used for left, used in zip(part.room, least.sum(axis=1).tolist(), strict=True)]
        if any(left < 0 for left in spare):
            return None
        fits = part.alive & (usage - least[:, :, None] <= np.array(spare, dtype=np.int64)[:, None, None]).all(axis=0)
        if not bool(fits.any(axis=1).all()):
            return None
        if bool((fits == part.alive).all()):
            return part
        part = part.keeping(fits)
    return part if all(left >= 0 for left in part.room) else None
