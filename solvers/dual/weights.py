"""What options and meetings cost once every row has a weight: the linear part of a Lagrangian function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Problem

__all__ = ["Terms", "option_terms", "pair_terms"]

Numbers = npt.NDArray[Any]
"""Floats for speed, integers of 64 bits or of any size for proofs: whatever the weights are."""

_MOST_LAYERS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """The costs of many rows in few layers; rows that have no term in common share one.

    Attributes:
        size: The number of places (options or cells) that have costs.
        layers: Of each layer the row of each place and its cost there, ``(size,)`` both; one integer where all
            places belong to one row.
        rest: Place, row and cost of each term that is in no layer, sorted by place.
    """

    size: int
    layers: tuple[tuple[Integers | int, Integers], ...]
    rest: tuple[Integers, Integers, Integers]

    def weighted(self, weights: Numbers) -> Numbers:
        """Sum up each place's costs, each times the weight of its row.

        Args:
            weights: One for each row; floats, integers or Python's own.

        Returns:
            ``(size,)``, of the weights' type.
        """
        total = np.zeros(self.size, weights.dtype)
        for row, costs in self.layers:
            weight = weights[row]
            if isinstance(row, int) and not weight:
                continue
            total += weight * _like(costs, weights)
        place, row, cost = self.rest
        np.add.at(total, place, weights[row] * _like(cost, weights))
        return total

    def sums(self, chosen: Integers, rows: int) -> Integers:
        """Sum up what the chosen places cost in each row, exactly, ``(rows,)``."""
        found = np.zeros(rows, np.int64)
        for row, costs in self.layers:
            if isinstance(row, int):
                found[row] += costs[chosen].sum()
            else:
                np.add.at(found, row[chosen], costs[chosen])
        taken = np.zeros(self.size, np.int64)
        np.add.at(taken, chosen, 1)
        place, of_row, cost = self.rest
        np.add.at(found, of_row, cost * taken[place])
        return found


def option_terms(problem: Problem) -> Terms:
    """Lay out what options cost in the rows, without peaks."""
    return _layered(problem.options, [(index, row.options, row.costs) for index, row in enumerate(problem.rows)])


def pair_terms(problem: Problem) -> Terms:
    """Lay out what cells of pairs cost in the rows; one cell more than there are stands for no meeting."""
    pairs = problem.pairs
    bounds = np.searchsorted(pairs.row, np.arange(len(problem.rows) + 1))
    parts = [
        (row, pairs.cell[bounds[row] : bounds[row + 1]], pairs.cost[bounds[row] : bounds[row + 1]])
        for row in range(len(problem.rows))
        if bounds[row] < bounds[row + 1]
    ]
    return _layered(len(pairs.allowed) + 1, parts)


def _layered(size: int, parts: list[tuple[int, Integers, Integers]]) -> Terms:
    """Put rows into layers, each behind the last place of the layer that it joins."""
    members: list[list[int]] = []
    beyond: list[int] = []
    left = []
    for part, (_, places, _) in enumerate(parts):
        if not len(places):
            continue
        fits = [layer for layer, end in enumerate(beyond) if end <= int(places[0])]
        if fits:
            members[fits[0]].append(part)
            beyond[fits[0]] = int(places[-1]) + 1
        elif len(members) < _MOST_LAYERS:
            members.append([part])
            beyond.append(int(places[-1]) + 1)
        else:
            left.append(part)
    layers: list[tuple[Integers | int, Integers]] = []
    for member in members:
        costs = np.zeros(size, np.int64)
        row = np.zeros(size, np.int64)
        for part in member:
            costs[parts[part][1]] = parts[part][2]
            row[parts[part][1]] = parts[part][0]
        layers.append((parts[member[0]][0] if len(member) == 1 else row, costs))
    place = np.concatenate([np.zeros(0, np.int64), *(parts[part][1] for part in left)])
    of_row = np.concatenate([np.zeros(0, np.int64), *(np.full(len(parts[p][1]), parts[p][0]) for p in left)])
    cost = np.concatenate([np.zeros(0, np.int64), *(parts[part][2] for part in left)])
    order = np.argsort(place, kind="stable")
    return Terms(size=size, layers=tuple(layers), rest=(place[order], of_row[order], cost[order]))


def _like(costs: Integers, weights: Numbers) -> Numbers:
    """Return costs as Python's own integers where the weights are, so that products never overflow."""
    return costs.astype(object) if weights.dtype == object else costs
