"""A front of one instance, once point by point and once with each answer helping the next, in a process of its own.

    python benchmarks/solving_front.py '{"instance": "0,1,100,8,chain", "solver": "auto", "time_limit_s": 60}'

The latency of the first model is swept from a quarter of the way between the least possible and the exact layers' to 95
in a hundred. Writes one record as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from typing import Any

from solving_trial import instance_of, most_mib

import solvers
from planner.compare import warmed, written_versions
from solvers.check import floor, values
from solvers.problem import Problem
from solvers.questions.fronts import sweep
from solvers.questions.relaxed import Line, Relaxed

POINTS = 50
_LATENCY = 1
_FROM, _TO = 0.25, 0.95


def capacities(problem: Problem, points: int) -> list[int]:
    """Space capacities of the latency evenly."""
    least = floor(replace(problem, objective=_LATENCY, then=()))
    exact = values(problem, [0] * problem.groups)[_LATENCY]
    steps = [_FROM + (_TO - _FROM) * step / max(1, points - 1) for step in range(points)]
    return [round(least + share * (exact - least)) for share in steps]


def _alike(one: Line | None, other: Line | None) -> bool:
    """Say whether two relaxations have one value, as far as floating point tells."""
    if one is None or other is None:
        return one is other
    return math.isclose(one.value, other.value, rel_tol=1e-7)


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Solve all points cold, then as a sweep.

    Args:
        given: ``instance``, ``solver``, ``time_limit_s`` for each point, and perhaps ``workers`` and ``points``.

    Returns:
        The seconds of both, and whether the answers are the same; likewise of the linear relaxation, built and solved
        anew for each point, or kept by GLOP while one bound changes.
    """
    begin = time.perf_counter()
    instance = instance_of(given["instance"])
    made_s, made_mib = time.perf_counter() - begin, most_mib()
    (solver,) = warmed([given["solver"]])
    problem, workers = instance.problem, given.get("workers")
    wanted = capacities(problem, given.get("points", POINTS))
    kept = [row.capacity for row in problem.rows]
    begin = time.perf_counter()
    cold = [
        solver.solve(
            problem.with_capacities([*kept[:_LATENCY], capacity, *kept[_LATENCY + 1 :]]),
            time_limit_s=given["time_limit_s"],
            workers=workers,
        )
        for capacity in wanted
    ]
    cold_s = time.perf_counter() - begin
    begin = time.perf_counter()
    warm = sweep(
        problem,
        [{_LATENCY: capacity} for capacity in wanted],
        solver,
        time_limit_s=given["time_limit_s"] * len(wanted),
        workers=workers,
    )
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    lines = [Relaxed(problem, _LATENCY).at(capacity) for capacity in wanted]
    lp_cold_s = time.perf_counter() - begin
    begin = time.perf_counter()
    front = Relaxed(problem, _LATENCY).front(wanted)
    lp_s = time.perf_counter() - begin
    proven = all(answer.status in (solvers.Status.OPTIMAL, solvers.Status.INFEASIBLE) for answer in (*cold, *warm))
    same = [answer.objective for answer in cold] == [answer.objective for answer in warm]
    return {
        **given,
        "status": "optimal" if proven else "feasible",
        "points": len(wanted),
        "feasible": sum(answer.objective is not None for answer in warm),
        "cold_s": cold_s,
        "seconds": seconds,
        "same": same,
        "lp_cold_s": lp_cold_s,
        "lp_s": lp_s,
        "lp_same": all(_alike(one, other) for one, other in zip(lines, front, strict=True)),
        "groups": problem.groups,
        "made_s": made_s,
        "made_mib": made_mib,
        "most_mib": most_mib(),
        "versions": written_versions(cold[0].versions),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
