"""The tables of docs/solvers.md: what the solvers reached, section by section, and what was asked of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from planner.compare import Run, contradictions

Record = dict[str, Any]

_HEAD = """\
# What the solvers reach

Made by `python benchmarks/solvers.py --json FILE --page docs/solvers.md`; `--only` measures single sections, `--mmkp
FOLDER` says where the knapsacks lie, which are not part of this repository. Every run is a process of its own, rounds
go through all instances and solvers in turn, and every answer is checked in exact integers. Instances are made by
`solvers.instances.generate` from the seed, models, layers, choices and structure in their names; times are wall-clock
seconds without what importing takes. *Gap* is (objective - bound) / objective by the solver's own bound; *above best*
is how far its objective lies above the best that any solver found; *proven by prices* is the gap that stands without
the solver's word, from the prices it gives; memory is the most that the process held, the instance included. `-` is no
answer or no bound. HiGHS, SCIP and SciPy compute in floating point: what their bounds may carry of error is taken off,
so that they often stop a hair short of *proven*, at a gap of 0.0000 %."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table in Markdown, the first column to the left, all others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def lines(records: Sequence[Record], remark: str = "") -> list[str]:
    """Write the page.

    Args:
        records: What was measured.
        remark: What is to be said of how it was measured.

    Returns:
        Its lines.
    """
    from solving import SECTIONS

    found = [*_HEAD.splitlines(), *(["", remark] if remark else [])]
    for section in SECTIONS:
        mine = [record for record in records if record["section"] == section.name]
        if not mine:
            continue
        instances = len({record["instance"] for record in mine})
        rounds = len({record["round"] for record in mine})
        limits = sorted({record["time_limit_s"] for record in mine})
        said = f"{instances} instance{'s' * (instances > 1)}, {rounds} round{'s' * (rounds > 1)}"
        found += ["", f"## {section.title}", "", f"`{section.name}`: {said}, limit {_list(limits)} s.", ""]
        if section.name == "front":
            found += _front(mine)
            continue
        found += _mmkp(mine) if section.name == "mmkp" else _solvers(mine)
        asked = _AIMS.get(section.name)
        if asked is not None:
            found += ["", *asked(mine)]
    contrary = contradictions([run for section in SECTIONS for run in _runs(records, section.name)])
    found += [
        "",
        "## Contradictions",
        "",
        *(_items(contrary) or ["No bound of any solver is above any objective found."]),
    ]
    machines = sorted({f"{r['machine']['processor']}, {r['machine']['cores']} cores" for r in records})
    versions = sorted({part for r in records for part in r.get("versions", "").split(", ") if part})
    states = sorted({record["sources"] for record in records})
    found += ["", f"Machine: {_list(machines)}. Versions: {_list(versions)}. Sources: {_list(states)}."]
    return found


def _runs(records: Iterable[Record], section: str) -> list[Run]:
    """Return what says something of an instance."""
    names = ("solver", "instance", "status", "objective", "bound", "checked")
    return [Run(**{name: r[name] for name in names}) for r in records if r["section"] == section and "bound" in r]


def _solvers(records: Sequence[Record]) -> list[str]:
    """One line a solver: medians and worst over instances, of medians over rounds."""
    best = _best(records)
    rows = []
    for solver in _names(records):
        mine = [record for record in records if record["solver"] == solver]
        seconds = list(_seconds(mine).values())
        proven = sum(all(r["status"] in ("optimal", "infeasible") for r in of) for of in _by_instance(mine).values())
        gaps = [math.inf if r["gap"] is None else 100 * r["gap"] for r in mine]
        above = [_above(record, best) for record in mine]
        alone = [_alone(record) for record in mine]
        rows.append(
            [
                f"`{solver}`",
                f"{proven} of {len(seconds)}",
                f"{median(seconds):.3f}",
                f"{max(seconds):.3f}",
                _percent(median(gaps)),
                _percent(max(gaps)),
                _percent(median(above)),
                _percent(max(above)),
                _percent(median(alone)),
                f"{max(record['most_mib'] for record in mine):.0f}",
            ]
        )
    head = (
        "solver",
        "proven",
        "seconds",
        "worst",
        "gap %",
        "worst",
        "above best %",
        "worst",
        "proven by prices %",
        "MiB",
    )
    return table(head, rows)


def _mmkp(records: Sequence[Record]) -> list[str]:
    """One line an instance: the value that each solver reached, and its proof."""
    solvers = _names(records)
    rows = []
    for instance, mine in sorted(_by_instance(records).items()):
        row = [Path(instance).name, _KNOWN.get(Path(instance).name, "-")]
        for solver in solvers:
            of_solver = [record for record in mine if record["solver"] == solver]
            row.append("-" if not of_solver else _value(of_solver[0]))
        rows.append(row)
    return [*table(["instance", "best known", *(f"`{solver}`" for solver in solvers)], rows), "", _MMKP]


_KNOWN = {"I01": "173", "I02": "364", "I03": "1602", "I04": "3597", "I05": "3905.7", "I06": "4799.3", "I07": "24592"}
"""Values in the literature; all but that of I07 are proven."""

_MMKP = "Value, bound on it where it is not proven, and seconds. Aim: I04 ≥ 3592, I07 ≥ 24,584, all others proven."


def _value(record: Record) -> str:
    if record["value"] is None:
        return str(record["status"])
    at_most = "" if record["status"] == "optimal" else f" ≤ {record['value_at_most'] or math.inf:g}"
    return f"{record['value']:g}{at_most}, {record['seconds']:.2f}"


def _front(records: Sequence[Record]) -> list[str]:
    rows = [
        [
            Path(record["instance"]).name,
            f"`{record['solver']}`",
            str(record["points"]),
            f"{record['cold_s']:.2f}",
            f"{record['seconds']:.2f}",
            f"{record['cold_s'] / record['seconds']:.2f}",
            "yes" if record["same"] else "NO",
            "yes" if record["status"] == "optimal" else "no",
            f"{record['lp_cold_s'] / record['lp_s']:.2f}",
            "yes" if record["lp_same"] else "NO",
        ]
        for record in records
    ]
    head = (
        "instance",
        "solver",
        "points",
        "cold s",
        "sweep s",
        "times faster",
        "same",
        "proven",
        "LP times faster",
        "same",
    )
    found = []
    for solver in _names(records):
        speedups = [record["cold_s"] / record["seconds"] for record in records if record["solver"] == solver]
        found.append(f"`{solver}`: the sweep is {median(speedups):.2f} times faster (median)")
    cold = {record["instance"]: record["cold_s"] for record in records if record["solver"] == "cpsat"}
    against = [cold[r["instance"]] / r["seconds"] for r in records if r["solver"] == "auto" and r["instance"] in cold]
    if against:
        found.append(f"the sweep of `auto` against cold solves by `cpsat`: {median(against):.2f} times faster (median)")
    relaxed = median(record["lp_cold_s"] / record["lp_s"] for record in records)
    found.append(f"linear relaxation: {relaxed:.2f} times faster (median)")
    asked = (
        "Aim: 50 points ≥ 2.5 times faster than 50 cold solves, the same objectives; the linear relaxation ≥ 5 times."
    )
    return [*table(head, rows), "", asked, "", *_items(found)]


def _one_model(records: Sequence[Record]) -> list[str]:
    seconds = {solver: _seconds([r for r in records if r["solver"] == solver]) for solver in _names(records)}
    found = []
    if "auto" in seconds:
        auto = seconds["auto"]
        found.append(
            f"Aim of `auto`: proven in ≤ 0.5 s. Median {median(auto.values()):.3f} s, worst {max(auto.values()):.3f} s."
        )
        if {"cpsat", "highs"} <= seconds.keys():
            ratios = [auto[i] / min(seconds["cpsat"][i], seconds["highs"][i]) for i in auto]
            found.append(
                "Aim: never slower than 1.2 times the faster of CP-SAT alone and HiGHS alone. "
                f"Median {median(ratios):.2f} times, worst {max(ratios):.2f} times."
            )
        if "cbc" in seconds:
            ratios = [seconds["cbc"][i] / auto[i] for i in auto]
            found.append(
                f"Aim: ≥ 3 times faster than CBC. Median {median(ratios):.2f} times, least {min(ratios):.2f} times."
            )
    return _items(found)


def _many_models(records: Sequence[Record]) -> list[str]:
    auto = {record["instance"]: record for record in records if record["solver"] == "auto"}
    found = []
    for instance, mine in _by_instance(records).items():
        others = [
            r["objective"] for r in mine if r["solver"] in ("cpsat", "highs", "scip") and r["objective"] is not None
        ]
        record = auto.get(instance)
        if record is None or record["objective"] is None or not others:
            continue
        ratio = record["objective"] / min(others)
        gap = math.inf if record["gap"] is None else 100 * record["gap"]
        found.append(f"`{instance}`: `auto` / best of CP-SAT, HiGHS and SCIP {ratio:.5f}, its gap {_percent(gap)} %")
    return ["Aim of `auto`: no worse than the best of the three in the same time, gap ≤ 0.5 %.", "", *_items(found)]


def _large(aim: str, gap: float) -> Callable[[Sequence[Record]], list[str]]:
    """Say when each solver came below a gap, from what it told while it ran."""

    def said(records: Sequence[Record]) -> list[str]:
        found = []
        for solver in _names(records):
            mine = [record for record in records if record["solver"] == solver]
            times = [_when(record, gap) for record in mine]
            reached = [seconds for seconds in times if seconds is not None]
            if reached:
                found.append(
                    f"`{solver}`: gap ≤ {100 * gap:g} % on {len(reached)} of {len(mine)}, "
                    f"after {median(reached):.2f} s (median), {max(reached):.2f} s (worst)"
                )
            else:
                found.append(f"`{solver}`: gap ≤ {100 * gap:g} % on none of {len(mine)}")
        return [f"Aim: {aim}.", "", *_items(found)]

    return said


_AIMS: dict[str, Callable[[Sequence[Record]], list[str]]] = {
    "one-model": _one_model,
    "small-models": _one_model,
    "many-models": _many_models,
    "ten-thousand": _large("gap ≤ 0.03 % in ≤ 2 s", 3e-4),
    "hundred-thousand": _large("gap ≤ 0.05 % in ≤ 10 s, at best 0.02 %, memory ≤ 2 GB", 5e-4),
    "million": _large("gap ≤ 0.1 %", 1e-3),
    "chains-with-pairs": _large("gap ≤ 0.3 %", 3e-3),
}


def _when(record: Record, gap: float) -> float | None:
    """Return the first moment at which the gap was reached; None where it was not."""
    for seconds, objective, bound in record["moments"]:
        if objective is not None and bound is not None and objective - bound <= gap * objective:
            return float(seconds)
    return record["seconds"] if record["gap"] is not None and record["gap"] <= gap else None


def _names(records: Iterable[Record]) -> list[str]:
    """List the solvers, in the order of what they are promised to do."""
    from solving import EXACT, HEURISTIC

    there = dict.fromkeys(record["solver"] for record in records)
    known = [name for name in (*EXACT, *HEURISTIC) if name in there]
    return [*known, *(name for name in there if name not in known)]


def _by_instance(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["instance"], []).append(record)
    return found


def _seconds(records: Iterable[Record]) -> dict[str, float]:
    """Return the median over rounds for each instance."""
    return {instance: median(r["seconds"] for r in mine) for instance, mine in _by_instance(records).items()}


def _best(records: Iterable[Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in records:
        if record["objective"] is not None:
            found[record["instance"]] = min(record["objective"], found.get(record["instance"], record["objective"]))
    return found


def _above(record: Record, best: dict[str, int]) -> float:
    if record["objective"] is None:
        return math.inf
    least = best[record["instance"]]
    return 0.0 if record["objective"] == least else 100 * (record["objective"] / least - 1 if least else math.inf)


def _alone(record: Record) -> float:
    """Return the gap that stands without the solver's word, in percent."""
    if record["objective"] is None or record["proven"] is None:
        return math.inf
    if record["objective"] == record["proven"]:
        return 0.0
    return 100 * (record["objective"] - record["proven"]) / record["objective"]


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return "0" if value == 0 else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _list(values: Iterable[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _items(sentences: Iterable[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]
