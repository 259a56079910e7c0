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
    """Choices of all blocks.

    Attributes:
        least: Whether those that take least of the coupling row are among them.
    """

    def __init__(self, laid: Layout) -> None:
        self.least = False
        self._laid = laid
        self._places: list[Places] = []
        self._costs: list[Integers] = []
        self._uses: list[Integers] = []

    def add(self, places: Places) -> None:
        """Add one choice for each block, ``(groups,)``, each within its local row."""
        starts = self._laid.first[:-1]
        costs = np.add.reduceat(picked(self._laid.costs, places), starts)
        uses = np.add.reduceat(picked(self._laid.bands[1].costs, places), starts)
        for before, used in zip(self._costs, self._uses, strict=True):
            if np.array_equal(before, costs) and np.array_equal(used, uses):
                return
        self._places.append(places)
        self._costs.append(costs)
        self._uses.append(uses)

    def cheapest(self, price: float) -> Places:
        """Return the choice of each block that is cheapest at a price of the coupling row, ``(groups,)``."""
        uses = np.array(self._uses) * price
        return self._combined((uses + np.array(self._costs)).argmin(axis=0))

    def combine(self, width: int) -> tuple[Places, float] | None:
        """Combine choices so that the coupling row is kept.

        Args:
            width: How many labels the search may have.

        Returns:
            The combination, ``(groups,)``, and the price of the row at which the choices balance; None where no
            combination keeps the row.
        """
        costs, uses = np.array(self._costs), np.array(self._uses)
        room = self._laid.bands[1].capacities
        if int(uses.min(axis=0).sum()) > int(room[0]):
            return None
        first = np.array([0, costs.shape[1]])
        sides = meet(costs.astype(np.float64), uses.astype(np.float64), room.astype(np.float64), first)
        price = float(sides.prices[0])
        most = float(costs.max(axis=0).sum()) + price * float(max(uses.max(axis=0).sum(), room[0]))
        shift = min(_BITS - int(np.frexp(most)[1]), 60)
        if shift < 0:
            return self._combined(sides.kept), price
        blocks = Blocks(
            costs=costs << shift,
            times=uses,
            room=room,
            first=first,
            prices=np.array([int(np.ldexp(price, shift))]),
        )
        return self._combined(search(blocks, sides.kept, width=width).places), price

    def _combined(self, which: npt.NDArray[np.integer]) -> Places:
        """Put together the chosen choice of each block, ``which[block]``."""
        of_group = which[self._laid.block]
        found = self._places[0].copy()
        for index, places in enumerate(self._places):
            np.copyto(found, places, where=of_group == index)
        return found
