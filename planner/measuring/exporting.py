"""A store as one long table, a row for each sample and for each figure of a result, for other programs to read."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError

if TYPE_CHECKING:
    import sqlite3

    import pandas as pd

__all__ = ["check_ending", "table", "write_table"]

NAMED = ("model", "layer", "choice")
"""Parts of what a figure is about that have columns of their own, beside the whole of it as JSON."""
ENDINGS = (".csv", ".json", ".parquet")


def table(connection: sqlite3.Connection, runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return all samples and the figures of all results, in the order they came.

    Args:
        connection: The file of a store.
        runs: Its runs, as :meth:`planner.measuring.runs.Runs.runs` gives them.

    Returns:
        The columns ``what``, ``model``, ``layer``, ``choice`` and ``about``; ``figure`` and ``value``, which is
        nanoseconds for a sample, with its ``round``, ``control_ns`` and ``mark``; ``time``; ``run``, and in columns
        that begin with ``run_`` when and where it was and what it was told at its beginning.  Arrays are left out.
    """
    import pandas as pd

    frame = pd.DataFrame(
        _rows(connection),
        columns=["what", *NAMED, "about", "figure", "value", "round", "control_ns", "mark", "time", "run"],
    )
    frame = frame.astype({"value": "float64", "control_ns": "float64", "round": "Int64", "run": "int64"})
    described = pd.DataFrame(
        [{f"run_{name}": _flat(value) for name, value in run.items() if name != "run"} for run in runs],
        index=[run["run"] for run in runs],
    )
    return frame.join(described, on="run")


def check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a file of a kind that cannot be written, before any time is spent on what is to go there.

    Raises:
        InputError: The ending is none that is known, or the library behind it is missing.
    """
    ending = Path(path).suffix
    if ending not in ENDINGS:
        raise InputError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"{path}: writing Parquet needs pyarrow; install blinkplan[parquet], or write .csv or .json")


def write_table(connection: sqlite3.Connection, runs: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> int:
    """Write the table beside its destination and rename it into place; give its number of rows.

    Raises:
        InputError: The ending is none that is known, a library is missing, or the file cannot be written.
    """
    path = Path(path)
    check_ending(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file")
    frame = table(connection, runs)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            aside = Path(folder) / path.name
            if path.suffix == ".csv":
                frame.to_csv(aside, index=False)
            elif path.suffix == ".json":
                # pandas would round to 15 digits; this keeps each figure to the bit.
                rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
                aside.write_text(json.dumps(rows, indent=0, allow_nan=False), encoding="utf-8")
            else:
                frame.to_parquet(aside, engine="pyarrow", index=False)
            aside.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return len(frame)


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    samples = connection.execute(
        "SELECT what, about, 'nanoseconds', nanoseconds, round, control_ns, mark, time, run"
        " FROM samples JOIN subjects ON subjects.id = subject ORDER BY run, round, subject"
    )
    for what, about, *rest in samples:
        yield (what, *_named(about), about, *rest)
    results = connection.execute(
        "SELECT what, about, value, time, run FROM results JOIN subjects ON subjects.id = subject"
        " ORDER BY time, subject"
    )
    for what, about, text, time, run in results:
        for figure, value in _figures("", json.loads(text)):
            yield (what, *_named(about), about, figure or "value", value, None, None, "", time, run)


def _named(about: str) -> tuple[Any, ...]:
    found = json.loads(about)
    return tuple(found[name] if isinstance(found.get(name), str) else None for name in NAMED)


def _figures(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Take the numbers out of a value, each under its way to it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _figures(f"{name}.{key}" if name else key, part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _figures(f"{name}.{number}" if name else str(number), part)
    elif isinstance(value, int | float):
        yield name, float(value)


def _flat(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else json.dumps(value)
