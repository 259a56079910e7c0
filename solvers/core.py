"""List the choices that prices leave in doubt: exact, in integers, for problems without pairs and peaks.

E. Balas and E. Zemel, An algorithm for large zero-one knapsack problems, Operations Research 28(5) (1980); D. Pisinger,
A minimal algorithm for the multiple-choice knapsack problem, European Journal of Operational Research 83 (1995). Prices
of the capacities prove a bound and what each option costs beyond it. Few choices come close to that bound, and the
optimum is usually among the first that a short list finds; then all that could be better are gone through.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solvers.check import broken, values
from solvers.labels.descent import Descent
from solvers.labels.enumerate import expected, listing
from solvers.labels.part import Part, part_of
from solvers.labels.prices import Best, best, prices
from solvers.labels.reduced import Reduced, reduced
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(
    exact=True, pairs=False, peaks=False, hints=True, deterministic=True, traces=True, needs=("scipy",)
)
_FIGURES = 20_000_000
"""The figures that may be laid out densely."""
_FIRST = 20_000
_MORE = 300_000
_MORE_BELOW = 100_000
"""Labels of the first list of a node, and of one of all that is left, at the root and below."""
_BRANCHED = 32
"""After so many nodes, what is left of a node is gone through in depth before it is branched on."""
_DEEP = 2_000_000
"""Labels after which that is given up."""
_NODE = 1000
"""A node is as much work as so many labels; work is counted in labels."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve by prices and lists.

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
    run = _Run(problem, limits)
    if hint is not None and not broken(problem, hint):
        run.best = values(problem, hint)[problem.objective]
        run.options = tuple((problem.start[:-1] + np.array(hint, dtype=np.int64)).tolist())
    return run.go()


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    part: Part
    best: Best
    reduced: Reduced


class _Run:
    """What is known so far."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.begin = time.perf_counter()
        self.best: int | None = None
        self.options: tuple[int, ...] = ()
        self.bound = 0
        self.ceiling = 0
        self.prices: tuple[float, ...] | None = None
        self.told: tuple[int | None, int | None] = (None, None)
        self.heap: list[tuple[int, int, _Node]] = []
        self.labels = self.nodes = 0

    @property
    def limit(self) -> int:
        """What a choice worth having costs at most; none at all where the gap asked for is reached."""
        if self.best is None:
            return self.ceiling
        return min(self.best, math.ceil(self.best - self.limits.gap * self.best)) - 1

    @property
    def over(self) -> bool:
        """Whether a limit is reached."""
        if time.perf_counter() - self.begin > self.limits.time_s:
            return True
        return self.limits.work is not None and self.labels + _NODE * self.nodes > self.limits.work

    def go(self) -> Solution:
        """Find the best choice, or all that the limits allow."""
        whole = part_of(self.problem)
        self.bound = whole.spent + sum(np.where(whole.alive, whole.cost, 2**62).min(axis=1).tolist())
        self.ceiling = whole.spent + sum(np.where(whole.alive, whole.cost, 0).max(axis=1).tolist())
        own = self.problem.rows[self.problem.objective].capacity
        self.ceiling = self.ceiling if own is None else min(self.ceiling, own)
        self._push(whole.keeping(whole.undominated()))
        while self.heap:
            self._prove(min(self.heap[0][0], self.limit + 1))
            if self.over:
                break
            node = heapq.heappop(self.heap)[2]
            if not self._list(node) and not self._descend(node):
                self._branch(node)
        return self._answer(done=not self.heap)

    def _push(self, part: Part | None) -> None:
        """Price a part, and keep it if something better can be in it."""
        self.nodes += 1
        part = None if part is None else _possible(part)
        part = None if part is None else _binding(part)
        if part is None:
            return
        if not len(part.cost):
            self._improve(part.spent, part.decided)
            return
        found = best(part)
        exact = reduced(part, found.prices)
        if self.prices is None:
            of_row = dict(zip(part.rows, found.prices.tolist(), strict=True))
            self.prices = tuple(of_row.get(row, 0.0) for row in range(len(self.problem.rows)))
        bound = exact.bound(part.spent)
        if bound <= self.limit:
            heapq.heappush(self.heap, (bound, self.nodes, _Node(part, found, exact)))

    def _list(self, node: _Node) -> bool:
        """List the most promising choices of a node, or all; returns whether it was all."""
        part, exact = node.part, node.reduced
        for most in (_FIRST, _MORE if self.nodes == 1 else _MORE_BELOW):
            allowance = exact.allowance(self.limit, part.spent)
            if allowance < 0:
                return True
            reach, everything = expected(exact.costs, allowance, most)
            if most > _FIRST and not everything:
                return False
            found = listing(part, [(exact, reach)], 4 * most)
            self.labels += found.labels
            if found.cost is not None:
                self._improve(part.spent + found.cost, (*part.decided, *found.options))
            if found.allowance >= exact.allowance(self.limit, part.spent):
                return True
        return False

    def _descend(self, node: _Node) -> bool:
        """Go through a node in depth, where branching alone has not been enough; returns whether it was all."""
        if self.nodes < _BRANCHED:
            return False
        part = node.part
        left = node.reduced.costs <= node.reduced.allowance(self.limit, part.spent)
        kept = _possible(part.keeping(left)) if bool(left.any(axis=1).all()) else None
        if kept is None:
            return True
        part = _binding(kept)
        if not len(part.cost):
            self._improve(part.spent, part.decided)
            return True
        descent = Descent(part, prices(part), lambda: self.limit - part.spent)
        before = self.labels
        for found in descent.steps():
            self.labels = before + descent.made
            if found is not None:
                self._improve(part.spent + found[0], (*part.decided, *found[1]))
            if self.over or descent.made > _DEEP:
                break
        return not descent.stack

    def _branch(self, node: _Node) -> None:
        """Decide the group whose options take the most unlike shares of the capacities."""
        part = node.part
        alive = node.reduced.costs <= node.reduced.allowance(self.limit, part.spent)
        if not bool(alive.any(axis=1).all()):
            return
        priced = np.tensordot(node.best.prices, part.usage.astype(np.float64), axes=1)
        reach = np.where(alive, priced, -np.inf).max(axis=1) - np.where(alive, priced, np.inf).min(axis=1)
        several = alive.sum(axis=1) > 1
        if not bool(several.any()):
            self._push(part.keeping(alive))
            return
        split = node.best.split & several
        group = int(np.where(split if bool(split.any()) else several, reach, -1.0).argmax())
        for place in np.flatnonzero(alive[group]).tolist():
            child = alive.copy()
            child[group] = False
            child[group, place] = True
            self._push(part.keeping(child))

    def _improve(self, cost: int, options: tuple[int, ...]) -> None:
        if cost <= (self.ceiling if self.best is None else self.best - 1):
            self.best, self.options = cost, options
            self._tell()

    def _prove(self, bound: int) -> None:
        if bound > self.bound:
            self.bound = bound
            self._tell()

    def _tell(self) -> None:
        """Tell whoever watches, where there is something new."""
        news = (self.best, self.bound if self.best is None else min(self.bound, self.best))
        if self.limits.watch is not None and news != self.told:
            self.told = news
            self.limits.watch(time.perf_counter() - self.begin, *news)

    def _answer(self, *, done: bool) -> Solution:
        note = f"{self.nodes} nodes, {self.labels} labels"
        if self.best is None:
            if done:
                return Solution(status=Status.INFEASIBLE, note=note)
            return Solution(status=Status.LIMIT, bound=self.bound, prices=self.prices, note=note)
        if done:
            # What was left aside costs more than was worth having.
            self._prove(self.limit + 1)
        bound = min(self.bound, self.best)
        choices = np.sort(np.array(self.options, dtype=np.int64)) - self.problem.start[:-1]
        return Solution(
            status=Status.OPTIMAL if bound == self.best else Status.FEASIBLE,
            choices=tuple(choices.tolist()),
            objective=self.best,
            bound=bound,
            prices=self.prices,
            note=note,
        )


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
