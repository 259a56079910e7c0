"""The tables of a store, and the steps that bring a file of an earlier version to this one.

A step is never changed once files with its version exist: whoever needs another table or column adds a step.  Each
step runs in one transaction together with the new version number, so that a file is of one version or of the next.
"""

from __future__ import annotations

import sqlite3

__all__ = ["APPLICATION_ID", "STEPS", "VERSION", "migrate"]

APPLICATION_ID = 0x626C6E6B
"""``blnk``: marks a file of SQLite as a store."""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'failed', 'killed')),
            started TEXT NOT NULL,
            ended TEXT,
            host TEXT NOT NULL,
            boot TEXT NOT NULL,
            pid INTEGER NOT NULL,
            process_started REAL NOT NULL,
            load REAL,
            description TEXT NOT NULL
        )""",
        """CREATE TABLE subjects (
            id INTEGER PRIMARY KEY,
            what TEXT NOT NULL,
            digest TEXT NOT NULL,
            about TEXT NOT NULL,
            UNIQUE (what, digest)
        )""",
        """CREATE TABLE results (
            subject INTEGER PRIMARY KEY REFERENCES subjects (id),
            run INTEGER NOT NULL REFERENCES runs (id),
            time TEXT NOT NULL,
            value TEXT NOT NULL
        )""",
        """CREATE TABLE arrays (
            subject INTEGER NOT NULL REFERENCES results (subject),
            name TEXT NOT NULL,
            kind TEXT NOT NULL,
            shape TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (subject, name)
        )""",
        """CREATE TABLE samples (
            subject INTEGER NOT NULL REFERENCES subjects (id),
            run INTEGER NOT NULL REFERENCES runs (id),
            round INTEGER NOT NULL,
            nanoseconds REAL NOT NULL,
            control_ns REAL,
            mark TEXT NOT NULL,
            time TEXT NOT NULL,
            PRIMARY KEY (subject, run, round)
        )""",
        """CREATE TABLE notes (
            id INTEGER PRIMARY KEY,
            run INTEGER NOT NULL REFERENCES runs (id),
            time TEXT NOT NULL,
            kind TEXT NOT NULL,
            what TEXT NOT NULL,
            reason TEXT NOT NULL
        )""",
    ),
    (
        """CREATE TABLE claims (
            subject INTEGER PRIMARY KEY REFERENCES subjects (id),
            run INTEGER NOT NULL REFERENCES runs (id),
            time TEXT NOT NULL
        )""",
        """CREATE TABLE phases (
            run INTEGER NOT NULL REFERENCES runs (id),
            model TEXT NOT NULL,
            phase TEXT NOT NULL,
            done INTEGER NOT NULL,
            total INTEGER NOT NULL,
            reused INTEGER NOT NULL,
            seconds REAL NOT NULL,
            time TEXT NOT NULL,
            PRIMARY KEY (run, model, phase)
        )""",
    ),
)
"""The statements of each step; the first makes version 1 out of an empty file."""

VERSION = len(STEPS)
"""The version that this code reads and writes."""


def migrate(connection: sqlite3.Connection) -> None:
    """Take the steps that a file lacks.

    Args:
        connection: Without an open transaction, and with none that Python would begin by itself.
    """
    while True:
        # The version is looked at with the lock in hand: another process may just have taken the step.
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version < VERSION:
                for statement in STEPS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if version >= VERSION:
            return
