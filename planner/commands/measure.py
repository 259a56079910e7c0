"""``blinkplan measure``: measure networks into a cost table."""

from __future__ import annotations

import argparse
from typing import Any

from planner.commands._shared import check_writable, say
from planner.errors import InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("measure", help="measure what every choice of every layer costs, into a table")
    parser.add_argument("models", nargs="+", metavar="ONNX", help="networks: quick.onnx, or name=file.onnx")
    parser.add_argument("--data", required=True, metavar="DATA", help="labelled images: an .npz or a folder")
    parser.add_argument("--device", default="tvm", help="name of the device (default: tvm)")
    parser.add_argument("--threads", type=int, default=1, help="threads that a network may use (default: 1)")
    parser.add_argument(
        "--approximations", default="default", metavar="A,B", help="approximations or choices (default: all)"
    )
    parser.add_argument("--no-refit", action="store_true", help="do not refit layers behind an approximated one")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of timing (default: 25)")
    parser.add_argument("--input-shape", metavar="1,C,H,W", help="shape of the input, where a file leaves it open")
    parser.add_argument("-o", "--output", required=True, metavar="TABLE", help="cost table, .json or .csv")
    parser.add_argument(
        "--store", metavar="FILE", help="where samples are kept and found again (default: beside the table, .store)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, show the table and write it; what earlier runs had finished is taken from the store."""
    from pathlib import Path

    import planner
    from planner import dataset
    from planner.commands._progress import progress
    from planner.devices import open_device

    check_writable(arguments.output)
    if Path(arguments.output).suffix not in (".json", ".csv"):
        raise InputError(f"{arguments.output}: expected a table that ends in .json or .csv")
    device = open_device(arguments.device, threads=arguments.threads)
    data = dataset.read(arguments.data)
    shape = _shape(arguments.input_shape)
    models = []
    for text in arguments.models:
        name, equals, path = text.rpartition("=")
        models.append(planner.load(path, data=data, name=name if equals else None, input_shape=shape))
    store = arguments.store or Path(arguments.output).with_suffix(".store")
    with progress() as tell:
        table = planner.measure(
            models,
            device=device,
            approximations=arguments.approximations,
            refit=not arguments.no_refit,
            rounds=arguments.rounds,
            store=store,
            progress=tell,
        )
    table.write(arguments.output)
    say(table)
    return 0


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-shape is {text!r}; expected four positive numbers such as 1,3,32,32")
    return tuple(int(part) for part in parts)
