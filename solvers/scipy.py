"""The HiGHS inside SciPy: what a user has who installs nothing for optimisation.

Q. Huangfu and J. Hall, Parallelizing the dual revised simplex method, Mathematical Programming Computation 10
(2018).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from solvers.floating import Attempt, FloatForm, solve_in_floats
from solvers.problem import Problem
from solvers.quiet import quiet
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, deterministic=True, needs=("scipy",))
_TOLERANCE = 1e-6
"""SciPy leaves HiGHS its own tolerances and its own absolute gap, and offers no way to change them."""
_LARGEST = 20
_INFEASIBLE = 2


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with ``scipy.optimize.milp``, on one thread.

    Args:
        problem: The problem.
        limits: How long it may take, and its gap; ``work`` counts nodes of the search tree. It takes no seed.
        hint: Not used.

    Returns:
        The answer, of which nothing is taken that does not hold in integers.
    """
    deadline = time.perf_counter() + limits.time_s

    def ask(form: FloatForm, seconds: float) -> Attempt:
        from scipy.optimize import Bounds, LinearConstraint, milp

        options: dict[str, float | int] = {"time_limit": seconds, "mip_rel_gap": limits.gap}
        if limits.work is not None:
            options["node_limit"] = max(1, round(limits.work))
        with quiet():
            answer = milp(
                form.objective,
                integrality=form.whole.astype(int),
                bounds=Bounds(form.least, form.most),
                constraints=LinearConstraint(form.matrix, form.lower, form.upper),
                options=options,
            )
        bound = answer.mip_dual_bound
        return Attempt(
            infeasible=answer.status == _INFEASIBLE,
            values=answer.x,
            bound=bound if bound is not None and math.isfinite(bound) else -math.inf,
        )

    return solve_in_floats(
        problem,
        lambda: deadline - time.perf_counter(),
        ask,
        tolerance=_TOLERANCE,
        relative=1e-12,
        largest=_LARGEST,
    )
