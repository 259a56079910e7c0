"""``blinkplan plan``: pick a choice for every layer."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import add_budget, add_solver, budget, check_writable, say

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("plan", help="pick a choice for every layer, within bounds")
    parser.add_argument("table", metavar="TABLE", help="cost table, .json or .csv")
    add_budget(parser)
    add_solver(parser)
    parser.add_argument(
        "--objective", choices=("loss", "worst", "latency", "memory"), default="loss", help="what is minimised"
    )
    parser.add_argument("-o", "--output", metavar="PLAN", help="where to write the plan, such as plan.json")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, show the plan, and write it."""
    from costmodels import CostTable
    from planner.planning import find_solver, plan

    check_writable(arguments.output)
    find_solver(arguments.solver)
    allowed = budget(arguments)
    found = plan(
        CostTable.read(arguments.table),
        allowed,
        arguments.solver,
        objective=arguments.objective,
        time_limit_s=arguments.time_limit_s,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    if arguments.output is not None:
        found.write(arguments.output)
    say(found)
    return 0
