"""The command line: ``blinkplan COMMAND``; every command is one file in ``planner/commands``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from costmodels import TableError
from planner.errors import InfeasibleError, InputError, LimitError
from planner.registry import discover, get

__all__ = ["BAD_INPUT", "BROKEN", "INTERNAL", "KEPT", "LIMIT", "NO_PLAN", "main"]

KEPT, BROKEN, BAD_INPUT, NO_PLAN, LIMIT, INTERNAL = 0, 1, 2, 3, 4, 70
"""Exit status: promises kept, one broken, bad input, no plan, the limit came first, a fault of ours."""
_INTERRUPTED = 130
_STATUS: dict[type[Exception], tuple[int, str]] = {
    InputError: (BAD_INPUT, "error"),
    TableError: (BAD_INPUT, "error"),
    InfeasibleError: (NO_PLAN, "no plan"),
    LimitError: (LIMIT, "limit"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after ``blinkplan``; None takes those of the process.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    level = logging.INFO if arguments.verbose else logging.WARNING
    logging.basicConfig(level=level, format="blinkplan: %(levelname)s: %(message)s", stream=sys.stderr, force=True)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except (InputError, TableError, InfeasibleError, LimitError) as error:
        status, word = next(said for kind, said in _STATUS.items() if isinstance(error, kind))
        return _fail(status, f"{word}: {error}")
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return KEPT
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "interrupted")
    except Exception:  # noqa: BLE001 - the outermost place: whatever is left is a fault of ours, and is shown whole
        return _fail(INTERNAL, f"internal error, which is a fault of blinkplan:\n{traceback.format_exc()}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blinkplan",
        description="Plan which approximation each layer takes, within bounds on latency and memory.",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on the way")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in discover("planner.commands"):
        get("planner.commands", name).register(subparsers)
    return parser


def _fail(status: int, message: str) -> int:
    sys.stderr.write(f"blinkplan: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
