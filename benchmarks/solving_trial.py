"""One solver on one instance, in a process of its own, so that what memory it takes is its own.

    python benchmarks/solving_trial.py '{"instance": "0,1,50,8,chain", "solver": "cpsat", "time_limit_s": 10}'

Writes one record as JSON. An instance is a line as `blinkplan compare-solvers --generate` takes, or a file.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import solvers
from planner.compare import warmed
from planner.laboratory import Instance, Laboratory, generated, proven, read_instance


def instance_of(text: str) -> Instance:
    """Read a file, or make up what the line says."""
    if Path(text).is_file():
        return read_instance(text)
    (make,) = generated(text).values()
    return make()


def most_mib() -> float:
    """Return the most memory that this process ever held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Run a trial.

    Args:
        given: ``instance``, ``solver``, ``time_limit_s``, and perhaps ``workers``, ``gap`` and ``seed``.

    Returns:
        What the laboratory writes down, the seconds that making the instance took, how much memory there was before
        and at most, and the moments at which the solver told of something better.
    """
    begin = time.perf_counter()
    instance = instance_of(given["instance"])
    made_s, made_mib = time.perf_counter() - begin, most_mib()
    (solver,) = warmed([given["solver"]])
    limits = solvers.Limits(
        time_s=given["time_limit_s"],
        seed=given.get("seed", 0),
        workers=given.get("workers"),
        gap=given.get("gap", 0.0),
    )
    laboratory = Laboratory(limits=limits, curves=solver.capabilities.traces, proves=False)
    trial = laboratory.trial(instance, solver)
    held = most_mib()
    moments = () if trial.curve is None else trial.curve.moments
    value = None if trial.run.objective is None else instance.value(int(trial.run.objective))
    most = None if trial.run.bound is None else instance.value(int(trial.run.bound))
    return {
        **given,
        **asdict(trial.run),
        "instance": given["instance"],
        "groups": instance.problem.groups,
        "options": instance.problem.options,
        "rows": len(instance.problem.rows),
        "pairs": len(instance.problem.pairs),
        "value": None if value is None else float(value),
        "value_at_most": None if most is None else float(most),
        "made_s": made_s,
        "made_mib": made_mib,
        "most_mib": held,
        "proven": None if trial.solution is None else proven(instance, trial.solution),
        "moments": [[moment.seconds, moment.objective, moment.bound] for moment in moments],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
