"""``blinkplan check``: look at a plan again, with exact arithmetic and no solver."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import say

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("check", help="check a plan against its table, without a solver")
    parser.add_argument("plan", metavar="PLAN", help="what `blinkplan plan` wrote")
    parser.add_argument("--table", required=True, metavar="TABLE", help="the cost table it was made from")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every figure; the status is 1 where something is wrong."""
    from costmodels import CostTable
    from planner.plan import Plan, check

    wrong = check(Plan.read(arguments.plan), CostTable.read(arguments.table))
    for sentence in wrong:
        say(f"broken: {sentence}")
    if not wrong:
        say("kept: every figure agrees with the table, and every bound is kept")
    return 1 if wrong else 0
