"""PDLP through OR-Tools MathOpt: the linear relaxation by a first-order method, and a plan rounded from it.

D. Applegate, M. Díaz, O. Hinder, H. Lu, M. Lubin, B. O'Donoghue and W. Schudy, Practical large-scale linear
programming using primal-dual hybrid gradient, NeurIPS 34 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from solvers.problem import Problem
from solvers.relaxation import solve_relaxed
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=False, deterministic=True, needs=("ortools",))


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve the relaxation with PDLP and round it.

    Args:
        problem: The problem.
        limits: How long it may take and its threads; ``work`` counts iterations. Nothing in it is random.
        hint: Not used.

    Returns:
        A bound that the multipliers prove exactly, however far the method came; its prices, and the rounded plan
        where there is one.
    """
    settings: dict[str, int | None] = {"random_seed": None}
    if limits.work is not None:
        settings["iteration_limit"] = max(1, round(limits.work))
    if limits.workers is not None:
        settings["threads"] = limits.workers
    return solve_relaxed(problem, limits, "PDLP", **settings)
