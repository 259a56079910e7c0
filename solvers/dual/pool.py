"""Good choices of every block, and the best way to combine them: one for each block, within the coupling row.

The combination is a problem of the same kind, whose groups are the blocks, whose options are their choices, and whose
only row is the coupling one: the master problem of G. B. Dantzig and P. Wolfe, Decomposition principle for linear
programs, Operations Research 8(1), 1960, in whole numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.core import Blocks, search
from solvers.dual.intersect import Places, meet, picked
from solvers.dual.layout import Layout

__all__ = ["Pool"]

_BITS = 57


class Pool:
    """Choices of all blocks."""

    def __init__(self, laid: Layout) -> None:
        self._laid = laid
        self._places: list[Places] = []
        self._costs: Integers = np.zeros((0, laid.blocks), np.int64)
        self._uses: Integers = np.zeros((0, laid.blocks), np.int64)

    def add(self, choices: Places) -> None:
        """Add choices of every block, each within its local row, ``(choices, groups)``."""
        flat = choices.astype(np.int64) * choices.shape[1] + np.arange(choices.shape[1])
        starts = self._laid.first[:-1]
        costs, uses = (
            np.add.reduceat(of.ravel().take(flat), starts, axis=1)
            for of in (self._laid.costs, self._laid.bands[1].costs)
        )
        # A search repeats its last choice where it finds fewer than it was asked for.
        new = np.ones(len(choices), np.bool_)
        new[1:] = (np.diff(costs, axis=0) != 0).any(axis=1) | (np.diff(uses, axis=0) != 0).any(axis=1)
        self._places.extend(choices[new])
        self._costs = np.concatenate([self._costs, costs[new]])
        self._uses = np.concatenate([self._uses, uses[new]])

    def cheapest(self, price: float) -> Places:
        """Return the choice of each block that is cheapest at a price of the coupling row, ``(groups,)``."""
        return self._combined((self._costs + price * self._uses).argmin(axis=0))

    def combine(self, width: int) -> tuple[Places, float] | None:
        """Combine choices so that the coupling row is kept.

        Args:
            width: How many labels the search may have.

        Returns:
            The combination, ``(groups,)``, and the price of the row at which the choices balance; None where no
            combination keeps the row.
        """
        which = self._undominated()
        costs, uses = (np.take_along_axis(of, which, 0) for of in (self._costs, self._uses))
        room = self._laid.bands[1].capacities
        if int(uses.min(axis=0).sum()) > int(room[0]):
            return None
        first = np.array([0, costs.shape[1]])
        sides = meet(costs.astype(np.float64), uses.astype(np.float64), room.astype(np.float64), first)
        price = float(sides.prices[0])
        most = float(costs.max(axis=0).sum()) + price * float(max(uses.max(axis=0).sum(), room[0]))
        shift = min(_BITS - int(np.frexp(most)[1]), 60)
        if shift < 0 or price >= 2.0 ** (_BITS - shift):
            return self._combined(picked(which, sides.kept)), price
        blocks = Blocks(
            costs=costs << shift,
            times=uses,
            room=room,
            first=first,
            prices=np.array([int(np.ldexp(price, shift))]),
        )
        return self._combined(picked(which, search(blocks, sides.kept, width=width).places)), price

    def _undominated(self) -> Integers:
        """Return, for each block, its choices of which no other costs no more and takes no more, the rest repeated.

        Returns:
            Indices of choices, by what they take, ``(most such choices of a block, blocks)``.
        """
        order = np.lexsort((self._costs, self._uses), axis=0)
        costs = np.take_along_axis(self._costs, order, 0)
        good = np.ones(costs.shape, np.bool_)
        good[1:] = costs[1:] < np.minimum.accumulate(costs, axis=0)[:-1]
        place = good.cumsum(axis=0) - 1
        which = np.repeat(order[:1], int(place[-1].max()) + 1, axis=0)
        _, block = np.nonzero(good)
        which[place[good], block] = order[good]
        return which

    def _combined(self, which: npt.NDArray[np.integer]) -> Places:
        """Put together the chosen choice of each block, ``which[block]``."""
        of_group = which[self._laid.block]
        found = self._places[0].copy()
        for index in np.unique(which).tolist():
            np.copyto(found, self._places[index], where=of_group == index)
        return found
