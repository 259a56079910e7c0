"""Where every sample is kept: one file of SQLite, which a killed run finds again and two runs may share.

What is finished is a *result* (a value, and arrays that belong to it), found by what it is about; what is repeated is a
*sample* (one timing in one round).  Both name the run that made them, and so the machine, the device and the versions.
Nothing is locked while something is measured: every call is one short transaction, on disk when the call returns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from time import sleep
from typing import Any, TypeVar

from planner.errors import InputError
from planner.measuring.records import Array, Record, Sample, canonical, digest, packed, unpacked
from planner.measuring.runs import Runs, now

__all__ = ["Record", "Sample", "Store"]

_PAUSE_S = 0.1
"""How long to wait before looking again whether another run has finished what it claimed."""

Key = TypeVar("Key", bound=Hashable)


class Store(Runs):
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

    # Results

    def get(self, what: str, about: Mapping[str, Any], *, arrays: bool = True) -> Record | None:
        """Give a finished result, or None.

        Args:
            what: The kind of result, such as ``loss``.
            about: What it is about, as JSON values; the order of keys does not matter.
            arrays: Whether to read its arrays too.
        """
        rows = self._read(
            "SELECT subject, run, time, value FROM results JOIN subjects ON subjects.id = subject"
            " WHERE what = ? AND digest = ?",
            (what, digest(about)),
        )
        if not rows:
            return None
        subject, run, time, value = rows[0]
        self._count(what, subject, run)
        # A result is never changed or removed, and its arrays came in the same transaction.
        found = (
            self._read("SELECT name, kind, shape, data FROM arrays WHERE subject = ? ORDER BY name", (subject,))
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
                (subject, run, now(), text),
            ).rowcount
            for blob in blobs if new else ():
                write("INSERT INTO arrays (subject, name, kind, shape, data) VALUES (?, ?, ?, ?, ?)", (subject, *blob))
            write("DELETE FROM claims WHERE subject = ?", (subject,))
        kept = self.get(what, about)
        if kept is None:
            raise InputError(f"{self._name}: the result about {canonical(about)} has gone while it was written")
        return kept

    def abouts(self, what: str) -> list[dict[str, Any]]:
        """Say what all finished results of a kind are about, in the order they were finished."""
        rows = self._read(
            "SELECT about FROM results JOIN subjects ON subjects.id = subject WHERE what = ? ORDER BY time, subject",
            (what,),
        )
        return [json.loads(about) for (about,) in rows]

    def share(self, what: str, wanted: Mapping[Key, Mapping[str, Any]]) -> Iterator[Key]:
        """Give what this run has to measure, so that runs at the same time share the work rather than repeat it.

        Each is claimed just before it is given; :meth:`put` its result.  What another living run has claimed comes
        last, and only if that run was killed or failed.  When this ends, every one is in the store or was given.

        Args:
            what: The kind of results.
            wanted: What each is about, by any key.

        Yields:
            The keys of those that nobody has measured.
        """
        waiting = dict(wanted)
        while waiting:
            left = {}
            for key, about in waiting.items():
                if self.claim(what, about):
                    yield key
                elif self.get(what, about, arrays=False) is None:
                    left[key] = about
            if left:
                sleep(_PAUSE_S)
            waiting = left

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
        groups, run, time, new = list(groups), self.run, now(), 0
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
                            row.time or time,
                        ),
                    ).rowcount
                    self._count(what, subject, row.run or run, row.round + 1)
        return new

    def samples(self, what: str, about: Mapping[str, Any]) -> tuple[Sample, ...]:
        """Give all timings of one thing, of this run and of earlier ones, in the order they were taken."""
        rows = self._read(
            "SELECT subject, run, round, nanoseconds, control_ns, mark, time"
            " FROM samples JOIN subjects ON subjects.id = subject"
            " WHERE what = ? AND digest = ? ORDER BY run, round",
            (what, digest(about)),
        )
        for subject, run, number, *_ in rows:
            self._count(what, subject, run, number + 1)
        return tuple(
            Sample(round=number, nanoseconds=ns, control_ns=control, mark=mark, run=run, time=time)
            for _, run, number, ns, control, mark, time in rows
        )

    # The whole

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Say how many results and how many samples of each kind there are."""
        query = "SELECT what, count(*) FROM {} JOIN subjects ON subjects.id = subject GROUP BY what ORDER BY what"
        return dict(self._read(query.format("results"))), dict(self._read(query.format("samples")))

    def check(self) -> None:
        """Look through the whole file.

        Raises:
            InputError: SQLite finds it damaged, or a sample or result has lost what it belongs to.
        """
        faults = [row[0] for row in self._read("PRAGMA integrity_check") if row[0] != "ok"]
        faults += [f"{row[0]} row {row[1]} without {row[2]}" for row in self._read("PRAGMA foreign_key_check")]
        if faults:
            raise InputError(f"{self._name} is damaged: {'; '.join(faults[:3])}")

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all samples and results, with where they come from, as one long table; give its number of rows.

        Args:
            path: A ``.csv``, ``.json`` or ``.parquet``; the last needs ``blinkplan[parquet]``.

        Raises:
            InputError: The file cannot be written, or its ending is none of these.
        """
        from planner.measuring.exporting import write_table

        with self._lock:
            return write_table(self._connection, self.runs(), path)
