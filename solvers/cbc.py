"""CBC, which PuLP brings: the solver inside other planners of compression, here for comparison.

J. Forrest and R. Lougee-Heimer, CBC user guide, INFORMS TutORials (2005). PuLP builds a model from Python expressions
and writes it with thirteen digits, and calls an incumbent at the end of the time optimal; so its program is called
here with a model that has all digits, and what it prints is read.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solvers.floating import Attempt, FloatForm, Floats, solve_in_floats
from solvers.instances import mps
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits
from solvers.start import no_worse, usable

__all__ = ["CAPABILITIES", "solve"]

CAPABILITIES = Capabilities(exact=True, hints=True, deterministic=True, needs=("pulp",))
_TOLERANCE = 1e-7
"""CBC's own cutoffs and cuts work with 1e-7 and more, whatever its options say."""
_LARGEST = 20
_GRACE_S = 5.0
"""CBC looks at the clock between its steps only; after this much more it is stopped, and what it found is lost."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with CBC, its gaps and its least improvement set to zero.

    Args:
        problem: The problem.
        limits: How long it may take, its seed, its threads and its gap; ``work`` counts nodes of the search tree.
        hint: A choice to start from; left out where it breaks a capacity.

    Returns:
        The answer, of which nothing is taken that does not hold in integers.
    """
    deadline = time.perf_counter() + limits.time_s

    start = usable(problem, hint)

    def ask(form: FloatForm, seconds: float) -> Attempt:
        # Where a capacity was lowered, the hint may break it.
        return _ask(form, limits, seconds, usable(form.exact.problem, start))

    found = solve_in_floats(
        problem,
        lambda: deadline - time.perf_counter(),
        ask,
        tolerance=_TOLERANCE,
        relative=1e-9,
        largest=_LARGEST,
    )
    return no_worse(problem, found, start)


def _ask(form: FloatForm, limits: Limits, seconds: float, hint: Sequence[int] | None) -> Attempt:
    import pulp

    columns = [f"c{index}" for index in range(len(form.objective))]
    with tempfile.TemporaryDirectory() as folder:
        model, start, answer = (Path(folder) / name for name in ("model.mps", "start.sol", "answer.sol"))
        model.write_text(
            mps.text(
                matrix=form.matrix,
                upper=form.upper,
                equal=np.isfinite(form.lower),
                objective=form.objective,
                offset=0.0,
                least=form.least,
                most=form.most,
                whole=form.exact.options,
                columns=columns,
                constraints=[f"r{index}" for index in range(len(form.upper))],
            )
        )
        options: dict[str, object] = {
            "sec": seconds,
            "timeMode": "elapsed",
            "ratio": limits.gap,
            "allow": 0,
            "increment": 1e-9,
            "primalT": 1e-9,
            "integerT": 1e-9,
            # 0 would have CBC take the time of day as its seed.
            "randomCbcSeed": limits.seed + 1,
        }
        if limits.work is not None:
            options["maxNodes"] = max(1, round(limits.work))
        threads = limits.threads
        if threads > 1:
            options["threads"] = threads
        command = [str(pulp.PULP_CBC_CMD.pulp_cbc_path), str(model)]
        if hint is not None:
            _write_start(start, columns, form.columns(hint))
            command += ["-mips", str(start)]
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        command += ["-solve", "-solution", str(answer)]
        try:
            done = subprocess.run(  # noqa: S603 - the program that PuLP brings, on files of our own
                command, capture_output=True, text=True, check=False, timeout=seconds + _GRACE_S
            )
        except subprocess.TimeoutExpired:
            return Attempt()
        return _read(done.stdout, answer, len(columns))


def _write_start(file: Path, columns: Sequence[str], values: Floats) -> None:
    lines = ["Stopped on time - objective value 0"]
    lines += [f"{index} {columns[index]} {values[index]} 0" for index in range(len(columns))]
    file.write_text("\n".join(lines) + "\n")


def _read(log: str, answer: Path, columns: int) -> Attempt:
    """Read what CBC prints at its end; the bounds in between have eight digits, which may be rounded up."""
    # Nothing here is unbounded, all columns being so.
    if re.search(r"proven infeasible|Problem is infeasible|says infeasible or unbounded", log):
        return Attempt(infeasible=True)
    bound = -math.inf
    # It ends with these words whether it searched or presolve left nothing to search, and with others at a limit.
    if re.search(r"Result - Optimal solution found\s*$", log, re.MULTILINE):
        found = re.search(r"^Objective value:\s+(\S+)", log, re.MULTILINE)
        bound = float(found[1]) - 1e-8 if found else bound
    else:
        found = re.search(r"^Lower bound:\s+(\S+)", log, re.MULTILINE)
        bound = float(found[1]) - 1e-3 if found else bound
    return Attempt(values=_values(answer, columns), bound=bound)


def _values(answer: Path, columns: int) -> Floats | None:
    """Read the columns that are not 0; None where the file has no answer."""
    if not answer.exists():
        return None
    lines = answer.read_text().splitlines()
    found = np.zeros(columns)
    for line in lines[1:]:
        _, name, value, *_ = line.replace("**", "").split()
        found[int(name[1:])] = float(value)
    return found if found.any() else None
