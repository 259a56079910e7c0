"""The runs that write to a store: who each is, how far it is, what it noted, and what it is about to measure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from planner.errors import InputError
from planner.measuring.files import connect
from planner.measuring.processes import Process
from planner.measuring.records import Phase, canonical, digest

__all__ = ["Runs", "now"]

Write = Callable[..., sqlite3.Cursor]


class Runs:
    """The file of a store as far as runs are concerned; see :class:`planner.measuring.store.Store`.

    Attributes:
        path: The file; None where everything is in memory.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, create: bool = True) -> None:
        """Open a file, or make it.

        Args:
            path: The file; None keeps everything in memory.
            create: Whether to make a file that does not exist.

        Raises:
            InputError: The file cannot be made, read or written, is none of ours, or was written by a later version.
        """
        self.path = Path(path) if path is not None else None
        self._lock = threading.RLock()
        self._connection = connect(self.path, create=create)
        self._file = self._identity()
        self._run: int | None = None
        self._seen: dict[str, set[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("finished" if kind is None else "failed")

    def close(self, status: str = "finished") -> None:
        """Close the file, in which everything is already; a run that has not ended ends so."""
        with self._lock:
            try:
                if self._run is not None:
                    self.end(status)
            finally:
                self._connection.close()

    @property
    def run(self) -> int:
        """Number of the run that what is put now belongs to; one without a description begins if none has."""
        with self._lock:
            return self._run if self._run is not None else self.begin({})

    def begin(self, description: Mapping[str, Any]) -> int:
        """Begin a run; what is put from now on belongs to it.

        Args:
            description: Device, versions and arguments, as JSON values.

        Returns:
            The run's number.
        """
        here, text = Process.here(), canonical(description)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        with self._writing() as write:
            found = write(
                "INSERT INTO runs (status, started, host, boot, pid, process_started, load, description)"
                " VALUES ('running', ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (now(), here.host, here.boot, here.pid, here.started, load, text),
            ).fetchone()
            self._run = run = int(found[0])
            self._seen.clear()
        return run

    def end(self, status: str = "finished") -> None:
        """End the run that :meth:`begin` began; what it claimed and did not finish is free again."""
        with self._writing() as write:
            write("UPDATE runs SET status = ?, ended = ? WHERE id = ?", (status, now(), self._run))
            write("DELETE FROM claims WHERE run = ?", (self._run,))
            self._run = None

    @contextmanager
    def running(self, description: Mapping[str, Any]) -> Iterator[int]:
        """Hold a run for as long as a block takes; one that ends in an exception has failed."""
        run = self.begin(description)
        try:
            yield run
        except BaseException:
            self.end("failed")
            raise
        self.end()

    def runs(self) -> list[dict[str, Any]]:
        """Give all runs: number, status, times, host, its load at the start, and what :meth:`begin` was told.

        A run that neither ended nor lives was killed, and is noted as such.
        """
        with self._writing() as write:
            self._bury(write)
            rows = write("SELECT id, status, started, ended, host, load, description FROM runs ORDER BY id").fetchall()
        names = ("run", "status", "started", "ended", "host", "load")
        return [{**json.loads(row[-1]), **dict(zip(names, row[:-1], strict=True))} for row in rows]

    # What a run is about to measure

    def claim(self, what: str, about: Mapping[str, Any]) -> bool:
        """Claim a result for this run, so that another one at the same time measures something else.

        A claim ends with the result or with the run; that of a process that no longer lives is void.

        Returns:
            Whether this run may measure it: nobody has yet, and no other living run is about to.
        """
        run = self.run
        with self._writing() as write:
            subject = self._subject(what, about)
            if write("SELECT 1 FROM results WHERE subject = ?", (subject,)).fetchone():
                return False
            self._bury(write)
            write(
                "INSERT INTO claims (subject, run, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (subject, run, now()),
            )
            holder = write("SELECT run FROM claims WHERE subject = ?", (subject,)).fetchone()[0]
        return bool(holder == run)

    def _bury(self, write: Write) -> None:
        """Note which runs were killed, and free what they had claimed."""
        living = write("SELECT id, host, boot, pid, process_started FROM runs WHERE status = 'running'").fetchall()
        for run, host, boot, pid, started in living:
            if run != self._run and not Process(host=host, boot=boot, pid=pid, started=started).alive():
                write("UPDATE runs SET status = 'killed' WHERE id = ?", (run,))
                write("DELETE FROM claims WHERE run = ?", (run,))

    # How far a run is

    def mark_phases(self, phases: Sequence[Phase]) -> None:
        """Keep how far this run is."""
        run, time = self.run, now()
        with self._writing() as write:
            for phase in phases:
                write(
                    "INSERT INTO phases (run, model, phase, done, total, reused, seconds, time)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (run, model, phase) DO UPDATE SET done = excluded.done, total = excluded.total,"
                    " reused = excluded.reused, seconds = excluded.seconds, time = excluded.time",
                    (run, *dataclasses.astuple(phase), time),
                )

    def phases(self) -> dict[int, list[Phase]]:
        """Give how far each run was, in the order in which its phases come."""
        names = [field.name for field in dataclasses.fields(Phase)]
        found: dict[int, list[Phase]] = {}
        for run, *row in self._read(
            "SELECT run, model, phase, done, total, reused, seconds FROM phases ORDER BY rowid"
        ):
            found.setdefault(run, []).append(Phase(**dict(zip(names, row, strict=True))))
        return found

    # What a run has to tell

    def note(self, kind: str, what: str, reason: str) -> None:
        """Note what the summary of the run is to tell, such as ``("retried", "quick: timing", "control drifted")``."""
        run = self.run
        with self._writing() as write:
            write(
                "INSERT INTO notes (run, time, kind, what, reason) VALUES (?, ?, ?, ?, ?)",
                (run, now(), kind, what, reason),
            )

    def summary(self) -> dict[str, Any]:
        """Say what this run measured, what it took from earlier ones, and what it noted.

        Returns:
            ``{"measured": {what: number}, "reused": {what: number}, <kind of note>: [{"what", "reason", "times"}]}``.
        """
        run = self.run
        with self._lock:
            counts = {
                name: {what: number for what, seen in sorted(self._seen.items()) if (number := sum(map(mine, seen)))}
                for name, mine in (("measured", lambda s: s[1] == run), ("reused", lambda s: s[1] != run))
            }
        found: dict[str, Any] = dict(counts)
        rows = self._read("SELECT kind, what, reason FROM notes WHERE run = ? ORDER BY id", (run,))
        for (kind, what, reason), times in Counter(rows).items():
            found.setdefault(kind, []).append({"what": what, "reason": reason, "times": times})
        return found

    # How it is done

    @property
    def _name(self) -> str:
        return str(self.path) if self.path is not None else "the store in memory"

    def _count(self, what: str, subject: int, run: int, number: int = 0) -> None:
        """Remember that a result (0) or a sample of a round (from 1) is part of what this run makes its table of."""
        with self._lock:
            self._seen.setdefault(what, set()).add((subject, run, number))

    def _subject(self, what: str, about: Mapping[str, Any]) -> int:
        """Return the number of what is spoken of; inside of :meth:`_writing`."""
        key = digest(about)
        self._connection.execute(
            "INSERT INTO subjects (what, digest, about) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (what, key, canonical(about)),
        )
        row = self._connection.execute("SELECT id FROM subjects WHERE what = ? AND digest = ?", (what, key)).fetchone()
        return int(row[0])

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._broken(error) from None

    @contextmanager
    def _writing(self) -> Iterator[Write]:
        """Hold the file's one lock for writing, and give what executes a statement: all of them, or none."""
        with self._lock:
            if self._identity() != self._file:
                # SQLite would go on writing to a file without a name, which nobody finds again.
                raise InputError(f"{self._name}: the store of samples was removed or replaced while it was written")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection.execute
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._broken(error) from None

    def _identity(self) -> tuple[int, int] | None:
        """Return what tells the file from another of its name; None in memory, and where there is none."""
        try:
            found = self.path.stat() if self.path is not None else None
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None

    def _broken(self, error: sqlite3.Error) -> InputError:
        return InputError(f"{self._name}: the store of samples cannot be used any more: {error}")


def now() -> str:
    """Return the time, UTC in ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
