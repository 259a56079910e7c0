"""Look at every answer with exact arithmetic and no solver: no solver is trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Peak, Problem
from solvers.solution import Solution, Status

__all__ = ["WrongAnswerError", "broken", "floor", "values", "verify"]


class WrongAnswerError(RuntimeError):
    """Say that a solver's answer is not what the solver claims: a fault in the solver, not in the input."""


def values(problem: Problem, choices: Sequence[int]) -> tuple[int, ...]:
    """Compute what every row costs, in integers: a problem's sums are known to fit into 64 bits.

    Args:
        problem: The problem.
        choices: For each group, which of its options is chosen, from 0 within the group.

    Returns:
        One value a row.

    Raises:
        ValueError: The choices do not name one existing option for each group.
    """
    places = _places(problem, choices)
    chosen = np.zeros(problem.options, np.bool_)
    chosen[problem.start[:-1] + places] = True
    peaks = [_peak(problem, peak, chosen) for peak in problem.peaks]
    totals = []
    for row in problem.rows:
        total = row.constant + int(row.costs[chosen[row.options]].sum()) + sum(peaks[peak] for peak in row.peaks)
        if row.spread is not None:
            variance = sum(row.spread.variances[chosen[row.spread.options]].tolist())
            total += row.spread.value(variance)
        totals.append(total)
    for row_index, cost in _meetings(problem, places):
        totals[row_index] += cost
    return tuple(totals)


def broken(problem: Problem, choices: Sequence[int]) -> tuple[str, ...]:
    """List what a choice breaks: capacities, ties, what is forbidden, in words; empty where it keeps all.

    Args:
        problem: The problem.
        choices: For each group, which of its options is chosen.

    Returns:
        One sentence for each thing broken.

    Raises:
        ValueError: The choices do not name one existing option for each group.
    """
    found = []
    for row, value in zip(problem.rows, values(problem, choices), strict=True):
        if row.capacity is not None and value > row.capacity:
            found.append(f"{row.name} is {value}, above its capacity {row.capacity}")
    places = _places(problem, choices)
    pairs = problem.pairs
    if len(pairs):
        for index in np.flatnonzero(~pairs.allowed[pairs.cells(places)]).tolist():
            pair = pairs[index]
            formats = pair.source_format[places[pair.source]], pair.target_format[places[pair.target]]
            met = f"in forbidden formats {int(formats[0])} and {int(formats[1])}"
            found.append(f"groups {pair.source} and {pair.target} meet {met}")
    found += [
        f"the tied groups {tie.tolist()} take unlike options {places[tie].tolist()}"
        for tie in problem.ties
        if len(set(places[tie].tolist())) > 1
    ]
    against = np.flatnonzero(np.isin(problem.start[:-1] + places, problem.forbidden)).tolist()
    found += [f"group {group} takes its option {int(places[group])}, which is forbidden" for group in against]
    return tuple(found)


def verify(problem: Problem, solution: Solution) -> None:
    """Check that an answer is what it claims to be.

    Args:
        problem: The problem that was handed to the solver.
        solution: Its answer.

    Raises:
        WrongAnswerError: A capacity is broken, the objective is not that of the choice, or the bound cannot
            hold.
    """
    who = solution.solver or "the solver"
    if solution.choices is None:
        return
    try:
        wrong = broken(problem, solution.choices)
    except ValueError as error:
        raise WrongAnswerError(f"{who}: {error}") from None
    if wrong:
        raise WrongAnswerError(f"{who} called this {solution.status}: {'; '.join(wrong)}")
    exact = values(problem, solution.choices)[problem.objective]
    if solution.objective != exact:
        raise WrongAnswerError(f"{who} says that the objective is {solution.objective}; it is {exact}")
    if solution.bound is not None and solution.bound > exact:
        raise WrongAnswerError(f"{who} says that nothing lies below {solution.bound}; {exact} does")
    if solution.status is Status.OPTIMAL and solution.bound != exact:
        raise WrongAnswerError(f"{who} calls {exact} optimal with the bound {solution.bound}")


def floor(problem: Problem) -> int:
    """Compute a simple bound: every group at its cheapest, every peak at its least, no pair costs, no spread.

    Args:
        problem: The problem.

    Returns:
        What no choice can undercut in the objective row, whether it keeps the capacities or not.
    """
    row = problem.rows[problem.objective]
    total = row.constant + int(_cheapest(problem, row.options, row.costs).sum())
    for peak in (problem.peaks[index] for index in row.peaks):
        if peak.of_groups:
            total += int(_cheapest(problem, peak.options, peak.costs).max())
    return total


def _cheapest(problem: Problem, options: Integers, costs: Integers) -> Integers:
    """Return the least cost in each group, ``(groups,)``."""
    least: Integers = np.minimum.reduceat(problem.dense(options, costs), problem.start[:-1])
    return least


def _peak(problem: Problem, peak: Peak, chosen: npt.NDArray[np.bool_]) -> int:
    mine = chosen[peak.options]
    costs, steps = peak.costs[mine], problem.steps_of(peak)[mine]
    if not len(costs):
        return 0
    order = np.argsort(steps, kind="stable")
    first = np.flatnonzero(np.diff(steps[order], prepend=-1))
    return int(np.add.reduceat(costs[order], first).max())


def _meetings(problem: Problem, places: Integers) -> list[tuple[int, int]]:
    """List what all pairs together cost in each row that they concern."""
    pairs = problem.pairs
    if not len(pairs):
        return []
    met = np.zeros(len(pairs.allowed), np.bool_)
    met[pairs.cells(places)] = True
    mine = met[pairs.cell]
    rows, costs = pairs.row[mine], pairs.cost[mine]
    if not len(rows):
        return []
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    return list(zip(rows[first].tolist(), np.add.reduceat(costs, first).tolist(), strict=True))


def _places(problem: Problem, choices: Sequence[int]) -> Integers:
    if len(choices) != problem.groups:
        raise ValueError(f"{len(choices)} choices for {problem.groups} groups")
    places = np.asarray(choices, np.int64)
    sizes = np.diff(problem.start)
    wrong = np.flatnonzero((places < 0) | (places >= sizes))
    if len(wrong):
        group = int(wrong[0])
        raise ValueError(f"group {group} has {int(sizes[group])} options; got choice {int(places[group])}")
    return places
