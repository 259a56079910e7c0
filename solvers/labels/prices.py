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

__all__ = ["Top", "top"]

Floats = npt.NDArray[np.float64]

_NESTED = 3
"""Up to so many capacities the search is nested and exact; with more, it goes through pairs of them in turn."""
_STEPS = 60
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """Where the Lagrangian function is greatest.

    Attributes:
        value: Its value there.
        prices: What a unit of each capacity costs, ``(rows,)``.
        mixture: Choices that are cheapest at these prices, each with its share; together they meet the capacities
            that have a price, so that groups in which they differ are those the relaxation splits.
    """

    value: float
    prices: Floats
    mixture: list[tuple[float, Integers]]


_Seen = tuple[Top, float]
"""A top in the inner prices, with how much more than its capacity the outer row uses there."""


def top(part: Part) -> Top:
    """Find the prices of a part's capacities at which its Lagrangian function is greatest.

    Where the capacities cannot be kept the function has no top; prices are then returned at which it is far above
    anything that a choice could cost.

    Args:
        part: The groups and capacities; at least one group.

    Returns:
        The prices, with the choices that are cheapest there.
    """
    search = _Search(part)
    rows = len(part.room)
    if rows <= _NESTED:
        return search.highest(search.cost, tuple(range(rows)), np.zeros(rows))
    best = search.highest(search.cost, (), np.zeros(rows))
    for _ in range(2):
        before = best.value
        for first in range(rows):
            for second in range(first):
                prices = best.prices.copy()
                prices[[first, second]] = 0.0
                priced = search.cost + np.tensordot(prices, search.usage, axes=1)
                here = search.highest(priced, (first, second), prices)
                if here.value > best.value:
                    best = here
        if best.value - before <= 1e-6 * abs(before):
            break
    return best


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

    def highest(self, priced: Floats, free: tuple[int, ...], prices: Floats) -> Top:
        """Bring the prices of the free rows to the top, all others as they are in the priced costs."""
        if not free:
            choice = priced.argmin(axis=1)
            return Top(float(priced[self.line, choice].sum() - prices @ self.room), prices, [(1.0, choice)])
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
        self, look: Callable[[float], tuple[Top, float]], row: int, low: tuple[Top, float], high: tuple[Top, float]
    ) -> Top:
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
        return Top(best.value, best.prices, mixture)
