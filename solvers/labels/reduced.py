"""What an option costs beyond the cheapest of its group once capacities have a price: exactly, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.labels.part import Part

__all__ = ["Reduced", "reduced"]

_ROOM = 58
"""Sums stay below two to this power, so that 64 bits hold those of two of them."""
_USAGE = 36
"""Capacities are counted in units of which two to this power are more than all options can take."""
DEAD = 2**61
"""The reduced cost of an option that may not be taken; above any sum that is compared with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """The Lagrangian function at whole-numbered prices, in units of two to the power of minus ``shift``.

    For every choice that keeps the capacities, what it costs is at least ``value`` plus the sum of its reduced costs,
    in these units: all figures were rounded to the safe side before they were multiplied, and nothing after.

    Attributes:
        shift: How finely costs are counted; negative where they are too large to be counted in ones.
        value: What the cheapest choice at these prices comes to, without what is decided.
        costs: What each option costs beyond the cheapest of its group, ``(groups, places)``.
        cheapest: The place of the cheapest option of each group, ``(groups,)``.
    """

    shift: int
    value: int
    costs: Integers
    cheapest: Integers

    def bound(self, spent: int) -> int:
        """Return what no choice can undercut, in the objective's own units."""
        if self.shift >= 0:
            return spent + -(-self.value >> self.shift)
        return spent + (self.value << -self.shift)

    def allowance(self, limit: int, spent: int) -> int:
        """Return what the reduced costs of a choice that costs at most the limit can sum up to; negative: none."""
        room = limit - spent
        # More than all of them together come to needs no more than 64 bits to be told.
        return min((room << self.shift if self.shift >= 0 else room >> -self.shift) - self.value, DEAD >> 1)


def reduced(part: Part, prices: npt.NDArray[np.float64]) -> Reduced:
    """Evaluate the Lagrangian function of a part exactly.

    Args:
        part: The groups and capacities; at least one group.
        prices: What a unit of each capacity costs, ``(rows,)``; what is not above 0 counts as 0.

    Returns:
        Its value and every option's reduced cost.
    """
    dearest = int(part.cost.max(axis=1).sum())
    usage, room, price = [], [], []
    for row, left in enumerate(part.room):
        figures, one = part.usage[row], float(prices[row])
        if not 0.0 < one < float("inf"):
            continue
        drop = max(0, int(figures.max(axis=1).sum()).bit_length() - _USAGE)
        # Less is used and no more is left than in truth: who keeps the capacity keeps this one.
        usage.append(figures >> drop)
        room.append(left >> drop)
        price.append(one * 2.0**drop)
    largest = float(dearest)
    for one, figures, left in zip(price, usage, room, strict=True):
        largest += one * max(int(figures.max(axis=1).sum()), abs(left), 1)
    shift = _ROOM - 1 - max(0, int(np.ceil(np.log2(max(largest, 1.0)))))
    shift = min(shift, _ROOM - 1 - dearest.bit_length())
    total = part.cost << shift if shift >= 0 else part.cost >> -shift
    value = 0
    for one, figures, left in zip(price, usage, room, strict=True):
        whole = int(one * 2.0**shift)
        total = total + whole * figures
        value -= whole * left
    total = np.where(part.alive, total, DEAD)
    cheapest = total.argmin(axis=1)
    least = total[np.arange(len(total)), cheapest]
    costs = np.where(part.alive, total - least[:, None], DEAD)
    return Reduced(shift, value + int(least.sum()), costs, cheapest)
