"""``blinkplan compare-solvers``: put solvers side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from planner.commands._shared import add_budget, add_limits, budget, check_writable, say

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("compare-solvers", help="let several solvers plan the same tables")
    parser.add_argument("tables", metavar="TABLE", nargs="*", help="cost tables, .json or .csv")
    parser.add_argument(
        "--generate",
        metavar="SEED,MODELS,LAYERS,CHOICES",
        action="append",
        default=[],
        help="a made-up table; its budget is 0.6 of the exact latency and half of the exact memory",
    )
    add_budget(parser)
    parser.add_argument("--solvers", metavar="S,S", help="names of the solvers (default: all that are installed)")
    add_limits(parser, time_limit_s=10.0)
    parser.add_argument("-o", "--output", metavar="CSV", help="where to write the comparison")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, show, and write; the status is 1 where a plan was found wrong."""
    from costmodels import CostTable
    from planner.compare import compare_solvers, generate, relative_budget

    check_writable(arguments.output)
    tables = {Path(path).name: CostTable.read(path) for path in arguments.tables}
    budgets = dict.fromkeys(tables, budget(arguments))
    for text in arguments.generate:
        name = f"generated-{text}"
        tables[name] = generate(*_numbers(text))
        budgets[name] = relative_budget(tables[name])
    comparison = compare_solvers(
        tables,
        budgets,
        None if arguments.solvers is None else [name.strip() for name in arguments.solvers.split(",")],
        time_limit_s=arguments.time_limit_s,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    if arguments.output is not None:
        comparison.write(arguments.output)
    say(comparison)
    return 1 if any(run.checked is False for run in comparison.runs) else 0


def _numbers(text: str) -> tuple[int, int, int, int]:
    from planner.errors import InputError

    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--generate is {text!r}; expected SEED,MODELS,LAYERS,CHOICES such as 0,1,50,8")
    seed, models, layers, choices = (int(part) for part in parts)
    return seed, models, layers, choices
