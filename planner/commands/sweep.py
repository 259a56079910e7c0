"""``blinkplan sweep``: plan over many bounds."""

from __future__ import annotations

import argparse
from typing import Any

from planner.budget import Budget
from planner.commands._shared import add_budget_form, add_solver, check_writable, latency, say
from planner.errors import InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("sweep", help="plan over many bounds: every latency with every memory given")
    parser.add_argument("table", metavar="TABLE", help="cost table, .json or .csv")
    parser.add_argument("--latency-ms", nargs="+", metavar="MS", help="bounds: 1 2 3, or quick=1,vggs=2 quick=2,vggs=4")
    parser.add_argument("--memory-mib", nargs="+", metavar="MIB", help="bounds: 0.25 0.5 1")
    parser.add_argument("--loss", metavar="LOSS", help="bound on the increase of the cross-entropy")
    add_budget_form(parser)
    add_solver(parser)
    parser.add_argument(
        "--objective", choices=("loss", "worst", "latency", "memory"), default="loss", help="what is minimised"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes that plan points side by side (default: 1)"
    )
    parser.add_argument("-o", "--output", metavar="CSV", help="where to write the points, one line each")
    parser.add_argument("--plot", metavar="IMAGE", help="where to draw them, such as frontier.svg")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan each combination, show the points, and write them; the status is 3 where no point has a plan."""
    from costmodels import CostTable
    from planner.measuring.losses import pool
    from planner.whatif import sweep

    check_writable(arguments.output)
    check_writable(arguments.plot)
    if arguments.jobs < 1:
        raise InputError(f"--jobs is {arguments.jobs}; expected at least 1")
    with pool(arguments.jobs) as executor:
        frontier = sweep(
            CostTable.read(arguments.table),
            Budget(loss=arguments.loss, arena=arguments.arena, latency_quantile=arguments.latency_quantile),
            latency_ms=None if arguments.latency_ms is None else [latency(text) for text in arguments.latency_ms],
            memory_mib=arguments.memory_mib,
            solver=arguments.solver,
            objective=arguments.objective,
            time_limit_s=arguments.time_limit_s,
            seed=arguments.seed,
            workers=arguments.workers,
            executor=executor,
        )
    if arguments.output is not None:
        frontier.write(arguments.output)
    if arguments.plot is not None:
        frontier.draw(arguments.plot)
    say(frontier.to_frame().drop(columns="reason").to_string(index=False, na_rep="-"))
    for reason in dict.fromkeys(point.reason for point in frontier.points if point.reason):
        say(reason)
    return 0 if frontier.plans else (3 if all(point.status == "infeasible" for point in frontier.points) else 4)
