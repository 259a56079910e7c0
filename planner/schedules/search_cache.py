"""What searches found, kept in one file of the user's cache folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from costmodels import write_aside
from planner.errors import InputError

_KIND = "blinkplan schedules"
_VERSION = 1


def default_path() -> Path:
    """Give the file that searches share: under ``XDG_CACHE_HOME``, else ``~/.cache``.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG base directory specification has it.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "blinkplan" / "schedules.json"


@dataclass(frozen=True, slots=True)
class SearchCache:
    """Schedules by key, in a file that several processes may read and extend at a time.

    Attributes:
        path: The file; it need not be there yet.
    """

    path: Path

    def read(self) -> dict[str, str]:
        """Give all that is known.

        Raises:
            InputError: The file is no such cache.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: the cache of schedules cannot be read: {error}") from None
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InputError(f"{self.path}: not a cache of schedules ({error}); remove it to search again") from None
        found = content.get("schedules") if isinstance(content, dict) and content.get("kind") == _KIND else None
        strings = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
        if not isinstance(found, dict) or not strings or content.get("version") != _VERSION:
            raise InputError(f"{self.path}: not a cache of schedules of version {_VERSION}; remove it to search again")
        return dict(found)

    def add(self, schedules: Mapping[str, str]) -> None:
        """Add to what is known; what another process adds at the same time is kept.

        Raises:
            InputError: The file is no such cache, or cannot be written.
        """
        if not schedules:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                content = {"kind": _KIND, "version": _VERSION, "schedules": {**self.read(), **schedules}}
                write_aside(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise InputError(f"{self.path}: the cache of schedules cannot be written: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock beside the file: the file itself is replaced, and a lock on it would be lost."""
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
