"""A journal of finished measurements, one line of JSON each, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.errors import InputError

__all__ = ["Journal"]

logger = logging.getLogger(__name__)


class Journal:
    """Keeps values by what they are about; without a file, for as long as it lives.

    Examples:
        >>> journal = Journal(None)
        >>> journal.put({"layer": "conv1"}, {"loss": 0.5})
        >>> journal.get({"layer": "conv1"})
        {'loss': 0.5}
    """

    def __init__(self, path: str | Path | None) -> None:
        """Read what is there; a last line that a killed run left unfinished is left out.

        Raises:
            InputError: The file cannot be read, or its folder does not exist.
        """
        self._path = Path(path) if path is not None else None
        self._found: dict[str, Any] = {}
        if self._path is None:
            return
        if not self._path.parent.is_dir():
            raise InputError(f"{self._path}: the folder of the journal does not exist")
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._found[entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError):
                if number < len(lines):
                    raise InputError(f"{self._path}, line {number}: not an entry of a journal") from None
                logger.warning("%s: the last line is cut short and is measured again", self._path)
                whole = "".join(f"{kept}\n" for kept in lines[:-1])
                self._path.write_text(whole, encoding="utf-8")

    def get(self, about: Mapping[str, Any]) -> Any:
        """Give what is known about something; None if nothing is."""
        return self._found.get(_key(about))

    def put(self, about: Mapping[str, Any], value: Any) -> None:
        """Keep a value, on disk before this returns."""
        key = _key(about)
        self._found[key] = value
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "about": dict(about), "value": value}) + "\n")


def _key(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
