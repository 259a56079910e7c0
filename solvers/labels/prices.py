"""Prices of capacities at which the Lagrangian function is greatest, in floating point.

M. Fisher, The Lagrangian relaxation method for solving integer programming problems, Management Science 27(1) (1981).
Along one price the function is concave and piecewise linear, so that two points on either side of its top give, where
their lines meet, the next price to look at; with several prices the inner ones are brought to the top for every price
outside. What comes out are prices, not bounds: `solvers.labels.reduced` evaluates them in integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.labels.part import Part

__all__ = ["Best", "best", "prices"]

Floats = npt.NDArray[np.float64]

_NESTED = 2
"""Up to so many capacities the search is nested; with more, the linear relaxation is solved."""
_STEPS = 60
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class _Top:
    """Where the Lagrangian function is greatest in some of the prices.

    Attributes:
        value: Its value there.
        prices: What a unit of each capacity costs, ``(rows,)``.
        mixture: Choices that are cheapest at these prices, each with its share; together they meet the capacities
            that have a price.
    """

    value: float
    prices: Floats
    mixture: list[tuple[float, Integers]]


_Seen = tuple[_Top, float]
"""A top in the inner prices, with how much more than its capacity the outer row uses there."""


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """Prices of the capacities, with what the relaxation cannot decide.

    Attributes:
        prices: What a unit of each capacity costs, ``(rows,)``.
        split: Which groups take parts of several options in the relaxation, ``(groups,)``.
    """

    prices: Floats
    split: npt.NDArray[np.bool_]


def prices(part: Part) -> Floats:
    """Return the prices of `best` alone."""
    return best(part).prices


def best(part: Part) -> Best:
    """Find the prices of a part's capacities at which its Lagrangian function is greatest, or close to it.

    Where the capacities cannot be kept the function has no top; prices are then returned at which it is above
    anything that a choice could cost.

    Args:
        part: The groups and capacities; at least one group.
    """
    rows = len(part.room)
    if rows > _NESTED:
        return _relaxed(part)
    search = _Search(part)
    top = search.highest(search.cost, tuple(range(rows)), np.zeros(rows))
    split = np.zeros(len(part.cost), np.bool_)
    for _, choice in top.mixture[1:]:
        split |= choice != top.mixture[0][1]
    return Best(top.prices, split)


def _relaxed(part: Part) -> Best:
    """Solve the linear relaxation; its dual values are the prices."""
    from scipy import sparse
    from scipy.optimize import linprog

    alive = part.alive.ravel()
    groups, places = part.alive.shape
    usage = part.usage.reshape(len(part.room), -1)[:, alive].astype(np.float64)
    cost = part.cost.ravel()[alive].astype(np.float64)
    group = np.repeat(np.arange(groups), places)[alive]
    one = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(groups, len(group)))
    room = np.array(part.room, np.float64)
    # One unit of every row alike, so that tolerances mean the same to all.
    unit = np.maximum(usage.max(axis=1), 1.0)
    dearest = float(np.where(part.alive, part.cost, 0).max(axis=1).sum()) + 1.0
    answer = linprog(
        cost / dearest,
        A_ub=usage / unit[:, None],
        b_ub=room / unit,
        A_eq=one,
        b_eq=np.ones(groups),
        method="highs-ds",
    )
    if answer.status == 0:
        whole = np.maximum.reduceat(answer.x, np.searchsorted(group, np.arange(groups)))
        return Best(np.maximum(-answer.ineqlin.marginals, 0.0) * dearest / unit, whole < 1 - _CLOSE**0.5)
    # Nothing keeps the capacities: by how much they are missed at least is what the prices then show.
    slack = np.concatenate([usage / unit[:, None], -np.ones((len(room), 1))], axis=1)
    answer = linprog(
        np.append(np.zeros(len(cost)), 1.0),
        A_ub=slack,
        b_ub=room / unit,
        A_eq=sparse.hstack([one, sparse.csr_array((groups, 1))]),
        b_eq=np.ones(groups),
        method="highs-ds",
    )
    if answer.status != 0 or answer.fun <= 0:
        return Best(np.zeros(len(room)), np.zeros(groups, np.bool_))
    missed = np.maximum(-answer.ineqlin.marginals, 0.0) / unit
    return Best(missed * (2.0 * dearest / float(answer.fun)), np.zeros(groups, np.bool_))


class _Search:
    """Line intersection in one price after another."""

    def __init__(self, part: Part) -> None:
        self.cost = np.where(part.alive, part.cost.astype(np.float64), np.inf)
        self.usage = part.usage.astype(np.float64)
        self.room = np.array(part.room, dtype=np.float64)
        self.line = np.arange(len(part.cost))
        dearest = np.where(part.alive, self.cost, 0.0).max(axis=1).sum()
        # Above this no choice can lie: a function that reaches it proves that there is none.
        self.ceiling = 2.0 * float(dearest) + 1.0
        self.scale = 1e-3 * (float(dearest) + 1.0) / (np.abs(self.room) + self.usage.max(axis=2).sum(axis=1) + 1.0)

    def highest(self, priced: Floats, free: tuple[int, ...], prices: Floats) -> _Top:
        """Bring the prices of the free rows to the top, all others as they are in the priced costs."""
        if not free:
            choice = priced.argmin(axis=1)
            return _Top(float(priced[self.line, choice].sum() - prices @ self.room), prices, [(1.0, choice)])
        *inner, row = free

        def look(price: float) -> _Seen:
            at = prices.copy()
            at[row] = price
            found = self.highest(priced + price * self.usage[row] if price else priced, tuple(inner), at)
            used = sum(share * self.usage[row][self.line, choice].sum() for share, choice in found.mixture)
            return found, float(used - self.room[row])

        low, over = look(0.0)
        if over <= 0:
            return low
        price = float(self.scale[row])
        while True:
            high, under = look(price)
            if under <= 0 or high.value > self.ceiling:
                break
            low, over = high, under
            price *= 8.0
        if under > 0:
            return high
        return self._meet(look, row, (low, over), (high, under))

    def _meet(
        self, look: Callable[[float], tuple[_Top, float]], row: int, low: tuple[_Top, float], high: tuple[_Top, float]
    ) -> _Top:
        """Close in on the top between a price at which too much is used and one at which it is not."""
        for _ in range(_STEPS):
            (left, over), (right, under) = low, high
            if under == 0:
                return right
            a, b = float(left.prices[row]), float(right.prices[row])
            price = ((right.value - under * b) - (left.value - over * a)) / (over - under)
            roof = left.value + over * (price - a)
            if not a < price < b:
                break
            middle, excess = look(price)
            if middle.value > self.ceiling:
                return middle
            if excess > 0:
                low = middle, excess
            else:
                high = middle, excess
            if roof - middle.value <= _CLOSE * abs(roof):
                break
        (left, over), (right, under) = low, high
        share = over / (over - under)
        best = left if left.value > right.value else right
        mixture = [(share * part, choice) for part, choice in right.mixture]
        mixture += [((1.0 - share) * part, choice) for part, choice in left.mixture]
        return _Top(best.value, best.prices, mixture)
