"""Prices by columns: the oracle answers, the mixture of its answers sets the next prices."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.dual.columns import Columns, Mixture, Prices
from solvers.dual.master import by_intersection
from solvers.dual.program import by_simplex
from solvers.dual.whole import proves_conflict

__all__ = ["Ascent", "between", "climb", "mix"]

Floats = npt.NDArray[np.float64]

_STEADY = 0.5
"""How far prices stay at the best so far: mixtures of few columns swing widely (P. Wentges, 1997)."""
_CLOSE = 1e-6
_MANY = 300
_MOST_ROUNDS = 400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ascent:
    """How far prices came.

    Attributes:
        prices: The best prices; None where time ran out before there were any.
        value: What they prove, in floats, without the objective's constant.
        mixture: The last mixture of columns; None without prices.
        conflict: Whether it is proven that nothing keeps all capacities.
    """

    prices: Prices | None
    value: float
    mixture: Mixture | None
    conflict: bool = False


def climb(columns: Columns, deadline: float, fixed: Floats | None = None) -> Ascent:
    """Find the prices of the best Lagrangian bound, nearly.

    Args:
        columns: The columns so far; those found on the way are added.
        deadline: When to stop, by ``time.perf_counter``.
        fixed: Prices of the rows, ``(rows,)``, where they are given and only the weights of steps are sought.
    """
    return _Climb(columns, fixed).run(deadline)


class _Climb:
    def __init__(self, columns: Columns, fixed: Floats | None) -> None:
        self.columns, self.oracle, self.fixed = columns, columns.oracle, fixed
        self.simple = fixed is None and _simple(columns)
        self.value = -np.inf
        self.best: Prices | None = None
        self.seen: set[bytes] = set()
        self.known = False

    def run(self, deadline: float) -> Ascent:
        """Ask for columns until no price promises more."""
        if not len(self.columns):
            self._begin()
        mixture = None
        for _ in range(_MOST_ROUNDS):
            mixture = by_intersection(self.columns) if self.simple else by_simplex(self.columns, self.fixed)
            if mixture is None:
                break
            prices = mixture.prices
            if not prices.objective:
                # The columns break the capacities in every mixture: others may not, or it is a proof.
                if mixture.value <= 0 or self._ask(prices) > 0 or self.known:
                    conflict = proves_conflict(self.oracle, prices)
                    return Ascent(prices=self.best, value=self.value, mixture=None, conflict=conflict)
                continue
            if mixture.value - self.value <= _CLOSE * abs(mixture.value) or time.perf_counter() > deadline:
                break
            at = prices if self.best is None or self.simple else between(self.best, prices, _STEADY)
            pure = at is prices
            if self._ask(at) < self.value and not pure:
                # What lies between is no better than the best: from there the mixture's own prices may be.
                self._ask(prices)
                pure = True
            if pure and self.known:
                # Nothing new comes from these prices, and they would be set again: pairs are loosened, mostly.
                break
        return Ascent(prices=self.best, value=self.value, mixture=mixture)

    def _begin(self) -> None:
        """Take what is cheapest, and what keeps the rows of blocks and each coupling row best."""
        problem, blocks = self.oracle.problem, self.oracle.blocks
        nothing = np.zeros(len(problem.rows))
        step = np.zeros(self.oracle.steps.count)
        self._ask(Prices(objective=1.0, row=nothing if self.fixed is None else self.fixed, step=step))
        if self.fixed is not None:
            return
        local: Floats = np.where(blocks.block_of_row >= 0, 1.0 / np.maximum(self.columns.room.row, 1.0), 0.0)
        parts = [local]
        for row in blocks.coupling:
            alone = nothing.copy()
            alone[row] = 1.0
            parts.append(alone)
        for part in parts:
            if bool(part.any()):
                self._ask(Prices(objective=0.0, row=part, step=step))

    def _ask(self, prices: Prices) -> float:
        """Add what is least at these prices to the columns, and return what they prove."""
        room = self.columns.room
        answer = self.oracle.least(self.oracle.costs(room.weights(prices), prices.step))
        digest = hashlib.blake2b(answer.chosen.tobytes()).digest()
        self.known = digest in self.seen
        if not self.known:
            self.seen.add(digest)
            self.columns.add(answer.chosen)
        found = float(answer.value.sum()) - room.paid(prices)
        if prices.objective and found > self.value:
            self.value, self.best = found, prices
        return found


def _simple(columns: Columns) -> bool:
    """Say whether each block has at most one row of its own, and one couples them, without peaks that weigh much.

    Of many blocks' memories the one arena that they share is a small part, for which no linear program is worth it.
    """
    oracle, room = columns.oracle, columns.room
    local, coupling = oracle.blocks.block_of_row, list(oracle.blocks.coupling)
    counts = np.bincount(local[local >= 0], minlength=1)
    if len(coupling) > 1 or int(counts.max()) > 1:
        return False
    if not oracle.steps.count:
        return True
    elsewhere = np.delete(room.contains, coupling, axis=0)
    return oracle.blocks.count > _MANY and not bool(elsewhere.any())


def between(best: Prices, new: Prices, steady: float) -> Prices:
    """Return prices between the best so far and new ones."""
    return Prices(
        objective=1.0,
        row=steady * best.row + (1 - steady) * new.row,
        step=steady * best.step + (1 - steady) * new.step,
    )


def mix(columns: Columns, only: npt.NDArray[np.bool_]) -> Mixture | None:
    """Mix only some columns, ``(columns, blocks)``, whose own rows are kept anyway.

    Args:
        columns: The columns.
        only: Which of them to mix.

    Returns:
        The mixture; None where a block has no column left.
    """
    if not bool(only.any(axis=0).all()):
        return None
    return by_intersection(columns, only) if _simple(columns) else by_simplex(columns, only=only)
