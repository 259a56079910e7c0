"""A problem without ties and forbidden options that says the same; its answers are answers to the one it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers, read_only
from solvers.pairs import Pairs
from solvers.problem import Peak, Problem, Row
from solvers.spread import Spread

__all__ = ["Reduction", "reduce"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """A smaller problem, and the way there and back.

    Attributes:
        original: The problem it was made from.
        problem: The problem without ties and forbidden options; None where a group has no option left.
        group: The group that each original group became, ``(original groups,)``.
        place: The original place of each option that is left, ``(options,)``.
        option: The option that each original option became, ``(original options,)``; -1 where it is gone.

    >>> problem = Problem(start=[0, 2], rows=(Row(name="loss", options=[0], costs=[7]),), forbidden=[1])
    >>> reduce(problem).restore((0,))
    (0,)
    """

    original: Problem
    problem: Problem | None
    group: Integers
    place: Integers
    option: Integers

    def restore(self, choices: Sequence[int]) -> tuple[int, ...]:
        """Turn choices of the reduced problem into choices of the original one."""
        if self.problem is None:
            raise ValueError("the reduced problem has no choices: a group has no option left")
        chosen = self.problem.start[:-1] + np.asarray(choices, np.int64)
        return tuple(self.place[chosen[self.group]].tolist())

    def project(self, choices: Sequence[int]) -> tuple[int, ...] | None:
        """Turn choices of the original problem into choices of the reduced one; None where it does not have them."""
        if self.problem is None:
            return None
        option = self.option[self.original.start[:-1] + np.asarray(choices, np.int64)]
        places = np.full(self.problem.groups, -1, np.int64)
        places[self.group] = option - self.problem.start[self.group]
        agree = bool((option >= 0).all()) and bool(
            (places[self.group] == option - self.problem.start[self.group]).all()
        )
        return tuple(places.tolist()) if agree else None


def reduce(problem: Problem) -> Reduction:
    """Drop forbidden options, and let groups that are tied be one.

    Args:
        problem: The problem.

    Returns:
        The reduced problem, with the way back; the very problem where there is nothing to reduce. Values of rows,
        the objective among them, are the same for choices that correspond.
    """
    identity = np.arange(problem.options, dtype=np.int64)
    if not len(problem.ties) and not len(problem.forbidden):
        place = identity - np.repeat(problem.start[:-1], np.diff(problem.start))
        groups = np.arange(problem.groups, dtype=np.int64)
        return Reduction(original=problem, problem=problem, group=groups, place=place, option=identity)
    leader = np.arange(problem.groups, dtype=np.int64)
    for tie in problem.ties:
        leader[tie] = tie[0]
    sizes = np.diff(problem.start)
    # The leader's option of the same place, for every option.
    led = identity + np.repeat(problem.start[leader] - problem.start[:-1], sizes)
    inner = np.flatnonzero(leader[problem.pairs.source] == leader[problem.pairs.target])
    kept = np.ones(problem.options, np.bool_)
    kept[led[problem.forbidden]] = False
    meetings = [_inside(problem, index, leader) for index in inner.tolist()]
    for options, cells in meetings:
        kept[options[~problem.pairs.allowed[cells]]] = False
    leads = np.repeat(leader == np.arange(problem.groups), sizes)
    left = np.flatnonzero(kept & leads)
    new = np.full(problem.options, -1, np.int64)
    new[left] = np.arange(len(left))
    option = new[led]
    remaining = np.bincount(problem.group[left], minlength=problem.groups)
    rank = np.cumsum(leader == np.arange(problem.groups)) - 1
    group = rank[leader]
    place = left - problem.start[problem.group[left]]
    is_leader = leader == np.arange(problem.groups)
    if bool((remaining[is_leader] == 0).any()):
        return Reduction(original=problem, problem=None, group=group, place=place, option=option)
    start = np.concatenate([[0], np.cumsum(remaining[is_leader])]).astype(np.int64)
    extra = _extra(problem, meetings, option)
    reduced = replace(
        problem,
        start=start,
        rows=tuple(_row(row, option, extra.get(index, ())) for index, row in enumerate(problem.rows)),
        peaks=tuple(_peak(problem, peak, option) for peak in problem.peaks),
        pairs=_pairs(problem, np.delete(np.arange(len(problem.pairs)), inner), option, group),
        ties=(),
        forbidden=np.zeros(0, np.int64),
    )
    return Reduction(original=problem, problem=reduced, group=group, place=place, option=option)


def _inside(problem: Problem, index: int, leader: Integers) -> tuple[Integers, Integers]:
    """Return the leader's options, and the cell that each means in a pair whose two groups are tied."""
    pairs = problem.pairs
    source = pairs.source_format[pairs.source_start[index] : pairs.source_start[index + 1]]
    target = pairs.target_format[pairs.target_start[index] : pairs.target_start[index + 1]]
    first = int(problem.start[leader[pairs.source[index]]])
    options = np.arange(first, first + len(source), dtype=np.int64)
    return options, pairs.cell_start[index] + source * pairs.columns[index] + target


def _extra(
    problem: Problem, meetings: Sequence[tuple[Integers, Integers]], option: Integers
) -> dict[int, list[tuple[Integers, Integers]]]:
    """Return, for each row, what meetings within tied groups make its options cost: options and costs."""
    found: dict[int, list[tuple[Integers, Integers]]] = {}
    pairs = problem.pairs
    for options, cells in meetings:
        for row in np.unique(pairs.row[np.isin(pairs.cell, cells)]).tolist():
            cost = np.zeros(len(pairs.allowed), np.int64)
            mine = pairs.row == row
            cost[pairs.cell[mine]] = pairs.cost[mine]
            found.setdefault(row, []).append((option[options], cost[cells]))
    return found


def _merged(option: Integers, costs: Integers) -> tuple[Integers, Integers]:
    """Drop what is gone, and add up what became the same option; returns options, ascending, and costs."""
    there = option >= 0
    if bool(there.all()) and bool((np.diff(option) > 0).all()):
        return read_only(option.copy()), costs
    option, costs = option[there], costs[there]
    if bool((np.diff(option) > 0).all()):
        return read_only(option), read_only(costs)
    order = np.argsort(option, kind="stable")
    option, costs = option[order], costs[order]
    first = np.flatnonzero(np.diff(option, prepend=-1))
    return read_only(option[first]), read_only(np.add.reduceat(costs, first))


def _row(row: Row, option: Integers, extra: Sequence[tuple[Integers, Integers]]) -> Row:
    options, costs = option[row.options], row.costs
    if extra:
        options = np.concatenate([options, *(more for more, _ in extra)])
        costs = np.concatenate([costs, *(more for _, more in extra)])
    options, costs = _merged(options, costs)
    spread = None
    if row.spread is not None:
        uncertain, variances = _merged(option[row.spread.options], row.spread.variances)
        spread = Spread(options=uncertain, variances=variances, z=row.spread.z)
    return replace(row, options=options, costs=costs, spread=spread)


def _peak(problem: Problem, peak: Peak, option: Integers) -> Peak:
    options = option[peak.options]
    there = options >= 0
    if peak.of_groups and bool((np.diff(options[there]) > 0).all()):
        return replace(peak, options=read_only(options[there]), costs=read_only(peak.costs[there]))
    # Where tied groups are steps of their own, one option costs in several steps.
    steps, options, costs = problem.steps_of(peak)[there], options[there], peak.costs[there]
    order = np.lexsort((options, steps))
    steps, options, costs = steps[order], options[order], costs[order]
    first = np.flatnonzero((np.diff(steps, prepend=-1) != 0) | (np.diff(options, prepend=-1) != 0))
    if len(first) < len(costs):
        costs = np.add.reduceat(costs, first)
    return replace(peak, options=options[first], costs=costs, steps=steps[first])


def _pairs(problem: Problem, left: npt.NDArray[np.intp], option: Integers, group: Integers) -> Pairs:
    """Return the pairs that are left, the formats of the options that are left, and all of their cells."""
    pairs = problem.pairs
    if not len(left):
        return Pairs.of(())
    source_start, source_format = _side(problem, pairs.source, pairs.source_start, pairs.source_format, left, option)
    target_start, target_format = _side(problem, pairs.target, pairs.target_start, pairs.target_format, left, option)
    sizes = np.diff(pairs.cell_start)
    stays = np.zeros(len(pairs), np.bool_)
    stays[left] = True
    cell_stays = np.repeat(stays, sizes)
    new_cell = np.cumsum(cell_stays) - 1
    term_stays = cell_stays[pairs.cell]
    return Pairs(
        source=group[pairs.source[left]],
        target=group[pairs.target[left]],
        source_start=source_start,
        source_format=source_format,
        target_start=target_start,
        target_format=target_format,
        cell_start=np.concatenate([[0], np.cumsum(sizes[left])]).astype(np.int64),
        columns=pairs.columns[left],
        allowed=pairs.allowed[cell_stays],
        row=pairs.row[term_stays],
        cell=new_cell[pairs.cell[term_stays]],
        cost=pairs.cost[term_stays],
    )


def _side(
    problem: Problem,
    groups: Integers,
    start: Integers,
    formats: Integers,
    left: npt.NDArray[np.intp],
    option: Integers,
) -> tuple[Integers, Integers]:
    """Return where the formats of one side's options begin, and the formats, of the pairs and options left."""
    sizes = np.diff(start)
    pair = np.repeat(np.arange(len(groups)), sizes)
    of = np.repeat(problem.start[groups] - start[:-1], sizes) + np.arange(len(formats))
    stays = np.zeros(len(groups), np.bool_)
    stays[left] = True
    there = stays[pair] & (option[of] >= 0)
    counts = np.bincount(pair[there], minlength=len(groups))[left]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), formats[there]
