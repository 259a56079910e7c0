"""What several commands share: the arguments of a budget and a solver, and where output goes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from planner.budget import Budget, Number
from planner.errors import InputError

__all__ = ["add_budget", "add_solver", "budget", "check_writable", "latency", "say", "say_aside"]


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a budget."""
    parser.add_argument("--latency-ms", metavar="MS", help="bound for each model: 2, or quick=2,vggs=4")
    parser.add_argument("--memory-mib", metavar="MIB", help="bound on weights and activations of all models together")
    parser.add_argument("--loss", metavar="LOSS", help="bound on the increase of the cross-entropy")
    add_budget_form(parser)


def add_budget_form(parser: argparse.ArgumentParser) -> None:
    """Add how a budget is to be read."""
    parser.add_argument(
        "--arena",
        choices=("shared", "separate"),
        default="shared",
        help="do the models share activation memory?",
    )
    parser.add_argument(
        "--latency-quantile",
        type=float,
        default=0.5,
        metavar="Q",
        help="quantile of the latency that is bound",
    )


def add_solver(parser: argparse.ArgumentParser, time_limit_s: float = 30.0) -> None:
    """Add the arguments of a solver."""
    parser.add_argument("--solver", default="auto", help="name of the solver (default: auto)")
    add_limits(parser, time_limit_s)


def add_limits(parser: argparse.ArgumentParser, time_limit_s: float = 30.0) -> None:
    """Add the limits of a solver."""
    parser.add_argument("--time-limit-s", type=float, default=time_limit_s, metavar="S", help="seconds for solving")
    parser.add_argument("--seed", type=int, default=0, help="seed of the solver")
    parser.add_argument("--workers", type=int, help="threads of the solver (default: all)")


def budget(arguments: argparse.Namespace) -> Budget:
    """Read a budget from the arguments of ``add_budget``."""
    return Budget(
        latency_ms=None if arguments.latency_ms is None else latency(arguments.latency_ms),
        memory_mib=arguments.memory_mib,
        loss=arguments.loss,
        arena=arguments.arena,
        latency_quantile=arguments.latency_quantile,
    )


def latency(text: str) -> Number | dict[str, Number | None]:
    """Read ``2`` or ``quick=2,vggs=4``."""
    if "=" not in text:
        return text
    found: dict[str, Number | None] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not number:
            raise InputError(f"the latency bound {text!r} has the part {part!r}; expected model=milliseconds")
        if name in found:
            raise InputError(f"the latency bound {text!r} names the model {name!r} twice")
        found[name] = number
    return found


def check_writable(path: str | None) -> None:
    """Refuse a file that could not be written, before any time is spent on what is to go there."""
    if path is None:
        return
    folder = Path(path).parent
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written to: {error.strerror}") from None


def say(text: object) -> None:
    """Write to standard output."""
    sys.stdout.write(f"{text}\n")


def say_aside(text: object) -> None:
    """Write to standard error what is not the command's result."""
    sys.stderr.write(f"{text}\n")
