"""Where every sample is kept: one file of SQLite, which a killed run finds again and two runs may share.

What is finished is a *result* (a value, and arrays that belong to it), found by what it is about; what is repeated is a
*sample* (one timing in one round).  Both name the run that made them, and so the machine, the device and the versions.
Nothing is locked while something is measured: every call is one short transaction, on disk when the call returns.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from planner.errors import InputError
from planner.measuring.files import connect
from planner.measuring.processes import Process
from planner.measuring.records import Array, Record, Sample, canonical, digest, packed, unpacked

__all__ = ["Record", "Sample", "Store"]


class Store:
    """Results and samples by what they are about; without a file, for as long as it lives.

    It may be used from several threads, and its file from several processes at once.

    Examples:
        >>> with Store(None) as store:
        ...     store.put("loss", {"layer": "conv1"}, {"loss_raw": 0.5}).value
        ...     store.put("loss", {"layer": "conv1"}, {"loss_raw": 0.7}).value
        ...     store.add_samples("network", {"build": "int8"}, [Sample(round=0, nanoseconds=1500.0)])
        ...     [sample.nanoseconds for sample in store.samples("network", {"build": "int8"})]
        {'loss_raw': 0.5}
        {'loss_raw': 0.5}
        1
        [1500.0]
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, create: bool = True) -> None:
        """Open a store, or make it.

        Args:
            path: The file; None keeps everything in memory.
            create: Whether to make a file that does not exist.

        Raises:
            InputError: The file cannot be made, read or written, is none of ours, or was written by a later version.
        """
        self.path = Path(path) if path is not None else None
        self._lock = threading.RLock()
        self._connection = connect(self.path, create=create)
        self._run: int | None = None
        self._seen: dict[str, set[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is in it already."""
        with self._lock:
            self._connection.close()

    # Results

    def get(self, what: str, about: Mapping[str, Any], *, arrays: bool = True) -> Record | None:
        """Give a finished result, or None.

        Args:
            what: The kind of result, such as ``loss``.
            about: What it is about, as JSON values; the order of keys does not matter.
            arrays: Whether to read its arrays too.
        """
        with self._lock:
            row = self._connection.execute(
                "SELECT subject, run, time, value FROM results JOIN subjects ON subjects.id = subject"
                " WHERE what = ? AND digest = ?",
                (what, digest(about)),
            ).fetchone()
            if row is None:
                return None
            subject, run, time, value = row
            self._count(what, subject, run)
            found = (
                self._connection.execute(
                    "SELECT name, kind, shape, data FROM arrays WHERE subject = ? ORDER BY name", (subject,)
                ).fetchall()
                if arrays
                else []
            )
        return Record(
            value=json.loads(value),
            arrays={name: unpacked(kind, shape, data) for name, kind, shape, data in found},
            run=run,
            time=time,
        )

    def put(self, what: str, about: Mapping[str, Any], value: Any, arrays: Mapping[str, Array] | None = None) -> Record:
        """Keep a finished result, on disk before this returns.

        The first stays: a result that is there already is left as it is, whoever made it.

        Returns:
            The result that stays; take the figures from it, so that two runs side by side end in the same ones.
        """
        text = json.dumps(value, allow_nan=False)
        blobs = [(name, *packed(array)) for name, array in (arrays or {}).items()]
        run = self.run
        with self._writing() as write:
            subject = self._subject(what, about)
            new = write(
                "INSERT INTO results (subject, run, time, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (subject, run, _now(), text),
            ).rowcount
            for blob in blobs if new else ():
                write("INSERT INTO arrays (subject, name, kind, shape, data) VALUES (?, ?, ?, ?, ?)", (subject, *blob))
        kept = self.get(what, about)
        if kept is None:
            raise RuntimeError(f"{self._name}: the result about {canonical(about)} has gone while it was written")
        return kept

    def abouts(self, what: str) -> list[dict[str, Any]]:
        """Say what all finished results of a kind are about, in the order they were finished."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT about FROM results JOIN subjects ON subjects.id = subject"
                " WHERE what = ? ORDER BY time, subject",
                (what,),
            ).fetchall()
        return [json.loads(about) for (about,) in rows]

    # Samples

    def add_samples(self, what: str, about: Mapping[str, Any], rows: Sequence[Sample]) -> int:
        """Keep timings of one thing, on disk before this returns; give how many of them are new."""
        return self.add_rounds([(what, about, rows)])

    def add_rounds(self, groups: Iterable[tuple[str, Mapping[str, Any], Sequence[Sample]]]) -> int:
        """Keep timings of many things in one transaction: all of a round, or none.

        A sample of a thing, a run and a round that are there already is left out, so none is ever doubled.  The run is
        that of this store, or the one that a sample names.

        Args:
            groups: What, about what, and its samples.

        Returns:
            How many of the samples are new.
        """
        groups, run, now, new = list(groups), self.run, _now(), 0
        with self._writing() as write:
            for what, about, rows in groups:
                subject = self._subject(what, about)
                for row in rows:
                    new += write(
                        "INSERT INTO samples (subject, run, round, nanoseconds, control_ns, mark, time)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        (
                            subject,
                            row.run or run,
                            row.round,
                            float(row.nanoseconds),
                            None if row.control_ns is None else float(row.control_ns),
                            row.mark,
                            row.time or now,
                        ),
                    ).rowcount
                    self._count(what, subject, row.run or run, row.round + 1)
        return new

    def samples(self, what: str, about: Mapping[str, Any]) -> tuple[Sample, ...]:
        """Give all timings of one thing, of this run and of earlier ones, in the order they were taken."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT subject, run, round, nanoseconds, control_ns, mark, time"
                " FROM samples JOIN subjects ON subjects.id = subject"
                " WHERE what = ? AND digest = ? ORDER BY run, round",
                (what, digest(about)),
            ).fetchall()
            for subject, run, number, *_ in rows:
                self._count(what, subject, run, number + 1)
        return tuple(
            Sample(round=number, nanoseconds=ns, control_ns=control, mark=mark, run=run, time=time)
            for _, run, number, ns, control, mark, time in rows
        )

    # Runs

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
        here = Process.here()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        with self._writing() as write:
            self._run = write(
                "INSERT INTO runs (status, started, host, boot, pid, process_started, load, description)"
                " VALUES ('running', ?, ?, ?, ?, ?, ?, ?)",
                (_now(), here.host, here.boot, here.pid, here.started, load, canonical(description)),
            ).lastrowid
            self._seen.clear()
        return self.run

    def end(self, status: str = "finished") -> None:
        """End the run that :meth:`begin` began."""
        with self._writing() as write:
            write("UPDATE runs SET status = ?, ended = ? WHERE id = ?", (status, _now(), self._run))
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
        """Give all runs; one that neither ended nor lives was killed."""
        with self._writing() as write:
            for run, host, boot, pid, started in write(
                "SELECT id, host, boot, pid, process_started FROM runs WHERE status = 'running'"
            ).fetchall():
                if not Process(host=host, boot=boot, pid=pid, started=started).alive():
                    write("UPDATE runs SET status = 'killed' WHERE id = ? AND status = 'running'", (run,))
            rows = write("SELECT id, status, started, ended, host, load, description FROM runs ORDER BY id").fetchall()
        names = ("run", "status", "started", "ended", "host", "load")
        return [{**dict(zip(names, row, strict=False)), **json.loads(row[-1])} for row in rows]

    def note(self, kind: str, what: str, reason: str) -> None:
        """Note what the summary of the run is to tell, such as ``("retried", "quick: timing", "control drifted")``."""
        run = self.run
        with self._writing() as write:
            write(
                "INSERT INTO notes (run, time, kind, what, reason) VALUES (?, ?, ?, ?, ?)",
                (run, _now(), kind, what, reason),
            )

    def summary(self) -> dict[str, Any]:
        """Say what this run measured, what it took from earlier ones, and what it noted.

        Returns:
            ``{"measured": {what: number}, "reused": {what: number}, <kind of note>: [{"what", "reason", "times"}]}``.
        """
        with self._lock:
            run = self.run
            counts = {
                name: {what: number for what, seen in sorted(self._seen.items()) if (number := sum(map(mine, seen)))}
                for name, mine in (("measured", lambda s: s[1] == run), ("reused", lambda s: s[1] != run))
            }
            rows = self._connection.execute(
                "SELECT kind, what, reason FROM notes WHERE run = ? ORDER BY id", (run,)
            ).fetchall()
        found: dict[str, Any] = dict(counts)
        for (kind, what, reason), times in Counter(rows).items():
            found.setdefault(kind, []).append({"what": what, "reason": reason, "times": times})
        return found

    def check(self) -> None:
        """Look through the whole file.

        Raises:
            InputError: SQLite finds it damaged, or a sample or result has lost what it belongs to.
        """
        with self._lock:
            faults = [row[0] for row in self._connection.execute("PRAGMA integrity_check")]
            faults = [fault for fault in faults if fault != "ok"]
            faults += [
                f"{row[0]} row {row[1]} without {row[2]}"
                for row in self._connection.execute("PRAGMA foreign_key_check")
            ]
        if faults:
            raise InputError(f"{self._name} is damaged: {'; '.join(faults[:3])}")

    # How it is done

    @property
    def _name(self) -> str:
        return str(self.path) if self.path is not None else "the store in memory"

    def _subject(self, what: str, about: Mapping[str, Any]) -> int:
        key = digest(about)
        self._connection.execute(
            "INSERT INTO subjects (what, digest, about) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (what, key, canonical(about)),
        )
        row = self._connection.execute("SELECT id FROM subjects WHERE what = ? AND digest = ?", (what, key)).fetchone()
        return int(row[0])

    def _count(self, what: str, subject: int, run: int, number: int = 0) -> None:
        """Remember that a result (0) or a sample of a round (from 1) is part of what this run makes its table of."""
        self._seen.setdefault(what, set()).add((subject, run, number))

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """Hold the file's one lock for writing, and give what executes a statement."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
