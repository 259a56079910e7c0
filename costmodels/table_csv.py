"""The projection of a cost table to costs: one line a choice, and the way in for foreign tables."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from costmodels.checks import LARGEST
from costmodels.costs import ChoiceCost, LayerCosts, ModelCosts
from costmodels.errors import TableError
from costmodels.table import CostTable

__all__ = ["COLUMNS", "REQUIRED", "cell", "dump", "parse"]

REQUIRED = ("model", "layer", "choice", "latency_ns", "weight_bytes", "loss")
_WHOLE = ("latency_ns", "weight_bytes", "activation_bytes", "energy_nj")
_REAL = ("loss", "latency_std_ns", "loss_raw", "loss_std")
COLUMNS = (*REQUIRED, "activation_bytes", "energy_nj", "latency_std_ns", "loss_raw", "loss_std", "tie")
_CONSTANTS = "model_constants"
_LOG = logging.getLogger(__name__)


def parse(text: str) -> CostTable:
    """Read a table from CSV text.

    Args:
        text: A header, then one line a choice; the lines of a layer need not stand together.

    Returns:
        The table; models and layers in the order in which they first appear.

    Raises:
        TableError: Anything is missing, not finite, negative or there twice; the line is named.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = _rows(reader)
    header, _ = next(rows, ([], 0))
    columns = _columns(header)
    layers: dict[str, dict[str, list[ChoiceCost]]] = {}
    ties: dict[tuple[str, str], str | None] = {}
    first: dict[tuple[str, str, str], int] = {}
    for cells, line in rows:
        if len(cells) != len(header):
            raise TableError(f"the line has {len(cells)} cells; expected {len(header)}, as in the header").at(line=line)
        found = {name: cells[index].strip() for name, index in columns.items()}
        place = {kind: found[kind] for kind in ("model", "layer", "choice") if found[kind]}
        try:
            choice, key = _choice(found), (found["model"], found["layer"], found["choice"])
            if key in first:
                raise TableError(f"the choice is there twice: first on line {first[key]}")
            tie = found.get("tie") or None
            if ties.setdefault(key[:2], tie) != tie:
                raise TableError(f"the tie is {tie!r}, but {ties[key[:2]]!r} on an earlier line of the layer")
        except TableError as error:
            raise error.at(line=line, **place) from None
        first[key] = line
        layers.setdefault(key[0], {}).setdefault(key[1], []).append(choice)
    models = []
    for model, contents in layers.items():
        line = min(line for key, line in first.items() if key[0] == model) if len(layers) < 100 else 0
        try:
            grouped = tuple(LayerCosts(name=n, choices=tuple(c), tie=ties[model, n]) for n, c in contents.items())
            models.append(ModelCosts(name=model, layers=grouped))
        except TableError as error:
            raise (error.at(line=line) if line else error) from None
    return CostTable(models=tuple(models), provenance={"source": "csv"})


def dump(table: CostTable) -> str:
    """Write the costs of a table as CSV text.

    What a model costs besides its layers becomes a layer of one choice, its scale is multiplied into the
    latencies;
    edges, formats and provenance have no place in CSV and are left out, with a warning where that changes the
    costs.

    Args:
        table: The table.

    Returns:
        The text, with the columns of ``COLUMNS``.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model in table.models:
        if model.edges:
            _LOG.warning("model %r: CSV has no place for its %d edges; they are left out", model.name, len(model.edges))
        for layer in model.layers:
            for choice in layer.choices:
                scaled = replace(choice, latency_ns=model.scaled_ns(choice))
                writer.writerow(_text(cell(column, model, layer, scaled)) for column in COLUMNS)
        if model.overhead_ns or model.fixed_bytes:
            layer = _constants(model)
            writer.writerow(_text(cell(column, model, layer, layer.choices[0])) for column in COLUMNS)
    return stream.getvalue()


def cell(column: str, model: ModelCosts, layer: LayerCosts, choice: ChoiceCost) -> Any:
    """Return what stands in one column of a choice's line."""
    if column == "model":
        return model.name
    if column == "layer":
        return layer.name
    if column == "tie":
        return layer.tie
    return choice.name if column == "choice" else getattr(choice, column)


def _rows(reader: Any) -> Iterator[tuple[list[str], int]]:
    """Yield each line that is not blank, with the number of its last physical line."""
    try:
        for cells in reader:
            if any(text.strip() for text in cells):
                yield cells, reader.line_num
    except csv.Error as error:
        raise TableError(f"not CSV: {error}").at(line=reader.line_num) from None


def _columns(header: list[str]) -> dict[str, int]:
    """Map the known columns to their places in the header."""
    names = [name.strip() for name in header]
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"the column {name!r} is there twice").at(line=1)
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        got = ", ".join(names) or "nothing"
        raise TableError(f"the header has no {', '.join(missing)}; got {got}; expected {', '.join(REQUIRED)}").at(
            line=1
        )
    for name in names:
        if name not in COLUMNS:
            _LOG.warning("the unknown column %r is ignored; known are: %s", name, ", ".join(COLUMNS))
    return {name: index for index, name in enumerate(names) if name in COLUMNS}


def _choice(found: dict[str, str]) -> ChoiceCost:
    for name in REQUIRED:
        if not found[name]:
            raise TableError(f"{name} is missing")
    costs: dict[str, Any] = {name: _whole(name, found[name]) for name in _WHOLE if found.get(name)}
    costs |= {name: _real(name, found[name]) for name in _REAL if found.get(name)}
    return ChoiceCost(name=found["choice"], **costs)


def _whole(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 18:
        return int(text)
    number = _decimal(name, text, "a whole number of 0 or more")
    if number < 0 or number > LARGEST or number != number.to_integral_value():
        raise TableError(f"{name} is {text!r}; expected a whole number from 0 to {LARGEST}")
    return int(number)


def _real(name: str, text: str) -> float:
    return float(_decimal(name, text, "a finite number"))


def _decimal(name: str, text: str, expected: str) -> Decimal:
    try:
        number = Decimal("" if "_" in text else text)
    except InvalidOperation:
        raise TableError(f"{name} is {text!r}; expected {expected}") from None
    if not number.is_finite():
        raise TableError(f"{name} is {text}; expected {expected}")
    return number


def _text(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _constants(model: ModelCosts) -> LayerCosts:
    names = {layer.name for layer in model.layers}
    name = _CONSTANTS
    while name in names:
        name += "_"
    constant = ChoiceCost(name="exact", latency_ns=model.overhead_ns, weight_bytes=model.fixed_bytes, loss=0.0)
    return LayerCosts(name=name, choices=(constant,))
