"""Memory scripts as JSON: every operator and every script is written once, and named by its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costmodels.errors import TableError
from costmodels.scripts import LayerScripts, ModelScripts, Operation, Script

__all__ = ["parse", "to_json"]

_VERSION = 1


def to_json(scripts: ModelScripts) -> dict[str, Any]:
    """Turn the scripts of a network into JSON values.

    Args:
        scripts: The scripts.

    Returns:
        An object with the keys ``version``, ``input_form``, ``slack_bytes``, ``checked``, ``forms`` (the forms that
        layers find), ``operations`` (hint, pattern, form, flags, bytes of workspaces) and ``layers``; in these
        ``scripts`` lists for each script its operators with what they read, and its results, and ``known`` for each
        choice pairs of the numbers of the forms that it finds and the number of its script.
    """
    forms = _Numbers()
    operations = _Numbers()
    layers = []
    for layer in scripts.layers:
        own = _Numbers()
        known = {
            choice: [[[forms.of(form) for form in found], own.of(script)] for found, script in by_forms.items()]
            for choice, by_forms in layer.known.items()
        }
        listed = [
            [[[operations.of(_bare(op)), *op.reads] for op in script.operations], list(script.results)]
            for script in own
        ]
        layers.append(
            {
                "name": layer.name,
                "sources": list(layer.sources),
                "kinds": {choice: list(kind) for choice, kind in layer.kinds.items()},
                "writes": dict(layer.writes),
                "joined": list(layer.joined),
                "scripts": listed,
                "known": known,
            }
        )
    return {
        "version": _VERSION,
        "input_form": scripts.input_form,
        "slack_bytes": scripts.slack_bytes,
        "checked": scripts.checked,
        "forms": list(forms),
        "operations": [list(item) for item in operations],
        "layers": layers,
    }


def parse(entry: Any) -> ModelScripts:
    """Read the scripts of a network.

    Raises:
        TableError: They are of another version, or not whole.
    """
    if not isinstance(entry, Mapping) or entry.get("version") != _VERSION:
        version = entry.get("version") if isinstance(entry, Mapping) else None
        raise TableError(f"the memory scripts have version {version!r}; expected {_VERSION}")
    try:
        operations = [_operation(*item) for item in entry["operations"]]
        forms = [str(form) for form in entry["forms"]]
        return ModelScripts(
            input_form=entry["input_form"],
            layers=tuple(_layer(layer, forms, operations) for layer in entry["layers"]),
            slack_bytes=entry["slack_bytes"],
            checked=entry["checked"],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise TableError(f"the memory scripts are not whole: {error!r}") from None


class _Numbers(dict[Any, int]):
    """Numbers things in the order in which they are first met."""

    def of(self, thing: Any) -> int:
        """Return the number of a thing."""
        return self.setdefault(thing, len(self))


_Bare = tuple[str, int, str, int, int, int]
_SHARED, _VIEW, _ONCE = 1, 2, 4


def _bare(operation: Operation) -> _Bare:
    flags = _SHARED * operation.shared + _VIEW * operation.view + _ONCE * operation.once
    return (
        operation.hint,
        int(operation.pattern),
        operation.form,
        flags,
        operation.workspace_bytes,
        operation.asked_bytes,
    )


def _operation(hint: str, pattern: int, form: str, flags: int, workspace: int, asked: int) -> Operation:
    return Operation(
        hint=hint,
        pattern=pattern,
        form=form,
        reads=(),
        shared=bool(flags & _SHARED),
        view=bool(flags & _VIEW),
        once=bool(flags & _ONCE),
        workspace_bytes=workspace,
        asked_bytes=asked,
    )


def _layer(entry: Mapping[str, Any], forms: list[str], operations: list[Operation]) -> LayerScripts:
    scripts = [
        Script(
            operations=tuple(replace(operations[number], reads=tuple(reads)) for number, *reads in listed),
            results=tuple(results),
        )
        for listed, results in entry["scripts"]
    ]
    return LayerScripts(
        name=entry["name"],
        sources=tuple(entry["sources"]),
        known={
            choice: {tuple(forms[form] for form in found): scripts[number] for found, number in pairs}
            for choice, pairs in entry["known"].items()
        },
        kinds={choice: tuple(kind) for choice, kind in entry["kinds"].items()},
        writes=dict(entry["writes"]),
        joined=tuple(entry["joined"]),
    )
