"""Options that can be left out before an exact solver sees a problem, with the proof that nothing is lost by it.

Three reasons suffice: another option of the group is no worse in anything (domination); with the option taken, the
Lagrangian function of the capacities lies above what is worth having (reduced costs; M. Fisher, The Lagrangian
relaxation method for solving integer programming problems, Management Science 27(1) (1981)); or any other bound that
holds with the option taken does (min-marginals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.bound import whole
from solvers.problem import Problem
from solvers.reduction import Reduction, reduce

__all__ = ["Shrunk", "beyond", "dominated", "reach", "too_dear"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A problem that lost options step by step, and the way there and back.

    Attributes:
        problem: What is left; None where a group has no option left, so that there is no choice worth having.
        steps: How it came about.

    >>> from solvers.problem import Row
    >>> rows = (Row(name="loss", options=[0], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=9))
    >>> shrunk = Shrunk.of(Problem(start=[0, 2], rows=rows)).without([0])
    >>> shrunk.problem.options, shrunk.restore([0])
    (1, (1,))
    """

    problem: Problem | None
    steps: tuple[Reduction, ...]

    @classmethod
    def of(cls, problem: Problem) -> Shrunk:
        """Begin with all options."""
        return cls(problem, ())

    def without(self, options: Sequence[int] | Integers) -> Shrunk:
        """Return what is left without these options of the present problem."""
        if self.problem is None or not len(options):
            return self
        step = reduce(replace(self.problem, forbidden=np.asarray(options, np.int64)))
        return Shrunk(step.problem, (*self.steps, step))

    def restore(self, choices: Sequence[int]) -> tuple[int, ...]:
        """Turn choices of the present problem into choices of the first."""
        for step in reversed(self.steps):
            choices = step.restore(choices)
        return tuple(choices)

    def project(self, choices: Sequence[int] | None) -> tuple[int, ...] | None:
        """Turn choices of the first problem into choices of the present one; None where an option is gone."""
        for step in self.steps:
            choices = None if choices is None else step.project(choices)
        return None if choices is None else tuple(choices)


def beyond(marginals: npt.NDArray[np.generic], limit: int) -> Integers:
    """List the options with which no choice costs as little as the limit.

    Args:
        marginals: For each option, what no choice that takes it can undercut, ``(options,)``.
        limit: What a choice worth having costs at most.
    """
    return np.flatnonzero(np.asarray(marginals) > limit).astype(np.int64)


def too_dear(problem: Problem, prices: Sequence[float] | npt.NDArray[np.float64], limit: int) -> Integers:
    """List the options with which the Lagrangian function lies above a limit, in exact integers.

    What pairs, peaks and spreads add is left aside: it is never negative.

    Args:
        problem: The problem.
        prices: What a unit of each row costs, ``(rows,)``, 0 or more.
        limit: What a choice worth having costs at most.
    """
    multiples, shift = whole(problem, prices)
    room, excess = reach(problem, multiples, shift, limit)
    if room < 0:
        return np.arange(problem.options, dtype=np.int64)
    return np.flatnonzero(excess > min(room, 2**62)).astype(np.int64)


def reach(problem: Problem, multiples: Sequence[int], shift: int, limit: int) -> tuple[int, npt.NDArray[Any]]:
    """Return how far the Lagrangian function lies below a limit, and by how much each option lifts it, exactly.

    Args:
        problem: The problem; what pairs, peaks and spreads add is left aside.
        multiples: Whole prices, as ``solvers.dual.bound.whole`` makes them.
        shift: A unit of the objective is two to this power of theirs.
        limit: What a choice worth having costs at most.

    Returns:
        The room, and ``excess[option]`` over the cheapest option of its group, both in the unit of the whole prices; as
        64-bit or as Python's integers.
    """
    objective = problem.rows[problem.objective]
    largest = (int(objective.costs.max(initial=0)) << shift) + sum(
        multiple * int(row.costs.max(initial=0)) for multiple, row in zip(multiples, problem.rows, strict=True)
    )
    room = limit - objective.constant << shift
    # Beyond 64 bits Python's own integers are slower and have no end.
    kind = np.int64 if max(largest, 1 << shift, *multiples) < 2**61 else object
    cost = np.zeros(problem.options, kind)
    cost[objective.options] = objective.costs.astype(kind) * (1 << shift)
    for multiple, row in zip(multiples, problem.rows, strict=True):
        if multiple and row.capacity is not None:
            cost[row.options] += row.costs.astype(kind) * multiple
            room += multiple * (row.capacity - row.constant)
    least = np.minimum.reduceat(cost, problem.start[:-1])
    room -= sum(least.tolist())
    return room, cost - np.repeat(least, np.diff(problem.start))


def dominated(problem: Problem) -> Integers:
    """List the options that another one of their group beats or equals in every row, peak and meeting.

    Of options that are alike the first stays, so that some optimum is always left, though not every one.

    Args:
        problem: The problem, without ties.
    """
    places = int(np.diff(problem.start).max())
    costs = _side_by_side(problem, *_costs(problem))
    formats = _side_by_side(problem, *_formats(problem))
    option = problem.start[:-1, None] + np.arange(places)
    there = option < problem.start[1:, None]
    option = np.where(there, option, problem.start[:-1, None])
    alive = there.copy()
    for one in range(places):
        for other in range(places):
            both = np.flatnonzero(alive[:, one] & alive[:, other]) if one != other else alive[:0, 0].nonzero()[0]
            for figures, alike in ((costs, False), (formats, True)):
                for line in figures:
                    if len(both):
                        a, b = line[option[both, one]], line[option[both, other]]
                        both = both[a == b] if alike else both[a <= b]
            if len(both) and one > other:
                # Alike in everything: the earlier one stays.
                unlike = np.zeros(len(both), np.bool_)
                for line in costs:
                    unlike |= line[option[both, one]] != line[option[both, other]]
                both = both[unlike]
            alive[both, other] = False
    return np.sort(option[there & ~alive])


def _costs(problem: Problem) -> tuple[Integers, Integers, Integers]:
    """List what options cost in whatever matters: what it is, the option, and the cost."""
    what, options, costs = [], [], []
    number = 0
    peaks: set[int] = set()
    for index, row in enumerate(problem.rows):
        if row.capacity is None and index != problem.objective and index not in problem.then:
            continue
        parts = [(row.options, row.costs)]
        if row.spread is not None:
            parts.append((row.spread.options, row.spread.variances))
        for of, cost in parts:
            what.append(np.full(len(of), number))
            options.append(of)
            costs.append(cost)
            number += 1
        peaks.update(row.peaks)
    for peak in (problem.peaks[index] for index in sorted(peaks)):
        steps = problem.steps_of(peak)
        what.append(number + steps)
        options.append(peak.options)
        costs.append(peak.costs)
        number += int(steps.max(initial=0)) + 1
    return np.concatenate(what), np.concatenate(options), np.concatenate(costs)


def _formats(problem: Problem) -> tuple[Integers, Integers, Integers]:
    """List the formats of options: of which side of which pair, the option, and the format."""
    pairs = problem.pairs
    what, options, formats = [], [], []
    for side, (groups, start, used) in enumerate(
        (
            (pairs.source, pairs.source_start, pairs.source_format),
            (pairs.target, pairs.target_start, pairs.target_format),
        )
    ):
        pair = np.repeat(np.arange(len(pairs)), np.diff(start))
        what.append(2 * pair + side)
        options.append(np.arange(len(used)) - start[pair] + problem.start[groups[pair]])
        formats.append(used)
    return np.concatenate(what), np.concatenate(options), np.concatenate(formats)


def _side_by_side(problem: Problem, what: Integers, options: Integers, figures: Integers) -> Integers:
    """Lay figures out so that each group has a line for each thing that its options have figures in.

    Groups share lines, so that there are no more than the group with the most such things needs; 0 elsewhere.
    """
    if not len(what):
        return np.zeros((0, problem.options), np.int64)
    group = problem.group[options]
    order = np.lexsort((what, group))
    new_group = np.diff(group[order], prepend=-1) != 0
    new = new_group | (np.diff(what[order], prepend=-1) != 0)
    rank = np.cumsum(new) - 1
    first = np.maximum.accumulate(np.where(new_group, rank, 0))
    line = rank - first
    found = np.zeros((int(line.max()) + 1, problem.options), np.int64)
    found[line, options[order]] = figures[order]
    return found
