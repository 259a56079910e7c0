"""Moves of single groups and of two at a time: towards the capacities where a choice breaks them, then downhill.

Y. Toyoda, A simplified algorithm for obtaining approximate solutions to zero-one programming problems, Management
Science 21(12), 1975: among moves that bring broken rows nearer to their capacities, the one that costs least for what
it brings. In large problems many moves are made before they are ranked anew, each checked against the rows as they are.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.intersect import Floats, Places, picked
from solvers.dual.layout import Layout
from solvers.dual.progress import use

__all__ = ["descend", "exchange", "repair"]

_ROUNDS = 400
_HEAVIER = 2.0
_PATIENCE = 40
"""How often the weights of broken rows are raised before a repair is given up."""
_LITTLE = 1e-7
"""What a round of many moves has to bring, as a share of the objective, for another one to be made."""
_MOST_PAIRS = 1500
"""So many moves are tried in pairs at most."""


class _Standing:
    """A choice, and what is left of every row."""

    def __init__(self, laid: Layout, places: Places) -> None:
        self.laid = laid
        self.places = places.copy()
        self.left = [band.capacities - use(band, places) for band in laid.bands]

    def changes(self) -> tuple[Integers, list[Integers]]:
        """Return what each move would add to the objective and in each band, ``(options, groups)``."""
        laid = self.laid
        return (
            laid.costs - picked(laid.costs, self.places),
            [band.costs - picked(band.costs, self.places) for band in laid.bands],
        )

    def lefts(self) -> list[Integers]:
        """Return what is left in the row of each group, for each band, ``(groups,)``; much where it has none."""
        return [
            np.where(band.owner >= 0, left[band.owner], np.int64(2**62))
            for band, left in zip(self.laid.bands, self.left, strict=True)
        ]

    def broken(self) -> bool:
        """Tell whether any row is above its capacity."""
        return any(bool((left < 0).any()) for left in self.left)

    def adds(self, place: int, group: int) -> list[tuple[int, int, int]]:
        """Return what a move adds to each row that it concerns: band, row and amount."""
        now = int(self.places[group])
        return [
            (index, int(band.owner[group]), int(band.costs[place, group] - band.costs[now, group]))
            for index, band in enumerate(self.laid.bands)
            if band.owner[group] >= 0
        ]

    def move(self, place: int, group: int) -> None:
        """Make a move."""
        for band, row, amount in self.adds(place, group):
            self.left[band][row] -= amount
        self.places[group] = place


def repair(laid: Layout, places: Places, prices: list[Floats], deadline: float) -> Places | None:
    """Move until every row is kept.

    Args:
        laid: The problem.
        places: A choice, ``(groups,)``.
        prices: Prices of the rows, one array a band: what a move costs counts what it takes of other rows.
        deadline: When to stop, by ``time.perf_counter``.

    Returns:
        A choice that keeps every row; None where no such was found.
    """
    standing = _Standing(laid, places)
    average = max(float(laid.costs.max(axis=0).sum()), 1.0)
    weights = [
        np.maximum(price, 1e-3 * average / np.maximum(band.capacities, 1))
        for band, price in zip(laid.bands, prices, strict=True)
    ]
    batch = max(1, laid.costs.shape[1] // 200)
    stuck = 0
    for _ in range(_ROUNDS):
        if not standing.broken():
            return standing.places
        if time.perf_counter() > deadline:
            break
        dearer, changes = standing.changes()
        cost, nearer = dearer.astype(np.float64), np.zeros(dearer.shape)
        for band, change, left, price, weight in zip(
            laid.bands, changes, standing.lefts(), prices, weights, strict=True
        ):
            there = band.owner >= 0
            cost += change * np.where(there, price[band.owner], 0.0)
            beyond = np.maximum(-left, 0) - np.maximum(change - left, 0)
            nearer += beyond * np.where(there, weight[band.owner], 0.0)
        least = 1e-9 * average / len(places)
        score = np.where(nearer > 0, np.maximum(cost, least) / np.maximum(nearer, least), np.inf)
        if not _apply(standing, score, batch, down=False):
            # Nothing brings all broken rows nearer in sum: those that stay broken count for more from here on.
            stuck += 1
            if stuck > _PATIENCE:
                break
            for weight, left in zip(weights, standing.left, strict=True):
                weight[left < 0] *= _HEAVIER
    return None


def descend(laid: Layout, places: Places, prices: list[Floats], deadline: float) -> Places:
    """Make single moves that lower the objective and keep every row, until there is none.

    Args:
        laid: The problem.
        places: A choice that keeps every row.
        prices: Prices of the rows, one array a band: of two moves the one that takes less of dear rows goes first.
        deadline: When to stop, by ``time.perf_counter``.

    Returns:
        A choice that is no worse.
    """
    standing = _Standing(laid, places)
    batch = max(1, laid.costs.shape[1] // 20)
    objective = int(picked(laid.costs, places).sum())
    for _ in range(_ROUNDS):
        if time.perf_counter() > deadline:
            break
        dearer, changes = standing.changes()
        good = dearer < 0
        score = dearer.astype(np.float64)
        for band, change, left, price in zip(laid.bands, changes, standing.lefts(), prices, strict=True):
            good &= change <= left
            score += change * np.where(band.owner >= 0, price[band.owner], 0.0)
        if not _apply(standing, np.where(good, score, np.inf), batch, down=True):
            break
        before, objective = objective, int(picked(laid.costs, standing.places).sum())
        if before - objective <= _LITTLE * before:
            break
    return standing.places


def _apply(standing: _Standing, score: Floats, batch: int, *, down: bool) -> bool:
    """Make the best move of each group, best first, as long as they still fit; tell whether any was made."""
    place = score.argmin(axis=0)
    best = score[place, np.arange(score.shape[1])]
    order = np.argsort(best, kind="stable")[:batch]
    made = False
    for group in order[np.isfinite(best[order])].tolist():
        adds = standing.adds(int(place[group]), group)
        if down:
            fits = all(amount <= standing.left[band][row] for band, row, amount in adds)
        else:
            lefts = [(int(standing.left[band][row]), amount) for band, row, amount in adds]
            # A row that is kept stays so; of the broken ones at least one comes nearer.
            fits = all(amount <= max(left, 0) for left, amount in lefts) and any(
                left < 0 and amount < 0 for left, amount in lefts
            )
            # Where no move spares the others, the first one goes all the same: it comes nearer in sum.
            fits = fits or not made
        if fits:
            standing.move(int(place[group]), group)
            made = True
            if not down and not standing.broken():
                break
    return made


def exchange(laid: Layout, places: Places, reduced: Floats, deadline: float) -> Places:
    """Make two moves at a time that together lower the objective and keep every row, until there are none.

    Args:
        laid: The problem.
        places: A choice that keeps every row.
        reduced: What each option costs with the prices of all rows, ``(options, groups)``: the moves tried are those
            that cost least by these.
        deadline: When to stop, by ``time.perf_counter``.

    Returns:
        A choice that is no worse.
    """
    standing = _Standing(laid, places)
    while time.perf_counter() < deadline:
        dearer, changes = standing.changes()
        beyond = reduced - picked(reduced, standing.places)
        beyond[standing.places, np.arange(beyond.shape[1])] = np.inf
        moves = np.argsort(beyond, axis=None)[:_MOST_PAIRS]
        moves = moves[np.isfinite(beyond.ravel()[moves])]
        place, group = np.unravel_index(moves, beyond.shape)
        cost = dearer[place, group]
        sums = cost[:, None] + cost
        fits: npt.NDArray[np.bool_] = (sums < 0) & (group[:, None] != group)
        for band, change, left in zip(laid.bands, changes, standing.lefts(), strict=True):
            adds, room, owner = change[place, group], left[group], band.owner[group]
            alone = adds <= room
            together = adds[:, None] + adds <= room
            fits &= np.where(owner[:, None] == owner, together, alone[:, None] & alone)
        if not fits.any():
            break
        one, two = np.unravel_index(int(np.where(fits, sums, 0).argmin()), sums.shape)
        for move in (one, two):
            standing.move(int(place[move]), int(group[move]))
    return standing.places
