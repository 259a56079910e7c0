"""Opening the file of a store: what is none is refused by name, and before anything is measured."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from planner.errors import InputError
from planner.measuring.schema import APPLICATION_ID, VERSION, migrate

__all__ = ["connect"]

BUSY_S = 60.0
"""How long a transaction waits for another process's, each of which takes milliseconds."""
_PAUSE_S = 0.05


def connect(path: Path | None, *, create: bool) -> sqlite3.Connection:
    """Open a store's file and bring it to this version.

    Args:
        path: The file; None keeps everything in memory.
        create: Whether to make a file that does not exist.

    Returns:
        A connection that begins no transactions by itself.

    Raises:
        InputError: The file cannot be made, read or written, is none of ours, or was written by a later version.
    """
    if path is not None:
        _refuse(path, create=create)
    connection = _opened(path)
    try:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        if path is not None:
            _recognise(path, connection)
            _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise InputError(f"{path}: cannot be used as a store of samples: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a store of samples")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder of the store does not exist")
    if not create and not path.exists():
        raise InputError(f"{path}: there is no such store of samples")


def _opened(path: Path | None) -> sqlite3.Connection:
    try:
        # Threads take turns by the store's own lock.
        return sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be opened as a store of samples: {error}; is its folder writable?") from None


def _recognise(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file that is none of ours before anything is written to it."""
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.OperationalError as error:
        raise InputError(f"{path}: cannot be opened as a store of samples: {error}; is its folder writable?") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is no store of samples, or is damaged: {error}") from None
    if (tables or version) and application != APPLICATION_ID:
        raise InputError(f"{path} is a file of SQLite, but no store of samples")
    if version > VERSION:
        raise InputError(
            f"{path} is a store of version {version}, written by a later blinkplan; this one reads up to {VERSION}"
        )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log; unlike other statements, this one does not wait where another process is busy."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
