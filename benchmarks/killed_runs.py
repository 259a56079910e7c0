"""Whether a measuring run that is killed again and again ends in the table of one that was left alone.

    python benchmarks/killed_runs.py --device simulated --kills 20
    python benchmarks/killed_runs.py --device tvm --approximations default --rounds 5 --kills 20 --json killed.json

A run is killed with SIGKILL at a random moment and resumed on its store, until it ends; then another begins afresh,
until there were as many kills as asked for.  After each kill no process of it may go on; the store must pass its
integrity check, and hold all that had been seen in it before, byte for byte, and all that a reader beside the run had
seen.  At the end each resumed table is set beside that of a run that was left alone: all but latencies must be equal,
and latencies within their spread.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import planner
from costmodels import CostTable, ModelCosts
from planner.measuring.store import Store

WIDTHS = 2.0
"""Two latencies agree where they differ by no more than so many standard deviations of their difference: what the
standard deviations of a table are stated for (`planner.measuring.builds.Builds.spread_ns`)."""
MOST_KILLS = 4
"""How often one run is killed at most."""
PARTING_S = 10.0
"""How long the helpers of a killed run may take to notice."""
_LOOK_S = 0.05
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS"), "1")
"""Runs beside one another, and a reader beside them, are not to wait for each other's idle threads."""

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """State one kill.

    Attributes:
        series: Number of the run that was killed, counted with all times that it was resumed.
        seconds: How long after its start.
        seen: Rows that a reader beside it had seen.
        kept: Rows in the store afterwards.
    """

    series: int
    seconds: float
    seen: int
    kept: int


def contents(path: Path) -> Rows:
    """Return all samples, results and arrays of a store by what identifies them."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=60)) as connection:
        found: Rows = {}
        for kind, query in (
            ("sample", "SELECT what, digest, run, round, nanoseconds, control_ns, mark, time FROM samples"),
            ("result", "SELECT what, digest, NULL, NULL, run, time, value FROM results"),
            ("array", "SELECT what, digest, name, NULL, kind, shape, data FROM arrays"),
        ):
            rows = connection.execute(f"{query} JOIN subjects ON subjects.id = subject")
            found |= {(kind, *row[:4]): tuple(row[4:]) for row in rows}
    return found


def glimpse(path: Path) -> Rows:
    """Return what can be read of a store at this moment: nothing before it has its tables."""
    try:
        return contents(path) if path.exists() else {}
    except sqlite3.OperationalError:
        return {}


def faults_of(path: Path, before: Rows, *, ended: bool) -> list[str]:
    """Say what is wrong with a store.

    Args:
        path: The store.
        before: Rows that must be in it as they were.
        ended: Whether its run has ended, so that all rounds must be there.

    Returns:
        What is wrong, in words; empty where nothing is.
    """
    with Store(path, create=False) as store:
        store.check()
        running = [run["run"] for run in store.runs() if run["status"] == "running"]
    faults = [f"runs {running} are taken to be running"] if running else []
    now = contents(path)
    faults += [f"{key} was lost" for key in before.keys() - now.keys()]
    faults += [f"{key} was changed" for key in before.keys() & now.keys() if before[key] != now[key]]
    rounds: dict[tuple[Any, ...], list[int]] = {}
    for kind, what, digest, _, number in now:
        if kind == "sample":
            rounds.setdefault((what, digest), []).append(number)
    faults += [f"{key} has two samples of a round" for key, found in rounds.items() if len(set(found)) < len(found)]
    if ended:
        faults += [
            f"{key} lacks rounds: it has {sorted(found)}"
            for key, found in rounds.items()
            if sorted(found) != list(range(len(found)))
        ]
    return faults


def differences(resumed: CostTable, whole: CostTable) -> tuple[list[str], float]:
    """Set two tables side by side.

    Returns:
        What differs apart from latencies, in words; and which share of latencies lies within their spread.
    """
    faults, within = [], []
    for one, other in zip(resumed.models, whole.models, strict=True):
        faults += [f"{one.name}: {name} differs" for name in _unlike(one, other)]
        for left, right in zip(one.layers, other.layers, strict=True):
            for a, b in zip(left.choices, right.choices, strict=True):
                bare = [dataclasses.replace(c, latency_ns=0, latency_std_ns=None) for c in (a, b)]
                if bare[0] != bare[1]:
                    faults.append(f"{one.name}: {left.name} {a.name}: {bare[0]} is not {bare[1]}")
                spread = math.hypot(a.latency_std_ns or 0.0, b.latency_std_ns or 0.0)
                within.append(abs(a.latency_ns - b.latency_ns) <= WIDTHS * spread + 1)
    return faults, sum(within) / len(within)


def _unlike(one: ModelCosts, other: ModelCosts) -> list[str]:
    names = [[(layer.name, tuple(c.name for c in layer.choices)) for layer in costs.layers] for costs in (one, other)]
    edges = [[(edge.source, edge.target, edge.joins) for edge in costs.edges] for costs in (one, other)]
    unlike = ["layers and choices"] if names[0] != names[1] else []
    unlike += ["edges"] if edges[0] != edges[1] else []
    return unlike + (["reference_bytes"] if one.reference_bytes != other.reference_bytes else [])


class Trial:
    """A measurement that is run left alone once, and killed and resumed as often as asked for."""

    def __init__(self, command: Sequence[str], folder: Path, seed: int) -> None:
        """Keep the command, which lacks only where table and store go."""
        self._command = list(command)
        self._folder = folder
        self._random = random.Random(seed)  # noqa: S311 - moments, no secrets
        self.kills: list[Kill] = []
        self.faults: list[str] = []

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start the command, with a table and, unless it names one, a store of that name."""
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            return subprocess.Popen(  # noqa: S603 - a command of ours
                [*self._command, "-o", str(self._folder / f"{name}.json")],
                stdout=log,
                stderr=log,
                env={**os.environ, **_ONE_THREAD},
            )

    def _ended(self, name: str, status: int) -> CostTable:
        if status != 0:
            raise RuntimeError(f"the run ended with {status}: {(self._folder / f'{name}.log').read_text()[-2000:]}")
        return CostTable.read(self._folder / f"{name}.json")

    def whole(self) -> tuple[CostTable, float]:
        """Run once without a kill; give the table and the seconds."""
        begun = time.monotonic()
        status, _ = self._once("whole", 0, math.inf, {})
        seconds = time.monotonic() - begun
        return self._ended("whole", status or 0), seconds

    def killed(self, kills: int, longest_s: float) -> list[CostTable]:
        """Kill and resume runs until there were so many kills; give the table of each run that ended.

        Args:
            kills: How many.
            longest_s: The latest moment of a kill, seconds after a start.
        """
        tables: list[CostTable] = []
        while len(self.kills) < kills:
            name, before, ended = f"killed{len(tables)}", Rows(), False
            # Few kills of a run, so that many fall into what a resumed one has behind it.
            last = min(kills, len(self.kills) + self._random.randint(1, MOST_KILLS))
            while not ended:
                limit = self._random.uniform(0, longest_s) if len(self.kills) < last else math.inf
                status, before = self._once(name, len(tables), limit, before)
                ended = status is not None
            tables.append(self._ended(name, status or 0))
        return tables

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a run, and see that the processes it had started do not go on without it."""
        helpers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(helpers, timeout=PARTING_S)
        for helper in left:
            self.faults.append(f"process {helper.pid} went on: {' '.join(helper.cmdline())}")
            helper.kill()

    def _once(self, name: str, series: int, limit_s: float, before: Rows) -> tuple[int | None, Rows]:
        """Let a run go on for so long; give its status, None where it was killed, and the rows of its store."""
        store, begun, seen = self._folder / f"{name}.store", time.monotonic(), before
        process = self.start(name)
        try:
            while process.poll() is None and time.monotonic() - begun < limit_s:
                time.sleep(min(_LOOK_S, max(0.0, limit_s - (time.monotonic() - begun))))
                if limit_s < math.inf:
                    seen = {**seen, **glimpse(store)}
        finally:
            killed = process.poll() is None
            if killed:
                self._kill(process)
            status = process.wait()
        if store.exists():
            self.faults += faults_of(store, seen, ended=not killed)
        rows = contents(store) if store.exists() else {}
        if killed:
            self.kills.append(Kill(series=series, seconds=time.monotonic() - begun, seen=len(seen), kept=len(rows)))
        return (None if killed else status), rows


def main() -> int:
    """Run, kill, resume and compare; the status is 1 where something is lost, doubled or unlike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quick", help="shipped network")
    parser.add_argument("--device", default="simulated")
    parser.add_argument("--approximations", default="int8w,int4w,lowrank@0.5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes that measure losses")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share", type=float, default=0.95, help="share of latencies that must lie within their spread"
    )
    parser.add_argument("--json", metavar="FILE", help="where the figures go")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "planner.cli", "measure", str(planner.shipped(f"models/{arguments.model}.onnx"))]
    command += ["--data", str(planner.shipped("fashion_mnist.npz")), "--device", arguments.device]
    command += ["--approximations", arguments.approximations, "--rounds", str(arguments.rounds)]
    command += ["--jobs", str(arguments.jobs)]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(command, Path(folder), arguments.seed)
        whole, seconds = trial.whole()
        tables = trial.killed(arguments.kills, seconds)
        compared = [differences(table, whole) for table in tables]
        left = sorted({path.suffix for path in Path(folder).iterdir()} - {".json", ".store", ".log"})
    faults = trial.faults + [fault for found, _ in compared for fault in found]
    faults += [f"files that end in {', '.join(left)} were left"] if left else []
    shares = [share for _, share in compared]
    faults += [f"only {share:.1%} of latencies are within their spread" for share in shares if share < arguments.share]
    print(f"{arguments.model} on {arguments.device}: {seconds:.0f} s left alone")
    print(f"{len(trial.kills)} kills of {len(tables)} runs")
    print("| run | killed after s | rows seen by a reader | rows kept |\n|---|---|---|---|")
    for kill in trial.kills:
        print(f"| {kill.series} | {kill.seconds:.2f} | {kill.seen} | {kill.kept} |")
    print(f"latencies within their spread, by run: {', '.join(f'{share:.1%}' for share in shares)}")
    print("faults: " + ("; ".join(faults[:10]) or "none"))
    if arguments.json:
        figures = {
            **vars(arguments),
            "seconds": seconds,
            "kills": [dataclasses.asdict(kill) for kill in trial.kills],
            "within": shares,
            "faults": faults,
        }
        Path(arguments.json).write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
