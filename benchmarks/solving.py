"""What the solvers are promised to do, measured: which instances, which solvers, how long, how often.

    python benchmarks/solvers.py --only one-model --json build/solvers.json
    python benchmarks/solvers.py --only mmkp --mmkp FOLDER --json build/solvers.json --page docs/solvers.md

Every run is a process of its own. Rounds go through all instances, and through all solvers within each, so that what
else a machine does meets all of them. Records are kept in the JSON file: sections can be measured one after the other,
and what is there already is not measured again unless the sources changed (``--keep`` keeps those records too).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costmodels import write_aside

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
Record = dict[str, Any]

EXACT = ("auto", "lagrangian", "core", "cpsat", "highs", "scip", "scipy", "cbc")
HEURISTIC = ("greedy", "anneal", "nsga2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One class of instances.

    Attributes:
        name: Its name on the command line.
        title: What the page calls it.
        instances: Lines for the generator; empty where they are files or made by the section itself.
        solvers: Names of the solvers; those that are not installed are left out.
        time_limit_s: Seconds for each run.
        rounds: How often everything is run.
        gap: The gap at which solvers stop.
        script: What measures one instance and solver.
    """

    name: str
    title: str
    instances: tuple[str, ...]
    solvers: tuple[str, ...]
    time_limit_s: float
    rounds: int = 1
    gap: float = 0.0
    script: str = "solving_trial.py"


def _seeds(text: str, count: int = 5) -> tuple[str, ...]:
    return tuple(f"{seed},{text}" for seed in range(count))


SECTIONS = (
    Section(
        name="one-model",
        title="One model of 200 layers with 12 choices",
        instances=_seeds("1,200,12,chain"),
        solvers=EXACT,
        time_limit_s=10.0,
        rounds=3,
    ),
    Section(
        name="heuristics",
        title="The same instances, and what heuristics make of them",
        instances=_seeds("1,200,12,chain"),
        solvers=("auto", *HEURISTIC),
        time_limit_s=10.0,
    ),
    Section(
        name="small-models",
        title="One model of 20 to 100 layers with 8 choices",
        instances=tuple(f"{seed},1,{layers},8,chain" for seed, layers in enumerate((20, 40, 60, 80, 100))),
        solvers=EXACT,
        time_limit_s=10.0,
        rounds=3,
    ),
    Section(
        name="one-model-pairs",
        title="One model of 100 layers with 12 choices, skips, pairs and peaks",
        instances=_seeds("1,100,12,skips,pairs,peaks"),
        solvers=("auto", "lagrangian", "cpsat", "highs", "scip"),
        time_limit_s=10.0,
    ),
    Section(
        name="many-models",
        title="10 models, 700 to 800 layers with 8 choices, pairs and peaks",
        instances=tuple(
            f"{seed},10,70-80,8,{topology},pairs,peaks"
            for seed, topology in enumerate(("chain", "skips", "branches", "skips", "branches"))
        ),
        solvers=("auto", "lagrangian", "cpsat", "highs", "scip", *HEURISTIC),
        time_limit_s=10.0,
    ),
    Section(
        name="ten-thousand",
        title="100 models, 10,000 layers with 8 choices",
        instances=_seeds("100,100,8,chain"),
        solvers=("auto", "lagrangian", "greedy", "anneal"),
        time_limit_s=2.0,
    ),
    Section(
        name="hundred-thousand",
        title="1,000 models, 100,000 layers with 8 choices",
        instances=_seeds("1000,100,8,chain"),
        solvers=("auto", "lagrangian", "greedy"),
        time_limit_s=10.0,
    ),
    Section(
        name="million",
        title="1,000 models, 1,000,000 layers with 8 choices",
        instances=_seeds("1000,1000,8,chain", 1),
        solvers=("auto", "lagrangian"),
        time_limit_s=60.0,
    ),
    Section(
        name="chains-with-pairs",
        title="1,000 models, 100,000 layers with 8 choices, pairs",
        instances=_seeds("1000,100,8,chain,pairs"),
        solvers=("auto", "lagrangian"),
        time_limit_s=30.0,
    ),
    Section(
        name="mmkp",
        title="Multiple-choice knapsacks of S. Khan",
        instances=(),
        solvers=("auto", "lagrangian", "cpsat", "highs", "scip", "cbc"),
        time_limit_s=60.0,
    ),
    Section(
        name="front",
        title="A front of 50 points of one model of 100 layers with 8 choices",
        instances=_seeds("1,100,8,chain"),
        solvers=("auto", "cpsat", "highs"),
        time_limit_s=60.0,
        script="solving_front.py",
    ),
)


def sources() -> str:
    """Digest the sources of the solvers: records of others are measured anew."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "solvers").rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """Say what is measured on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": cores, "python": platform.python_version(), "system": platform.system()}


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("section", "instance", "solver", "round", "time_limit_s"))


def _wanted(arguments: argparse.Namespace, available: Sequence[str]) -> Iterator[tuple[Section, Record]]:
    """List the runs that are asked for, interleaved."""
    for section in SECTIONS:
        if section.name not in arguments.only:
            continue
        instances: Sequence[str] = arguments.instances or section.instances
        if section.name == "mmkp":
            if arguments.mmkp is None and not arguments.instances:
                sys.stderr.write("mmkp: left out, for --mmkp names no folder\n")
                continue
            folder = arguments.mmkp
            instances = arguments.instances or sorted(str(path) for path in folder.glob("I[0-9]*") if path.is_file())
        names = [name for name in arguments.solvers or section.solvers if name in available]
        for turn in range(arguments.rounds or section.rounds):
            for instance in instances:
                for solver in names:
                    yield (
                        section,
                        {
                            "section": section.name,
                            "instance": instance,
                            "solver": solver,
                            "round": turn,
                            "time_limit_s": arguments.time_limit_s or section.time_limit_s,
                            "workers": arguments.workers,
                            "gap": section.gap,
                        },
                    )


def run(arguments: argparse.Namespace, records: list[Record]) -> tuple[list[Record], list[str]]:
    """Measure what is asked for and missing; records are kept after each run.

    Returns:
        All records, and the runs that failed.
    """
    import solvers

    available, digest = solvers.available(), sources()
    kept = {_key(record): record for record in records if arguments.keep or record["sources"] == digest}
    done = {_key(record): record for record in records}
    failed: list[str] = []
    for section, given in _wanted(arguments, available):
        if _key(given) in kept:
            continue
        command = [*arguments.through, sys.executable, str(HERE / section.script), json.dumps(given)]
        # A grace for what is no part of solving: making the instance, importing, checking.
        grace = 600 + 10 * given["time_limit_s"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=grace, cwd=ROOT)  # noqa: S603
        if finished.returncode:
            failed.append(f"{given['section']} {given['instance']} {given['solver']}")
            sys.stderr.write(f"{finished.stderr}{failed[-1]} failed\n")
            continue
        record = given | json.loads(finished.stdout.splitlines()[-1]) | {"sources": digest, "machine": machine()}
        done[_key(record)] = record
        if arguments.json is not None:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            write_aside(arguments.json, json.dumps(list(done.values()), indent=1) + "\n")
        gap = "" if record.get("gap") is None else f", gap {100 * record['gap']:.4f} %"
        said = f"{record['seconds']:.2f} s{gap}, {record['most_mib']:.0f} MiB"
        sys.stderr.write(
            f"{given['section']} {given['instance']} {given['solver']} #{given['round']}: {record['status']}, {said}\n"
        )
        sys.stderr.flush()
    return list(done.values()), failed


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and write records and page."""
    every = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def comma(text: str) -> list[str]:
        return text.split(",") if text else []

    parser.add_argument("--only", type=comma, default=every, help=f"some of {','.join(every)}")
    parser.add_argument("--solvers", type=comma, help="only these")
    parser.add_argument("--instances", action="append", metavar="LINE", help="these instead of the sections' own")
    parser.add_argument("--mmkp", type=Path, metavar="FOLDER", help="where the knapsacks I01 and so on lie")
    parser.add_argument("--time-limit-s", type=float, help="seconds for each run instead of the sections' own")
    parser.add_argument("--rounds", type=int, help="how often everything is run instead of the sections' own")
    parser.add_argument("--workers", type=int, help="threads of the solvers (default: all)")
    parser.add_argument(
        "--through", type=str.split, default=[], help="command that each run goes through: 'taskset -c 1'"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where records are kept")
    parser.add_argument("--keep", action="store_true", help="keep records that other sources made")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where to write the tables, such as docs/solvers.md")
    parser.add_argument("--remark", default="", help="what the page is to say of how it was measured")
    arguments = parser.parse_args(given)
    unknown = sorted(set(arguments.only) - set(every))
    if unknown:
        parser.error(f"no section {unknown[0]!r}; expected some of {', '.join(every)}")
    records: list[Record] = []
    if arguments.json is not None and arguments.json.is_file():
        records = json.loads(arguments.json.read_text(encoding="utf-8"))
    records, failed = run(arguments, records)
    from solving_page import lines

    if arguments.page is None:
        sys.stdout.write("\n".join(lines(records, arguments.remark)) + "\n")
        return 1 if failed else 0
    from solving_pictures import draw

    write_aside(arguments.page, "\n".join([*lines(records, arguments.remark), *draw(records, arguments.page)]) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
