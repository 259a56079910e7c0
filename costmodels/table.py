"""The cost table: what every choice of every layer of every model costs, and where the figures come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodels.checks import first_twice
from costmodels.costs import ModelCosts
from costmodels.errors import TableError
from costmodels.files import write_aside

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CostTable"]

_SHOWN_LAYERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Hold the measured costs of one or more models.

    Attributes:
        models: The models, each under its own name.
        provenance: Where the figures come from (device, versions, threads, repeats, data hash …), as JSON
            values.
        refit: Whether the losses were measured with the later layers refitted.

    >>> from costmodels import ChoiceCost, LayerCosts, ModelCosts
    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
    >>> model = ModelCosts(name="m", layers=(LayerCosts(name="conv1", choices=(exact,)),))
    >>> CostTable(models=(model,)).model("m").layers[0].name
    'conv1'
    """

    models: tuple[ModelCosts, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)
    refit: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty table, a model that is there twice, and provenance that JSON cannot hold."""
        object.__setattr__(self, "models", tuple(self.models))
        if not self.models:
            raise TableError("the table has no models; expected at least one")
        twice = first_twice(model.name for model in self.models)
        if twice is not None:
            raise TableError("the model is there twice").at(model=twice)
        if not isinstance(self.refit, bool):
            raise TableError(f"refit is {self.refit!r}; expected true or false")
        try:
            provenance = json.loads(json.dumps(dict(self.provenance), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise TableError(f"provenance cannot be written as JSON: {error}") from None
        object.__setattr__(self, "provenance", provenance)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CostTable:
        """Read a table from a ``.json`` file, or a foreign one from ``.csv``.

        Args:
            path: The file; its ending says what it is.

        Returns:
            The table.

        Raises:
            TableError: The file cannot be read, or what it says cannot be trusted; the place is named.
        """
        from costmodels import table_csv, table_json

        ending = _ending(path)
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise TableError(f"the table cannot be read: {error.strerror}").at(file=str(path)) from None
        except UnicodeDecodeError as error:
            raise TableError(f"the table is not text in UTF-8: {error.reason}").at(file=str(path)) from None
        try:
            return table_json.parse(text) if ending == ".json" else table_csv.parse(text)
        except TableError as error:
            raise error.at(file=str(path)) from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table: ``.json`` in full, ``.csv`` its projection to costs; never half a file.

        Args:
            path: The file; its ending says what it is.

        Raises:
            TableError: The ending is unknown, or the file cannot be written.
        """
        from costmodels import table_csv, table_json

        text = table_json.dump(self) if _ending(path) == ".json" else table_csv.dump(self)
        try:
            write_aside(path, text)
        except OSError as error:
            raise TableError(f"the table cannot be written: {error.strerror or error}").at(file=str(path)) from None

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical JSON, in hexadecimal: equal for equal tables, whatever their files."""
        from costmodels import table_json

        canonical = json.dumps(table_json.to_json(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def model(self, name: str) -> ModelCosts:
        """Return the model of that name, or raise TableError listing those that exist."""
        for model in self.models:
            if model.name == name:
                return model
        existing = ", ".join(model.name for model in self.models)
        raise TableError(f"no such model in the table; there are: {existing}").at(model=name)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a choice, with the columns of the CSV form; what is not known is None or NaN."""
        import pandas as pd

        from costmodels import table_csv

        rows = [
            [table_csv.cell(column, model, layer, choice) for column in table_csv.COLUMNS]
            for model in self.models
            for layer in model.layers
            for choice in layer.choices
        ]
        return pd.DataFrame(rows, columns=list(table_csv.COLUMNS))

    def __str__(self) -> str:
        """Show each model with one line a layer: the range of its choices' latencies, sizes and losses."""
        return "\n\n".join(_show(model) for model in self.models)


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (".json", ".csv"):
        raise TableError(f"the ending {ending!r} is not that of a table; expected .json or .csv").at(file=str(path))
    return ending


def _show(model: ModelCosts) -> str:
    count = sum(len(layer.choices) for layer in model.layers)
    width = max(5, *(len(layer.name) for layer in model.layers[:_SHOWN_LAYERS]))
    lines = [
        f"{model.name}: {len(model.layers)} layers, {count} choices",
        f"  {'layer':<{width}} {'choices':>7} {'latency us':>20} {'weights KiB':>20} {'loss':>20}",
    ]
    for layer in model.layers[:_SHOWN_LAYERS]:
        spans = (
            [choice.latency_ns / 1e3 for choice in layer.choices],
            [choice.weight_bytes / 1024 for choice in layer.choices],
            [choice.loss for choice in layer.choices],
        )
        cells = " ".join(f"{f'{min(span):.4g} .. {max(span):.4g}':>20}" for span in spans)
        lines.append(f"  {layer.name:<{width}} {len(layer.choices):>7} {cells}")
    if len(model.layers) > _SHOWN_LAYERS:
        lines.append(f"  ... and {len(model.layers) - _SHOWN_LAYERS} more layers")
    return "\n".join(lines)
