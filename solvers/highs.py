"""HiGHS through OR-Tools MathOpt: branch and cut in floating point, its bound less the error it may carry.

Q. Huangfu and J. Hall, Parallelizing the dual revised simplex method, Mathematical Programming Computation 10
(2018).
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
"""The tightest that HiGHS allows is 1e-10; its sums carry the rest."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with HiGHS, its absolute gap set to zero and its tolerances as tight as they hold.

    Args:
        problem: The problem.
        limits: How long it may take, its seed, its threads and its gap; ``work`` counts nodes of the search tree.
        hint: A choice to start from; left out where it breaks a capacity.

    Returns:
        The answer, of which nothing is taken that does not hold in integers.
    """
    from ortools.math_opt.solvers import highs_pb2

    own = highs_pb2.HighsOptionsProto()
    for name in ("mip_feasibility_tolerance", "primal_feasibility_tolerance", "dual_feasibility_tolerance"):
        own.double_options[name] = _TOLERANCE
    if limits.workers is not None:
        own.int_options["threads"] = limits.workers
    return solve_whole(problem, limits, hint, solver="HIGHS", tolerance=_TOLERANCE, relative=1e-12, highs=own)
