"""Every choice whose reduced costs sum up to little: group after group, as labels in flat arrays.

E. Balas and E. Zemel, An algorithm for large zero-one knapsack problems, Operations Research 28(5) (1980): the groups
whose best option is in doubt are few, the core. Here the core is not guessed: a choice that costs at most a limit has
reduced costs that sum up to no more than the distance of that limit from the Lagrangian bound, so that to list all
such sums is a proof. The second prices, each with a distance of its own, cut labels that the first would keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.labels.part import Part
from solvers.labels.reduced import Reduced

__all__ = ["Listing", "expected", "listing"]

_CELLS = 512
"""Into how many classes sums of reduced costs are sorted when they are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """What listing the choices found.

    Attributes:
        allowance: All choices whose reduced costs, at the first prices, sum up to at most this were looked at;
            below 0 where not even those of sum 0 were.
        cost: The least that one of them costs that keeps the capacities, without what is decided; None: none does.
        options: That choice, by the problem's options.
        labels: How many labels were made.
    """

    allowance: int
    cost: int | None
    options: tuple[int, ...]
    labels: int


def listing(part: Part, tests: Sequence[tuple[Reduced, int]], quota: int) -> Listing:
    """List the choices whose reduced costs sum up to no more than an allowance.

    Args:
        part: The groups and capacities.
        tests: Reduced costs, each with the sum that a choice worth having cannot exceed; the first is the one
            that is lowered where there are too many labels.
        quota: How many labels there may be after a group; with more, the first allowance is lowered until they fit.

    Returns:
        The best choice, and up to which sum the list is complete.
    """
    first, allowance = tests[0]
    allowances = np.array([sum_ for _, sum_ in tests], dtype=np.int64)
    if int(allowances.min(initial=0)) < 0:
        return Listing(allowance, None, (), 0)
    second = np.partition(first.costs, 1, axis=1)[:, 1]
    worth = np.ones(part.cost.shape, dtype=np.bool_)
    for (test, _), most in zip(tests, allowances.tolist(), strict=True):
        worth &= test.costs <= most
    # Groups in which a second option costs the most come first: they leave few labels, and lower the allowance early.
    order = np.argsort(-second, kind="stable")
    counts = worth.sum(axis=1)
    core = order[counts[order] > 1]
    rest = order[counts[order] <= 1]
    if bool((counts == 0).any()):
        return Listing(allowance, None, (), 0)
    return _Labels(part, tests, allowances, worth, core, rest).spread(quota)


class _Labels:
    """Labels of the groups looked at so far, with where each came from."""

    def __init__(
        self,
        part: Part,
        tests: Sequence[tuple[Reduced, int]],
        allowances: Integers,
        worth: npt.NDArray[np.bool_],
        core: Integers,
        rest: Integers,
    ) -> None:
        self.part, self.allowances, self.core, self.rest = part, allowances, core, rest
        self.fixed = worth[rest].argmax(axis=1)
        rows = len(part.room)
        # One line for each test's sum, one for each row's use, one for the cost.
        figures = np.concatenate([np.stack([test.costs for test, _ in tests]), part.usage, part.cost[None]])
        self.tests = len(tests)
        start = figures[:, rest, self.fixed].sum(axis=1)
        limit = np.concatenate([allowances, np.array([min(left, 2**62) for left in part.room], dtype=np.int64)])
        self.limit = limit
        self.figures = figures
        self.worth = worth
        self.labels = start[:, None]
        self.trace: list[tuple[Integers, Integers]] = []
        # The least that the groups still to come take of each row; of the tests they take nothing.
        least = np.zeros((len(limit), len(core) + 1), dtype=np.int64)
        for place in range(len(core) - 1, -1, -1):
            group = core[place]
            options = np.flatnonzero(worth[group])
            least[:, place] = least[:, place + 1] + figures[: len(limit), group][:, options].min(axis=1)
        self.least = least
        self.rows = rows

    def spread(self, quota: int) -> Listing:
        """Go through the core's groups."""
        made = 0
        if bool((self.labels[: len(self.limit), 0] > self.limit - self.least[:, 0]).any()):
            return Listing(int(self.limit[0]), None, (), made)
        for place, group in enumerate(self.core.tolist()):
            options = np.flatnonzero(self.worth[group])
            options = options[np.argsort(self.figures[0, group, options], kind="stable")]
            limit = self.limit - self.least[:, place + 1]
            grown, parents, taken = [], [], []
            for option in options.tolist():
                step = self.figures[:, group, option]
                fits = (self.labels[: len(limit)] <= (limit - step[: len(limit)])[:, None]).all(axis=0)
                parent = np.flatnonzero(fits)
                if len(parent):
                    grown.append(self.labels[:, parent] + step[:, None])
                    parents.append(parent)
                    taken.append(np.full(len(parent), option))
            if not grown:
                return Listing(int(self.limit[0]), None, (), made)
            labels, parent, option_of = np.concatenate(grown, axis=1), np.concatenate(parents), np.concatenate(taken)
            if labels.shape[1] > quota:
                cut = int(np.partition(labels[0], quota)[quota]) - 1
                kept = labels[0] <= cut
                self.limit[0] = cut
                labels, parent, option_of = labels[:, kept], parent[kept], option_of[kept]
                if not len(parent):
                    return Listing(cut, None, (), made)
            made += labels.shape[1]
            self.labels = labels
            self.trace.append((parent, option_of))
        best = int(self.labels[-1].argmin())
        return Listing(int(self.limit[0]), int(self.labels[-1, best]), self._options(best), made)

    def _options(self, label: int) -> tuple[int, ...]:
        """Go back from a label to the options that led to it."""
        found = self.part.option[self.rest, self.fixed].tolist()
        for group, (parent, option) in zip(self.core[::-1].tolist(), reversed(self.trace), strict=True):
            found.append(int(self.part.option[group, option[label]]))
            label = int(parent[label])
        return tuple(found)


def expected(costs: Integers, allowance: int, quota: int) -> tuple[int, bool]:
    """Say up to which sum of reduced costs there are about as many choices as a quota, capacities left aside.

    Args:
        costs: Reduced costs, ``(groups, places)``, 0 at the least of each group.
        allowance: The sum that is of interest at most, 0 or more.
        quota: How many choices there may be.

    Returns:
        The sum, no more than the allowance, and whether it is the allowance.
    """
    ordered = np.sort(costs, axis=1)
    reach = allowance
    while True:
        inside = ordered <= reach
        core = np.flatnonzero(inside[:, 1])
        count = np.zeros(_CELLS)
        count[0] = 1.0
        width = reach // _CELLS + 1
        for group in core.tolist():
            grown = count.copy()
            for cell in (ordered[group, 1 : int(inside[group].sum())] // width).tolist():
                grown[cell:] += count[: _CELLS - cell]
            count = grown
            if count[0] > quota:
                break
        many = np.flatnonzero(np.cumsum(count) > quota)
        if not len(many):
            return reach, reach == allowance
        if int(many[0]) > _CELLS // 16 or reach < _CELLS:
            return min(reach, int(many[0]) * width), False
        # Nearly everything lies in the first cells: look at those more closely.
        reach = reach // 16 + 1
