from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.measuring import schema
from planner.measuring.store import Sample, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.store"


def version_one(path: Path) -> None:
    """Write a store as the first version of it was, with the statements as they were then."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_ONE)
    connection.close()


VERSION_ONE = """
PRAGMA journal_mode = WAL;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'failed', 'killed')),
    started TEXT NOT NULL, ended TEXT, host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL,
    process_started REAL NOT NULL, load REAL, description TEXT NOT NULL
);
CREATE TABLE subjects (
    id INTEGER PRIMARY KEY, what TEXT NOT NULL, digest TEXT NOT NULL, about TEXT NOT NULL, UNIQUE (what, digest)
);
CREATE TABLE results (
    subject INTEGER PRIMARY KEY REFERENCES subjects (id), run INTEGER NOT NULL REFERENCES runs (id),
    time TEXT NOT NULL, value TEXT NOT NULL
);
CREATE TABLE arrays (
    subject INTEGER NOT NULL REFERENCES results (subject), name TEXT NOT NULL, kind TEXT NOT NULL,
    shape TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (subject, name)
);
CREATE TABLE samples (
    subject INTEGER NOT NULL REFERENCES subjects (id), run INTEGER NOT NULL REFERENCES runs (id),
    round INTEGER NOT NULL, nanoseconds REAL NOT NULL, control_ns REAL, mark TEXT NOT NULL, time TEXT NOT NULL,
    PRIMARY KEY (subject, run, round)
);
CREATE TABLE notes (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id), time TEXT NOT NULL, kind TEXT NOT NULL,
    what TEXT NOT NULL, reason TEXT NOT NULL
);
INSERT INTO runs VALUES (1, 'running', '2026-01-01T00:00:00+00:00', NULL, 'elsewhere', 'b', 1, 2.5, 0.5,
    '{"device":"tvm"}');
INSERT INTO subjects VALUES
    (1, 'loss', '99bc33a3a630b4639de5071d8813340f78021ea5344a96238f5af08bf6ddd334', '{"layer":"a"}'),
    (2, 'network', '99bc33a3a630b4639de5071d8813340f78021ea5344a96238f5af08bf6ddd334', '{"layer":"a"}');
INSERT INTO results VALUES (1, 1, '2026-01-01T00:00:01+00:00', '{"loss_raw": 0.5}');
INSERT INTO arrays VALUES (1, 'logits', '<f4', '[1, 2]', X'0000803F00000040');
INSERT INTO samples VALUES (2, 1, 0, 1234.5, NULL, '', '2026-01-01T00:00:02+00:00');
INSERT INTO samples VALUES (2, 1, 1, 1235.5, 1000.0, 'drifted', '2026-01-01T00:00:03+00:00');
PRAGMA application_id = 1651273323;
PRAGMA user_version = 1;
"""


def test_a_store_of_the_first_version_is_brought_to_this_one_with_all_it_holds(path: Path) -> None:
    version_one(path)
    with Store(path, create=False) as store:
        found = store.get("loss", {"layer": "a"})
        assert found is not None
        assert (found.value, found.arrays["logits"].tolist()) == ({"loss_raw": 0.5}, [[1.0, 2.0]])
        assert store.samples("network", {"layer": "a"}) == (
            Sample(round=0, nanoseconds=1234.5, run=1, time="2026-01-01T00:00:02+00:00"),
            Sample(
                round=1, nanoseconds=1235.5, control_ns=1000.0, mark="drifted", run=1, time="2026-01-01T00:00:03+00:00"
            ),
        )
        assert [(run["status"], run["device"]) for run in store.runs()] == [("killed", "tvm")]
        assert store.claim("loss", {"layer": "b"})
        store.check()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def shape(path: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {(name, "".join(sql.split())) for name, sql in rows}


def test_a_migrated_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    version_one(tmp_path / "old.store")
    for name in ("old.store", "new.store"):
        Store(tmp_path / name).close()
    assert shape(tmp_path / "old.store") == shape(tmp_path / "new.store")


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_one(path)
    before = shape(path)
    monkeypatch.setattr(schema, "STEPS", (schema.STEPS[0], (*schema.STEPS[1], "CREATE TABLE runs (x)")))
    with pytest.raises(InputError, match="table runs already exists"):
        Store(path)
    assert shape(path) == before
    monkeypatch.undo()
    with Store(path) as store:
        assert len(store.samples("network", {"layer": "a"})) == 2


def test_a_store_of_a_later_version_is_refused_and_untouched(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"t\.store is a store of version {schema.VERSION + 1}, written by a later"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_store_is_refused_by_name_and_untouched(path: Path) -> None:
    path.write_text("a letter to a friend, " * 100)
    with pytest.raises(InputError, match=r"t\.store is no store of samples, or is damaged: file is not a database"):
        Store(path)
    assert path.read_text() == "a letter to a friend, " * 100
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"t\.store is a file of SQLite, but no store of samples"):
        Store(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with Store(path) as store:
        store.put("loss", {}, 1)
        store.check()


def test_a_damaged_store_is_named(path: Path) -> None:
    with Store(path) as store:
        store.add_samples("t", {"a": 1}, [Sample(round=n, nanoseconds=1.0) for n in range(2000)])
    data = bytearray(path.read_bytes())
    page = 4096
    data[-8 * page : -2 * page] = os.urandom(6 * page)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"t\.store"), Store(path) as store:
        store.check()


def test_a_sample_without_its_run_is_found(path: Path) -> None:
    with Store(path) as store:
        store.add_samples("t", {"a": 1}, [Sample(round=0, nanoseconds=1.0)])
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM runs")
    connection.close()
    with Store(path) as store, pytest.raises(InputError, match="is damaged: samples row 1 without runs"):
        store.check()


def test_places_where_no_store_can_be_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected the name of a store"):
        Store(tmp_path)
    with pytest.raises(InputError, match="the folder of the store does not exist"):
        Store(tmp_path / "no" / "t.store")
    with pytest.raises(InputError, match="there is no such store"):
        Store(tmp_path / "t.store", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir()
    with Store(folder / "old.store") as store:
        store.put("loss", {}, 1)
    folder.chmod(0o500)
    try:
        for name in ("new.store", "old.store"):
            with pytest.raises(InputError, match=name):
                Store(folder / name)
    finally:
        folder.chmod(0o700)


def test_a_full_disk_ends_the_run_with_the_name_of_the_store(path: Path) -> None:
    with Store(path) as store:
        store.put("loss", {"n": 0}, 1)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InputError, match=r"t\.store: the store of samples cannot be used any more: .*full"):
            store.put("loss", {"n": 1}, 1, {"x": np.zeros(100000)})
        assert store.get("loss", {"n": 1}) is None
        store.check()


def test_a_store_that_is_removed_under_a_run_ends_the_run_rather_than_losing_its_samples(path: Path) -> None:
    store = Store(path)
    store.put("loss", {"n": 0}, 1)
    path.rename(path.with_suffix(".moved"))
    with pytest.raises(InputError, match=r"t\.store: the store of samples was removed or replaced"):
        store.put("loss", {"n": 1}, 1)
    path.with_suffix(".moved").rename(path)
    store.put("loss", {"n": 1}, 1)
    store.close()
    with Store(path) as again:
        assert again.counts() == ({"loss": 2}, {})


@pytest.mark.parametrize("name", ["a?b#c%20.store", "two words.store", "füße.store"])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Store(tmp_path / name) as store:
        store.put("loss", {}, 1)
    assert [file.name for file in tmp_path.iterdir()] == [name]
