"""``blinkplan build``: build a plan, or build again from a build config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from planner.commands._shared import say
from planner.errors import InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("build", help="build a plan with TVM, or build again from a build config")
    parser.add_argument("plan", metavar="PLAN", help="plan.json, or the tvm_build.json of an earlier build")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=ONNX", help="a network of the plan; once for each"
    )
    parser.add_argument("--data", metavar="DATA", help="labelled images that calibrate approximations and refit")
    parser.add_argument("--threads", type=int, default=1, help="threads that kernels may spread over (default: 1)")
    parser.add_argument(
        "--search",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="measure other schedules than the heuristics choose for so long (default: 0, not at all)",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder of the build")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build, and say where it is."""
    import planner
    from planner import dataset

    if _is_config(arguments.plan):
        if arguments.model or arguments.data:
            raise InputError("a build config brings its networks with it; expected no --model and no --data")
        if arguments.search:
            raise InputError("a build config says how every kernel is scheduled; expected no --search")
        say(planner.rebuild(arguments.plan, out=arguments.output))
        return 0
    plan = planner.Plan.read(arguments.plan)
    if not arguments.data:
        raise InputError("--data is missing; expected labelled images, which calibrate the approximations")
    if not arguments.search >= 0:
        raise InputError(f"--search is {arguments.search}; expected seconds, 0 or more")
    data = dataset.read(arguments.data)
    models = []
    for text in arguments.model:
        name, equals, path = text.partition("=")
        if not equals:
            raise InputError(f"--model is {text!r}; expected name=file.onnx")
        models.append(planner.load(path, data=data, name=name))
    say(planner.build(plan, models, out=arguments.output, threads=arguments.threads, search_s=arguments.search))
    return 0


def _is_config(path: str) -> bool:
    """Tell a build config from a plan by what it says of itself."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: neither a plan nor a build config: {error}") from None
    return isinstance(found, dict) and found.get("kind") == "blinkplan tvm build"
