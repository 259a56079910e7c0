"""The full form of a cost table: JSON that reads back identical."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costmodels import scripts_json
from costmodels.costs import ChoiceCost, Conversion, EdgeCosts, Format, LayerCosts, ModelCosts
from costmodels.errors import TableError
from costmodels.interactions import Interactions
from costmodels.scripts import ModelScripts
from costmodels.table import CostTable

__all__ = ["dump", "parse", "to_json"]

_KIND = "blinkplan cost table"
_VERSION = 1
_LOG = logging.getLogger(__name__)


def to_json(table: CostTable) -> dict[str, Any]:
    """Turn a table into JSON values; what has its default value is left out.

    Args:
        table: The table.

    Returns:
        An object with the keys ``kind``, ``version``, ``refit``, ``provenance`` and ``models``.
    """
    return {
        "kind": _KIND,
        "version": _VERSION,
        "refit": table.refit,
        "provenance": dict(table.provenance),
        "models": [_plain(model) for model in table.models],
    }


def dump(table: CostTable) -> str:
    """Write a table as JSON text."""
    return json.dumps(to_json(table), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def parse(text: str) -> CostTable:
    """Read a table from JSON text.

    Args:
        text: What ``dump`` wrote, or the same by hand.

    Returns:
        The table.

    Raises:
        TableError: It is no JSON, no table, or says something that cannot be trusted; the place is named.
    """
    try:
        top = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise TableError(f"not JSON: {error.msg}, column {error.colno}").at(line=error.lineno) from None
    except RecursionError:
        raise TableError("not a cost table: nested too deeply") from None
    if not isinstance(top, dict) or top.get("kind") != _KIND:
        raise TableError(f'not a cost table: expected an object with "kind": "{_KIND}"')
    if top.get("version") != _VERSION:
        raise TableError(f"the table has version {top.get('version')!r}; expected {_VERSION}")
    _warn_unknown(top, {"kind", "version", "refit", "provenance", "models"}, "the table")
    provenance = top.get("provenance", {})
    if not isinstance(provenance, dict):
        raise TableError(f"provenance is {provenance!r}; expected an object")
    models = tuple(_model(entry) for entry in _list(top, "models"))
    return CostTable(models=models, provenance=provenance, refit=top.get("refit", False))


def _plain(value: Any) -> Any:
    """Turn a dataclass into JSON values, leaving out the fields that have their default."""
    if isinstance(value, ModelScripts):
        return scripts_json.to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    entries = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _plain(item) for field, item in entries if item != field.default}


def _model(entry: Any) -> ModelCosts:
    found = _known(entry, ModelCosts, "model")
    with _inside("model", found):
        found["layers"] = tuple(_layer(item) for item in _list(found, "layers"))
        found["edges"] = tuple(_edge(item) for item in _list(found, "edges", default=[]))
        if "memory" in found:
            found["memory"] = scripts_json.parse(found["memory"])
        if "interactions" in found:
            found["interactions"] = _interactions(found["interactions"])
        return ModelCosts(**_complete(found, ModelCosts))


def _interactions(entry: Any) -> Interactions:
    found = _known(entry, Interactions, "list of interactions")
    found["entries"] = tuple((str(layer), str(choice)) for layer, choice in _list(found, "entries"))
    return Interactions(**_complete(found, Interactions))


def _layer(entry: Any) -> LayerCosts:
    found = _known(entry, LayerCosts, "layer")
    with _inside("layer", found):
        found["choices"] = tuple(_choice(item) for item in _list(found, "choices"))
        return LayerCosts(**_complete(found, LayerCosts))


def _choice(entry: Any) -> ChoiceCost:
    found = _known(entry, ChoiceCost, "choice")
    with _inside("choice", found):
        for side in ("in_format", "out_format"):
            if side in found:
                found[side] = _format(found[side])
        return ChoiceCost(**_complete(found, ChoiceCost))


def _edge(entry: Any) -> EdgeCosts:
    found = _known(entry, EdgeCosts, "edge")
    conversions = [_known(item, Conversion, "conversion") for item in _list(found, "conversions", default=[])]
    for conversion in conversions:
        for side in ("source_format", "target_format"):
            if side in conversion:
                conversion[side] = _format(conversion[side])
    found["conversions"] = tuple(Conversion(**_complete(item, Conversion)) for item in conversions)
    return EdgeCosts(**_complete(found, EdgeCosts))


def _format(entry: Any) -> Format:
    return Format(**_known(entry, Format, "format"))


@contextmanager
def _inside(kind: str, found: dict[str, Any]) -> Iterator[None]:
    """Add the place to whatever is refused inside."""
    try:
        yield
    except TableError as error:
        raise error.at(**{kind: str(found.get("name", "without a name"))}) from None


def _known(entry: Any, kind: type, what: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise TableError(f"a {what} is {entry!r:.60}; expected an object")
    names = {field.name for field in dataclasses.fields(kind)}
    _warn_unknown(entry, names, f"a {what}")
    return {name: value for name, value in entry.items() if name in names}


def _complete(found: dict[str, Any], kind: type) -> dict[str, Any]:
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in found:
            raise TableError(f"{field.name} is missing")
    return found


def _list(found: dict[str, Any], name: str, default: list[Any] | None = None) -> list[Any]:
    value = found.get(name, default)
    if value is None:
        raise TableError(f"{name} is missing; expected a list")
    if not isinstance(value, list):
        raise TableError(f"{name} is {value!r:.60}; expected a list")
    return value


def _warn_unknown(entry: dict[str, Any], known: set[str], what: str) -> None:
    for name in entry.keys() - known:
        _LOG.warning("%s has the unknown key %r, which is ignored; known are: %s", what, name, ", ".join(sorted(known)))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TableError(f"the key {twice!r} is there twice in one object")
    return found
