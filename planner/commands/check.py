"""``blinkplan check``: look at a plan or a solution again, with exact arithmetic and no solver."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import say

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("check", help="check a plan or a solution, without a solver")
    parser.add_argument(
        "plan",
        metavar="PLAN",
        help="what `blinkplan plan` wrote, or a solution that `blinkplan compare-solvers` saved",
    )
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("--table", metavar="TABLE", help="the cost table that the plan was made from")
    against.add_argument(
        "--problem",
        metavar="FILE",
        help="the problem that the solution answers: .json, .npz, or a knapsack in its text format",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every figure; the status is 1 where something is wrong."""
    if arguments.problem is not None:
        return _solution(arguments.plan, arguments.problem)
    from costmodels import CostTable
    from planner.plan import Plan, check

    wrong = check(Plan.read(arguments.plan), CostTable.read(arguments.table))
    for sentence in wrong:
        say(f"broken: {sentence}")
    if not wrong:
        say("kept: every figure agrees with the table, and every bound is kept")
    return 1 if wrong else 0


def _solution(solution: str, problem: str) -> int:
    """Check a solution against its problem."""
    from planner.errors import InputError
    from solvers import certificate
    from solvers.instances import files
    from solvers.instances.mmkp import Knapsack

    try:
        found, given = certificate.read(solution), files.read(problem)
    except (certificate.CertificateError, files.ProblemFileError) as error:
        raise InputError(str(error)) from None
    verdict = certificate.verify(found, given.problem if isinstance(given, Knapsack) else given)
    for sentence in verdict.wrong:
        say(f"broken: {sentence}")
    answer = found.solution
    if not verdict.wrong and answer.objective is not None:
        worth = f", a value of {given.value(answer.objective)}" if isinstance(given, Knapsack) else ""
        say(f"kept: the choice costs {answer.objective}{worth}, and every capacity is kept")
    say(verdict.said)
    return 1 if verdict.wrong else 0
