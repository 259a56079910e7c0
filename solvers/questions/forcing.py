"""Which groups force a conflict: few that by themselves cannot keep the capacities, all others costing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Peak, Problem, Row
from solvers.questions.asking import Asking, some_pairs
from solvers.questions.subset import least_subset
from solvers.solution import Status
from solvers.spread import Spread

__all__ = ["forcing", "only"]

_ROUNDS = 200
_RATE = 1.0
_PRICE_BITS = 20


def forcing(ask: Asking, rows: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Find few groups that cannot keep some capacities, whatever all other groups do.

    In one row without peaks, pairs and spread, the groups whose least costs are largest are the fewest there are. With
    prices at which the least costs of all groups exceed the capacities, the groups of the largest contributions are in
    conflict, as in the lemma of J. Farkas; the solver's answers then leave out what is not needed of these, or of all
    groups where no prices are found.

    Args:
        ask: The problem, and who is asked.
        rows: Rows whose capacities cannot be kept together.

    Returns:
        The groups, ascending, and whether it is proven that no part of them is in conflict.
    """
    problem = ask.problem
    if len(rows) == 1 and _is_plain(problem, rows[0]):
        row = problem.rows[rows[0]]
        least = _least(problem, row)
        room = (row.capacity or 0) - row.constant
        order = np.argsort(-least, kind="stable")
        sums = np.cumsum(least[order])
        count = 0 if room < 0 else int(np.searchsorted(sums, room, side="right")) + 1
        return tuple(sorted(order[:count].tolist())), True
    capacities = ask.kept(rows)
    likely = _priced(problem, rows)

    def keeps(groups: Sequence[int]) -> Status:
        return ask.feasible(only(problem, groups), capacities).status

    found = least_subset(likely, keeps)
    return tuple(sorted(found.items)), found.minimal


def only(problem: Problem, groups: Sequence[int]) -> Problem:
    """Let all but some groups cost nothing and meet nobody.

    Args:
        problem: The problem, without ties and forbidden options.
        groups: The groups that stay as they are.

    Returns:
        The problem, in which each other group has one option that may be taken, and it costs nothing.
    """
    stays = np.zeros(problem.groups, np.bool_)
    stays[list(groups)] = True
    option = stays[problem.group]
    other = np.flatnonzero(~option)
    first = np.zeros(problem.options, np.bool_)
    first[problem.start[:-1]] = True
    pairs = problem.pairs
    return replace(
        problem,
        rows=tuple(_row_of(row, option) for row in problem.rows),
        peaks=tuple(_peak_of(problem, peak, option) for peak in problem.peaks),
        pairs=some_pairs(pairs, stays[pairs.source] & stays[pairs.target]) if len(pairs) else pairs,
        forbidden=other[~first[other]],
    )


def _row_of(row: Row, option: npt.NDArray[np.bool_]) -> Row:
    kept = option[row.options]
    spread = row.spread
    if spread is not None:
        uncertain = option[spread.options]
        spread = Spread(options=spread.options[uncertain], variances=spread.variances[uncertain], z=spread.z)
    return replace(row, options=row.options[kept], costs=row.costs[kept], spread=spread)


def _peak_of(problem: Problem, peak: Peak, option: npt.NDArray[np.bool_]) -> Peak:
    kept = option[peak.options]
    steps = None if peak.steps is None else peak.steps[kept]
    return replace(peak, options=peak.options[kept], costs=peak.costs[kept], steps=steps)


def _is_plain(problem: Problem, row: int) -> bool:
    """Tell whether every group's part of a row can be looked at by itself."""
    entry = problem.rows[row]
    return not entry.peaks and entry.spread is None and not problem.pairs


def _least(problem: Problem, row: Row) -> Integers:
    found: Integers = np.minimum.reduceat(problem.dense(row.options, row.costs), problem.start[:-1])
    return found


def _priced(problem: Problem, rows: Sequence[int]) -> list[int]:
    """Return groups in conflict, by what they contribute to it at certain prices, the largest first.

    Shares of the rows go up where the groups' least, at these shares, exceeds a row, and down where it does not
    (multiplicative weights: S. Arora, E. Hazan and S. Kale, Theory of Computing 8, 2012). Where the shares prove the
    conflict, in whole numbers, the groups beyond the proof are left out; otherwise all groups are returned.
    """
    if not rows:
        return list(range(problem.groups))
    bound = [problem.rows[index] for index in rows]
    room = [(row.capacity or 0) - row.constant for row in bound]
    costs = np.zeros((len(bound), problem.options), np.int64)
    for line, row in zip(costs, bound, strict=True):
        line[row.options] = row.costs
    usage = costs / np.maximum(1.0, np.array(room, np.float64))[:, None]
    first = problem.start[:-1]
    weights, best, most = np.zeros(len(bound)), np.ones(len(bound)), -np.inf
    for _ in range(_ROUNDS):
        shares = np.exp(weights - weights.max())
        shares /= shares.sum()
        priced = shares @ usage
        least = np.minimum.reduceat(priced, first)
        if least.sum() > most:
            most, best = float(least.sum()), shares
        taken = np.maximum.reduceat(
            np.where(priced <= np.repeat(least, np.diff(problem.start)), usage, 0), first, axis=1
        )
        weights += (taken.sum(axis=1) - 1) * _RATE
    # Whole prices, so that the proof is one: the share of a row over what is left of its capacity.
    largest = max(1, *room)
    prices = [int(share * 2**_PRICE_BITS) * largest // max(1, left) for share, left in zip(best, room, strict=True)]
    exact = np.zeros(problem.options, object)
    for price, line in zip(prices, costs, strict=True):
        exact += line.astype(object) * price
    least_of = np.minimum.reduceat(exact, first)
    order = sorted(range(problem.groups), key=lambda group: -least_of[group])
    allowed = sum(price * left for price, left in zip(prices, room, strict=True))
    total = 0
    for count, group in enumerate(order, start=1):
        total += least_of[group]
        if total > allowed:
            return order[:count]
    return order
