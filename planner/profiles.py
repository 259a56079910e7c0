"""Performance profiles: how often a solver is within a factor of the best one.

E. D. Dolan and J. J. Moré, Benchmarking optimization software with performance profiles, Mathematical Programming 91
(2002), section 2: ``r[p, s] = t[p, s] / min over s of t[p, s]`` for every problem ``p`` and solver ``s``, infinite
where the solver fails, and ``rho_s(tau)`` is the share of all problems with ``r[p, s] <= tau``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from planner.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from planner.compare import Run

__all__ = ["Measure", "draw_profile", "profile"]

Measure = Literal["seconds", "objective"]
"""The time to an answer that is proven, or near enough; or how good the answer is, whatever it took."""
_SHORTEST_S = 1e-3
"""Times below are as good as equal: what measures them is the clock."""


def profile(runs: Sequence[Run], measure: Measure = "seconds", *, gap: float = 0.0) -> pd.DataFrame:
    """Compute performance profiles.

    Args:
        runs: One run for each instance and solver.
        measure: What is compared: ``seconds`` to an answer proven to ``gap``, or the ``objective``.
        gap: The gap that counts as solved; a proof that there is no choice counts too.

    Returns:
        A row for each factor at which a share changes, a column for each solver, in the order of the runs. Instances
        that no solver solved count among all: no share then reaches 1.

    Raises:
        InputError: There are no runs, or two of one solver on one instance.

    >>> from planner.compare import Run
    >>> more = {"status": "optimal", "gap": 0.0, "checked": True}
    >>> runs = [
    ...     Run(solver="a", instance="p", seconds=1.0, **more),
    ...     Run(solver="b", instance="p", seconds=2.0, **more),
    ... ]
    >>> profile(runs).loc[2.0].tolist()
    [1.0, 1.0]
    """
    import pandas as pd

    solvers = list(dict.fromkeys(run.solver for run in runs))
    instances = list(dict.fromkeys(run.instance for run in runs))
    if not runs:
        raise InputError("there are no runs to profile; expected at least one")
    if len({(run.solver, run.instance) for run in runs}) < len(runs):
        raise InputError("a solver ran twice on one instance; a profile takes one run of each")
    cost = {(run.instance, run.solver): _cost(run, measure, gap) for run in runs}
    ratios: dict[str, list[float]] = {solver: [] for solver in solvers}
    for instance in instances:
        best = min(cost.get((instance, solver), math.inf) for solver in solvers)
        for solver in solvers:
            ratios[solver].append(_ratio(cost.get((instance, solver), math.inf), best))
    factors = sorted({1.0} | {ratio for of in ratios.values() for ratio in of if math.isfinite(ratio)})
    shares = {
        solver: [sum(ratio <= factor for ratio in ratios[solver]) / len(instances) for factor in factors]
        for solver in solvers
    }
    return pd.DataFrame(shares, index=pd.Index(factors, name="factor"))


def draw_profile(
    runs: Sequence[Run], path: str | os.PathLike[str], measure: Measure = "seconds", *, gap: float = 0.0
) -> None:
    """Draw performance profiles: left the share of instances on which a solver is the best, right of those it solves.

    Args:
        runs: One run for each instance and solver.
        path: The picture, such as profile.svg.
        measure: As in ``profile``.
        gap: Likewise.

    Raises:
        InputError: As in ``profile``; or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    shares = profile(runs, measure, gap=gap)
    end = max(2.0, float(shares.index[-1]) * 1.1)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for solver in shares.columns:
        share = shares[solver].tolist()
        axes.step([*shares.index, end], [*share, share[-1]], where="post", label=solver)
    axes.set_xscale("log")
    axes.set_xlim(1, end)
    axes.set_ylim(0, 1.02)
    said = "time to a proof" if gap == 0 else f"time to a gap of {100 * gap:g} %"
    axes.set_xlabel(f"within this factor of the best ({said if measure == 'seconds' else 'objective'})")
    axes.set_ylabel(f"share of {len({run.instance for run in runs})} instances")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the picture cannot be written: {error}") from None


def _cost(run: Run, measure: Measure, gap: float) -> float:
    """Return what a run took, infinite where it counts as failed."""
    if run.checked is False:
        return math.inf
    if measure == "objective":
        return math.inf if run.objective is None else float(run.objective)
    solved = run.status in ("optimal", "infeasible") or (run.gap is not None and run.gap <= gap)
    return max(run.seconds, _SHORTEST_S) if solved else math.inf


def _ratio(cost: float, best: float) -> float:
    if not math.isfinite(cost):
        return math.inf
    # An objective of 0 is matched by 0 alone.
    return 1.0 if cost == best else (cost / best if best > 0 else math.inf)
