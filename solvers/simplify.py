"""What is seen of a problem without solving it: capacities that nothing can keep, and those that nothing can break."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from solvers.arrays import Integers
from solvers.problem import Peak, Problem, Row

__all__ = ["Plain", "Verdict", "cheapest", "plain"]


class Verdict(enum.Enum):
    """Say what a first look found."""

    IMPOSSIBLE = "impossible"
    """One capacity alone cannot be kept."""
    FREE = "free"
    """No capacity can be broken, and groups do not meet: the cheapest option of each is the best."""
    OPEN = "open"
    """It takes a solver."""


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A problem without the capacities that no choice can break.

    Attributes:
        verdict: What was seen.
        problem: The problem that is left; its choices are those of the first, and so are its values.
        row: The row that cannot be kept, where one cannot; otherwise -1.
    """

    verdict: Verdict
    problem: Problem
    row: int = -1


def plain(problem: Problem) -> Plain:
    """Look at each capacity alone.

    Args:
        problem: The problem, without ties and forbidden options.

    >>> rows = (Row(name="loss", options=[1], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=9))
    >>> plain(Problem(start=[0, 2], rows=rows)).verdict.value
    'free'
    """
    capacities: list[int | None] = []
    met = _met(problem)
    for index, row in enumerate(problem.rows):
        if row.capacity is None:
            capacities.append(None)
            continue
        least, most = _range(problem, row)
        if least > row.capacity:
            return Plain(Verdict.IMPOSSIBLE, problem, index)
        binds = most + met[index] > row.capacity
        capacities.append(row.capacity if binds else None)
    left = problem if capacities == [row.capacity for row in problem.rows] else problem.with_capacities(capacities)
    objective = problem.rows[problem.objective]
    free = not left.bound_rows and not problem.pairs and not objective.peaks and objective.spread is None
    return Plain(Verdict.FREE if free else Verdict.OPEN, left)


def cheapest(problem: Problem) -> tuple[int, ...]:
    """Return the option of each group that costs least in the objective, the first of equals."""
    objective = problem.rows[problem.objective]
    cost = problem.dense(objective.options, objective.costs)
    sizes = np.diff(problem.start)
    places = np.arange(problem.options) - np.repeat(problem.start[:-1], sizes)
    least = np.repeat(np.minimum.reduceat(cost, problem.start[:-1]), sizes)
    places[cost > least] = problem.options
    return tuple(np.minimum.reduceat(places, problem.start[:-1]).tolist())


def _range(problem: Problem, row: Row) -> tuple[int, int]:
    """Return the least and the most that a row can come to, as far as one sees without its pairs."""
    low, high = _ends(problem, row.options, row.costs)
    least, most = row.constant + sum(low.tolist()), row.constant + sum(high.tolist())
    for peak in (problem.peaks[index] for index in row.peaks):
        bottom, top = _peak(problem, peak)
        least += bottom
        most += top
    if row.spread is not None:
        _, variances = _ends(problem, row.spread.options, row.spread.variances)
        most += row.spread.value(sum(variances.tolist()))
    return least, most


def _peak(problem: Problem, peak: Peak) -> tuple[int, int]:
    """Return the least and the most that a peak can come to."""
    if not len(peak.options):
        return 0, 0
    steps = problem.steps_of(peak)
    bounds = np.flatnonzero(np.diff(steps, prepend=-1))
    least = most = 0
    for first, beyond in zip(bounds.tolist(), [*bounds[1:].tolist(), len(steps)], strict=True):
        low, high = _ends(problem, peak.options[first:beyond], peak.costs[first:beyond])
        least, most = max(least, sum(low.tolist())), max(most, sum(high.tolist()))
    return least, most


def _ends(problem: Problem, options: Integers, costs: Integers) -> tuple[Integers, Integers]:
    """Return the least and the most that each group that has a cost can cost; options ascending."""
    if not len(options):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    group = np.searchsorted(problem.start, options, side="right") - 1
    first = np.flatnonzero(np.diff(group, prepend=-1))
    low, high = np.minimum.reduceat(costs, first), np.maximum.reduceat(costs, first)
    # A group has options that are not listed, which cost nothing.
    group = group[first]
    partly = np.diff(first, append=len(options)) < problem.start[group + 1] - problem.start[group]
    return np.where(partly, 0, low), high


def _met(problem: Problem) -> list[int]:
    """Return the most that the pairs can cost in each row."""
    pairs = problem.pairs
    found = [0] * len(problem.rows)
    if len(pairs.cost):
        pair = np.searchsorted(pairs.cell_start, pairs.cell, side="right") - 1
        first = np.flatnonzero((np.diff(pairs.row, prepend=-1) != 0) | (np.diff(pair, prepend=-1) != 0))
        for row, cost in zip(pairs.row[first].tolist(), np.maximum.reduceat(pairs.cost, first).tolist(), strict=True):
            found[row] += cost
    return found
