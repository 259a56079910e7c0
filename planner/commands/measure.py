"""``blinkplan measure``: measure networks into a cost table."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from planner.commands._shared import check_writable, say, say_aside
from planner.errors import InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("measure", help="measure what every choice of every layer costs, into a table")
    parser.add_argument("models", nargs="*", metavar="ONNX", help="networks: quick.onnx, or name=file.onnx")
    parser.add_argument("--data", metavar="DATA", help="labelled images: an .npz or a folder")
    parser.add_argument("--device", default="tvm", help="name of the device (default: tvm)")
    parser.add_argument("--threads", type=int, default=1, help="threads that a network may use (default: 1)")
    parser.add_argument(
        "--approximations", default="default", metavar="A,B", help="approximations or choices (default: all)"
    )
    parser.add_argument("--no-refit", action="store_true", help="do not refit layers behind an approximated one")
    parser.add_argument("--energy", action="store_true", help="measure energy too, where counters can be read")
    parser.add_argument("--jobs", type=int, help="processes that measure losses at a time (default: as many as cores)")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of timing (default: 25)")
    parser.add_argument("--input-shape", metavar="1,C,H,W", help="shape of the input, where a file leaves it open")
    parser.add_argument("-o", "--output", metavar="TABLE", help="cost table, .json or .csv")
    parser.add_argument(
        "--store",
        metavar="FILE",
        help="where samples are kept and found again (default: beside the table, .store); a new one measures anew",
    )
    parser.add_argument("--status", action="store_true", help="measure nothing; say how far the runs of a store are")
    parser.add_argument(
        "--export",
        metavar="FILE",
        help="write all samples of the store as one long table: .csv, .json or .parquet; without networks, only that",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, show the table and write it; what earlier runs had finished is taken from the store."""
    from planner.measuring.exporting import check_ending

    if arguments.export is not None:
        check_ending(arguments.export)
        check_writable(arguments.export)
    if arguments.status and arguments.models:
        raise InputError(f"--status measures nothing, but there are networks: {', '.join(arguments.models)}")
    if not arguments.models and not arguments.status and not arguments.export:
        raise InputError("no networks to measure; expected at least one, or --status, or --export")
    return _measure(arguments) if arguments.models else _look(arguments)


def _look(arguments: argparse.Namespace) -> int:
    """Say what is in a store, or write it out."""
    from planner.measuring.status import status
    from planner.measuring.store import Store

    with Store(_store(arguments), create=False) as store:
        if arguments.status:
            say(status(store))
        if arguments.export is not None:
            say_aside(f"{arguments.export}: {store.export(arguments.export)} rows")
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    import planner
    from planner import dataset
    from planner.commands._progress import progress
    from planner.devices import open_device
    from planner.measuring.status import summarised
    from planner.measuring.store import Store

    if arguments.output is None or arguments.data is None:
        raise InputError("measuring networks needs --data and -o TABLE")
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
    store = _store(arguments)
    with progress() as tell:
        table = planner.measure(
            models,
            device=device,
            approximations=arguments.approximations,
            refit=not arguments.no_refit,
            rounds=arguments.rounds,
            store=store,
            energy=arguments.energy,
            jobs=_cores() if arguments.jobs is None else arguments.jobs,
            progress=tell,
        )
    table.write(arguments.output)
    if arguments.export is not None:
        with Store(store, create=False) as kept:
            kept.export(arguments.export)
    say(table)
    say_aside(summarised(table.provenance["summary"]))
    return 0


def _store(arguments: argparse.Namespace) -> Path:
    """Return the store that is named, or that lies beside the table."""
    if arguments.store is None and arguments.output is None:
        raise InputError("no store is named; expected --store FILE, or -o TABLE for the one beside it")
    store = Path(arguments.store or Path(arguments.output).with_suffix(".store"))
    if arguments.output is not None and store.resolve() == Path(arguments.output).resolve():
        raise InputError(f"{store} is both the table and the store; expected two files")
    return store


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-shape is {text!r}; expected four positive numbers such as 1,3,32,32")
    return tuple(int(part) for part in parts)
