"""SCIP through OR-Tools MathOpt: branch, cut and price in floating point, its bound less the error it may carry.

S. Bolusani and others, The SCIP Optimization Suite 9.0, Zuse Institute Berlin, report 24-02-29 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence

from solvers.mathopt import solve_whole
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, hints=True, deterministic=True, needs=("ortools",))
_TOLERANCE = 1e-9


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with SCIP, its absolute gap set to zero and its tolerances as tight as they hold; it has one thread.

    Args:
        problem: The problem.
        limits: How long it may take, its seed and its gap; ``work`` counts nodes of the search tree.
        hint: A choice to start from; left out where it breaks a capacity.

    Returns:
        The answer, of which nothing is taken that does not hold in integers.
    """
    from ortools.math_opt.solvers.gscip import gscip_pb2

    own = gscip_pb2.GScipParameters()
    for name in ("numerics/feastol", "numerics/dualfeastol"):
        own.real_params[name] = _TOLERANCE
    # SCIP compares figures, cutoffs among them, up to a difference of 1e-9, relative to the larger.
    return solve_whole(problem, limits, hint, solver="GSCIP", tolerance=_TOLERANCE, relative=1e-9, gscip=own)
