"""A choice to start from: an answer by itself where a solver finds none that is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from solvers.check import broken, values
from solvers.problem import Problem
from solvers.solution import Solution, Status

__all__ = ["no_worse", "usable"]


def usable(problem: Problem, hint: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return a hint that keeps everything; None for any other."""
    return None if hint is None or broken(problem, hint) else tuple(hint)


def no_worse(problem: Problem, solution: Solution, hint: tuple[int, ...] | None) -> Solution:
    """Return the answer, or the hint with the answer's bound where the hint costs less.

    A hint that keeps everything also refutes what floats may get wrong: that there is no choice, or none so cheap.

    Args:
        problem: The problem.
        solution: What a solver answered within its limits.
        hint: A choice that keeps everything, or None.
    """
    if hint is None or solution.status is Status.OPTIMAL:
        return solution
    objective = values(problem, hint)[problem.objective]
    if solution.status is Status.INFEASIBLE or (solution.bound is not None and solution.bound > objective):
        solution = replace(solution, bound=None, note="what it proved is refuted by the start")
    elif solution.objective is not None and solution.objective <= objective:
        return solution
    status = Status.OPTIMAL if solution.bound == objective else Status.FEASIBLE
    return replace(solution, status=status, choices=hint, objective=objective)
