"""``blinkplan demo``: the whole way on a shipped network, from its file to a measured promise."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from planner.commands._shared import check_writable, say

__all__ = ["register", "run"]

LATENCY_SHARE = 0.6
MEMORY_SHARE = 0.5


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("demo", help="measure, plan, build and verify a shipped network")
    parser.add_argument("--model", default="quick", help="shipped network: quick, resnet8, vggs or vgg16q")
    parser.add_argument(
        "--latency", type=float, default=LATENCY_SHARE, metavar="SHARE", help="of the exact build (default: 0.6)"
    )
    parser.add_argument(
        "--memory", type=float, default=MEMORY_SHARE, metavar="SHARE", help="of the exact build (default: 0.5)"
    )
    parser.add_argument("-o", "--output", default="demo", metavar="FOLDER", help="where results go (default: demo)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; the status is 1 where the build breaks a bound in spite of corrections."""
    import planner
    from costmodels import write_aside
    from planner import report as reports
    from planner.commands._progress import progress
    from planner.compare import relative_budget

    out = Path(arguments.output)
    out.mkdir(parents=True, exist_ok=True)
    check_writable(str(out / "table.json"))
    model = planner.load(planner.shipped(f"models/{arguments.model}.onnx"), data=planner.shipped("fashion_mnist.npz"))
    say(model)
    with progress() as tell:
        table = planner.measure([model], store=out / "table.store", progress=tell)
        table.write(out / "table.json")
        budget = relative_budget(table, latency=arguments.latency, memory=arguments.memory)
        tell("planning, building, verifying", 0, 2)
        done = planner.deploy(table, budget, [model], out=out / "build")
        tell("planning, building, verifying", 1, 2)
        frontier = reports.surroundings(done.table, done.plan)
        tell("planning, building, verifying", 2, 2)
    done.plan.write(out / "plan.json")
    done.report.write(out / "report.json")
    reports.picture(frontier, done.plan, done.report).savefig(out / "picture.png", dpi=110)
    write_aside(out / "report.html", reports.page(done.plan, frontier, done.report))
    say(f"\n{done.plan}\n\n{done.report}")
    say(f"\nplan layer by layer, and the picture: {out / 'report.html'}")
    return 0 if done.report.ok else 1
