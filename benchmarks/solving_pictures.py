"""The pictures of docs/solvers.md: performance profiles, and gaps over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from planner.compare import Run
from planner.curves import Curve, Moment, draw_curves, fold
from planner.profiles import draw_profile

Record = dict[str, Any]

PROFILED = ("one-model", "small-models", "one-model-pairs")
"""Sections in which solvers are to prove what they find."""
TRACED = "many-models"
_NEARLY = 1e-6


def runs(records: Sequence[Record]) -> list[Run]:
    """Return one run for each instance and solver, its seconds the median over rounds."""
    of: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        of.setdefault((record["instance"], record["solver"]), []).append(record)
    return [
        Run(
            solver=solver,
            instance=instance,
            status=mine[0]["status"],
            gap=mine[0]["gap"],
            objective=mine[0]["objective"],
            seconds=median(record["seconds"] for record in mine),
            checked=all(record["checked"] is not False for record in mine),
        )
        for (instance, solver), mine in of.items()
    ]


def curves(records: Sequence[Record]) -> list[Curve]:
    """Return what solvers told while they ran, and what came of it, for each instance and solver once."""
    found = {}
    for record in records:
        moments = [Moment(seconds=s, objective=objective, bound=bound) for s, objective, bound in record["moments"]]
        moments.append(Moment(seconds=record["seconds"], objective=record["objective"], bound=record["bound"]))
        key = (record["instance"], record["solver"])
        found[key] = Curve(solver=record["solver"], instance=record["instance"], how="traced", moments=fold(moments))
    return list(found.values())


def draw(records: Sequence[Record], page: Path) -> list[str]:
    """Draw what there are records of, beside the page.

    Args:
        records: What was measured.
        page: The page; the pictures are named after it.

    Returns:
        Lines that show the pictures.
    """
    lines = []
    profiled = runs([record for record in records if record["section"] in PROFILED])
    if profiled:
        picture = page.with_name(f"{page.stem}-profile.svg")
        # Solvers of floating point stop a hair short of a proof: their bounds are less what their arithmetic may carry.
        draw_profile(profiled, picture, gap=_NEARLY)
        lines += ["", f"![Share of instances proven within a factor of the fastest solver's time]({picture.name})"]
    traced = curves([record for record in records if record["section"] == TRACED])
    if traced:
        picture = page.with_name(f"{page.stem}-gaps.svg")
        draw_curves(traced, picture)
        lines += ["", f"![Gaps over time, 10 models with pairs and peaks]({picture.name})"]
    return lines
