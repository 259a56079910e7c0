"""Look at every answer with exact arithmetic and no solver: no solver is trusted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from solvers.problem import Problem
from solvers.solution import Solution, Status

__all__ = ["WrongAnswerError", "broken", "floor", "values", "verify"]


class WrongAnswerError(RuntimeError):
    """Say that a solver's answer is not what the solver claims: a fault in the solver, not in the input."""


def values(problem: Problem, choices: Sequence[int]) -> tuple[int, ...]:
    """Compute what every row costs, in Python integers.

    Args:
        problem: The problem.
        choices: For each group, which of its options is chosen, from 0 within the group.

    Returns:
        One value a row.

    Raises:
        ValueError: The choices do not name one existing option for each group.
    """
    chosen = set(_options(problem, choices))
    peaks = [
        max(
            (cost for option, cost in zip(peak.options.tolist(), peak.costs.tolist(), strict=True) if option in chosen),
            default=0,
        )
        for peak in problem.peaks
    ]
    totals = []
    for row in problem.rows:
        terms = zip(row.options.tolist(), row.costs.tolist(), strict=True)
        total = row.constant + sum(cost for option, cost in terms if option in chosen)
        totals.append(total + sum(peaks[peak] for peak in row.peaks))
    for pair in problem.pairs:
        source = int(pair.source_format[choices[pair.source]])
        target = int(pair.target_format[choices[pair.target]])
        for row_index, costs in pair.costs:
            totals[row_index] += int(costs[source, target])
    return tuple(totals)


def broken(problem: Problem, choices: Sequence[int]) -> tuple[str, ...]:
    """List what a choice breaks: capacities and forbidden meetings, in words; empty where it keeps all.

    Args:
        problem: The problem.
        choices: For each group, which of its options is chosen.

    Returns:
        One sentence for each thing broken.
    """
    found = []
    for row, value in zip(problem.rows, values(problem, choices), strict=True):
        if row.capacity is not None and value > row.capacity:
            found.append(f"{row.name} is {value}, above its capacity {row.capacity}")
    for pair in problem.pairs:
        source = int(pair.source_format[choices[pair.source]])
        target = int(pair.target_format[choices[pair.target]])
        if not pair.allowed[source, target]:
            found.append(f"groups {pair.source} and {pair.target} meet in forbidden formats {source} and {target}")
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
    """Compute a simple bound: every group at its cheapest, every peak at its least, no pair costs.

    Args:
        problem: The problem.

    Returns:
        What no choice can undercut in the objective row, whether it keeps the capacities or not.
    """
    row = problem.rows[problem.objective]
    total = row.constant + sum(_cheapest(problem, row.options.tolist(), row.costs.tolist()))
    for peak in (problem.peaks[index] for index in row.peaks):
        total += max(_cheapest(problem, peak.options.tolist(), peak.costs.tolist()), default=0)
    return total


def _cheapest(problem: Problem, options: list[int], costs: list[int]) -> list[int]:
    of_option = dict(zip(options, costs, strict=True))
    start = problem.start.tolist()
    return [
        min(of_option.get(option, 0) for option in range(first, beyond)) for first, beyond in itertools.pairwise(start)
    ]


def _options(problem: Problem, choices: Sequence[int]) -> list[int]:
    start = problem.start.tolist()
    if len(choices) != problem.groups:
        raise ValueError(f"{len(choices)} choices for {problem.groups} groups")
    for group, choice in enumerate(choices):
        if not 0 <= choice < start[group + 1] - start[group]:
            raise ValueError(f"group {group} has {start[group + 1] - start[group]} options; got choice {choice}")
    return [first + choice for first, choice in zip(start[:-1], choices, strict=True)]
