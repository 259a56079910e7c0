"""GLOP through OR-Tools MathOpt: the linear relaxation by the simplex method, and a plan rounded from it."""

from __future__ import annotations

from collections.abc import Sequence

from solvers.problem import Problem
from solvers.relaxation import solve_relaxed
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, deterministic=True, needs=("ortools",))


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve the relaxation with GLOP and round it.

    Args:
        problem: The problem.
        limits: How long it may take and its seed; ``work`` counts iterations of the simplex method.
        hint: Not used.

    Returns:
        A bound that the relaxation's multipliers prove exactly, its prices, and the rounded plan where there is one.
    """
    settings = {} if limits.work is None else {"iteration_limit": max(1, round(limits.work))}
    return solve_relaxed(problem, limits, "GLOP", **settings)
