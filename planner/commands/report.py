"""``blinkplan report``: a plan as a page, with its measurement if there is one."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import check_writable, say
from planner.errors import InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("report", help="write a plan as an HTML page, with promised beside measured")
    parser.add_argument("plan", metavar="PLAN", help="plan.json")
    parser.add_argument("--table", required=True, metavar="TABLE", help="cost table that the plan was made from")
    parser.add_argument("--report", metavar="REPORT", help="report.json of verify")
    parser.add_argument("-o", "--output", required=True, metavar="HTML", help="where to write the page")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the plan, look around it, and write the page."""
    from costmodels import CostTable, write_aside
    from planner import report as reports
    from planner.plan import Plan
    from planner.verify import Report

    check_writable(arguments.output)
    plan, table = Plan.read(arguments.plan), CostTable.read(arguments.table)
    if plan.table_digest != table.digest:
        raise InputError(
            f"{arguments.plan}: made from the table {plan.table_digest[:12]}…, not from {arguments.table}, "
            f"which is {table.digest[:12]}…"
        )
    measured = None if arguments.report is None else Report.read(arguments.report)
    write_aside(arguments.output, reports.page(plan, reports.surroundings(table, plan), measured))
    say(arguments.output)
    return 0
