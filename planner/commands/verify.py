"""``blinkplan verify``: measure a build and hold it against what was promised."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import check_writable, say

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("verify", help="measure a build: promised beside measured")
    parser.add_argument("build", metavar="FOLDER", help="folder of the build")
    parser.add_argument("--data", required=True, metavar="DATA", help="labelled images; the test images are used")
    parser.add_argument("-o", "--output", metavar="REPORT", help="where to write the report, such as report.json")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify and show; the status is 1 where a bound is broken."""
    from planner.verify import verify

    check_writable(arguments.output)
    report = verify(arguments.build, data=arguments.data)
    if arguments.output is not None:
        report.write(arguments.output)
    say(report)
    return 0 if report.ok else 1
