"""Prices as whole numbers, so that what they prove is proven without rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.dual import sweep
from solvers.dual.columns import Prices, Room
from solvers.dual.oracle import Oracle

__all__ = ["Whole", "bound", "proves_conflict", "value", "whole"]

_BITS = 60
"""What a block costs stays below two to this power; what cannot be taken costs more than that."""
_FINE = 2**10
"""A price that is a smaller multiple than this is so coarse that slower integers are worth it."""
_FEW = 30_000
_DUST = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """Prices times two to the power of ``shift``.

    Attributes:
        shift: By what the prices are multiplied, as a power of two.
        objective: The multiplied weight of the objective.
        row: The multiplied price of each row, ``(rows,)``, rounded down; Python's own integers where 64 bits do not
            suffice.
        step: The multiplied weight of each step, ``(steps,)``; of one peak together no more than what the rows that
            contain it weigh.
    """

    shift: int
    objective: int
    row: npt.NDArray[Any]
    step: npt.NDArray[Any]

    @property
    def fits(self) -> bool:
        """Whether 64 bits hold everything."""
        return self.row.dtype == np.int64

    def weights(self, objective: int) -> npt.NDArray[Any]:
        """Return the weight of each row, that of the objective row included."""
        weight = self.row.copy()
        weight[objective] += self.objective
        return weight


def whole(oracle: Oracle, prices: Prices) -> Whole:
    """Multiply prices by a power of two and round them down.

    Args:
        oracle: The oracle of the problem.
        prices: The prices.
    """
    room = Room.of(oracle)
    prices = replace(prices, row=_without_dust(prices.row, room.row))
    # A price may weigh on nothing that costs: it has to fit all the same.
    largest = max(prices.objective, float(prices.row.max(initial=0.0)), float(prices.step.max(initial=0.0)))
    most = max(_most(oracle, room.weights(prices), prices.step), largest)
    shift = min(_BITS - 2 - int(np.ceil(np.log2(max(most, 1.0)))), 200)
    paid = prices.row[prices.row > 0]
    smallest = float(paid.min()) if len(paid) else 1.0
    kind: type = np.int64
    coarse = smallest * 2.0**shift < _FINE and oracle.problem.options <= _FEW
    if shift < 0 or coarse:
        kind = object
        shift = max(0, 40 - int(np.floor(np.log2(smallest))))
    row = _multiples(prices.row, shift, kind)
    step = _multiples(prices.step, shift, kind)
    objective = int(prices.objective * 2**shift)
    found = Whole(shift=shift, objective=objective, row=row, step=step)
    return Whole(shift=shift, objective=objective, row=row, step=_within(oracle, room, found))


def _without_dust(price: npt.NDArray[np.float64], room: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Leave out prices that only rounding left behind, for which numbers would have to be very fine."""
    worth = price * np.abs(np.where(np.isfinite(room), room, 0.0))
    return np.where((worth > _DUST * float(worth.max(initial=0.0))) | (room == 0), price, 0.0)


def _multiples(values: npt.NDArray[np.float64], shift: int, kind: type) -> npt.NDArray[Any]:
    return np.array([int(Fraction(value) * 2**shift) if value else 0 for value in values.tolist()], kind)


def _within(oracle: Oracle, room: Room, found: Whole) -> npt.NDArray[Any]:
    """Lower the steps' weights where a peak's come to more than the rows that contain it."""
    step = found.step.copy()
    weight = found.weights(room.objective).tolist()
    for peak in range(len(oracle.problem.peaks)):
        mine = np.flatnonzero(oracle.steps.peak == peak)
        may = sum(weight[row] for row in np.flatnonzero(room.contains[:, peak]).tolist())
        given = [int(entry) for entry in step[mine]]
        total = sum(given)
        if total > may:
            step[mine] = np.array([entry * may // total for entry in given], step.dtype)
    return step


def _most(oracle: Oracle, row: npt.NDArray[np.float64], step: npt.NDArray[np.float64]) -> float:
    """Return what no block can cost more than."""
    problem, blocks = oracle.problem, oracle.blocks
    option = oracle.options.weighted(row)
    np.add.at(option, oracle.steps.option, step[oracle.steps.step] * oracle.steps.cost)
    total = np.bincount(blocks.of_group, np.maximum.reduceat(option, problem.start[:-1]), blocks.count)
    if len(problem.pairs):
        cells = oracle.cells.weighted(row)[:-1]
        dearest = np.maximum.reduceat(cells, problem.pairs.cell_start[:-1])
        total += np.bincount(blocks.of_group[problem.pairs.source], dearest, blocks.count)
    return float(total.max())


def paid(oracle: Oracle, prices: Whole) -> int:
    """Return what capacities are worth less what constants cost, multiplied."""
    total = 0
    for price, row in zip(prices.row.tolist(), oracle.problem.rows, strict=True):
        if price and row.capacity is not None:
            total += price * (row.capacity - row.constant)
    return int(total - prices.objective * oracle.problem.rows[oracle.problem.objective].constant)


def value(oracle: Oracle, prices: Whole) -> int | None:
    """Return the Lagrangian function at these prices, multiplied; None where formats leave no choice at all."""
    weights = prices.weights(oracle.problem.objective)
    least = oracle.value(oracle.costs(weights, prices.step))
    if bool((least >= sweep.never(least.dtype)).any()):
        return None
    return int(sum(least.tolist())) - paid(oracle, prices)


def bound(prices: Whole, multiplied: int) -> int:
    """Return what no choice can undercut, given a lower bound that is multiplied as prices are."""
    return -(-multiplied // prices.objective)


def proves_conflict(oracle: Oracle, prices: Prices) -> bool:
    """Say whether prices of the capacities alone prove that nothing keeps them all.

    Args:
        oracle: The oracle of the problem.
        prices: Prices without weight on the objective.
    """
    exact = whole(oracle, prices)
    found = value(oracle, exact)
    return found is None or found > 0
