from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from planner.errors import InputError
from planner.measuring.store import Sample, Store

NANOSECONDS = 1234.5678901234567


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "t.store")
    with store.running({"device": "tvm", "threads": 1, "target": {"kind": "llvm"}}):
        store.put(
            "loss", {"model": "m", "layer": "a", "choice": "int8"}, {"loss_raw": 0.1 + 0.2, "by": {"x": [1, True]}}
        )
        store.add_samples("network", {"build": "exact"}, [Sample(round=n, nanoseconds=NANOSECONDS + n) for n in (0, 1)])
    with store.running({"device": "simulated"}):
        store.add_samples("network", {"build": "exact"}, [Sample(round=2, nanoseconds=5, control_ns=7, mark="drifted")])
    return store


def test_every_sample_and_every_figure_is_a_row_with_its_provenance(store: Store, tmp_path: Path) -> None:
    assert store.export(tmp_path / "t.csv") == 6
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    samples = [row for row in rows if row["what"] == "network"]
    assert [(r["round"], r["control_ns"], r["mark"], r["run"], r["run_device"], r["run_status"]) for r in samples] == [
        ("0", "", "", "1", "tvm", "finished"),
        ("1", "", "", "1", "tvm", "finished"),
        ("2", "7.0", "drifted", "2", "simulated", "finished"),
    ]
    assert [float(row["value"]) for row in samples] == [NANOSECONDS, NANOSECONDS + 1, 5.0]
    assert json.loads(samples[0]["about"]) == {"build": "exact"}
    assert json.loads(samples[0]["run_target"]) == {"kind": "llvm"}
    figures = {row["figure"]: float(row["value"]) for row in rows if row["what"] == "loss"}
    assert figures == {"loss_raw": 0.1 + 0.2, "by.x.0": 1.0, "by.x.1": 1.0}
    assert {(r["model"], r["layer"], r["choice"]) for r in rows if r["what"] == "loss"} == {("m", "a", "int8")}


def test_the_three_forms_hold_the_same_figures_to_the_bit(store: Store, tmp_path: Path) -> None:
    for ending in ("csv", "json", "parquet"):
        store.export(tmp_path / f"t.{ending}")
    frames = [
        pd.read_csv(tmp_path / "t.csv"),
        pd.DataFrame(json.loads((tmp_path / "t.json").read_text())),
        pd.read_parquet(tmp_path / "t.parquet"),
    ]
    for frame in frames[1:]:
        assert list(frame.columns) == list(frames[0].columns)
        for name in ("value", "control_ns", "round", "run"):
            left, right = (f[name].astype("float64").tolist() for f in (frames[0], frame))
            assert all(a == b or (a != a and b != b) for a, b in zip(left, right, strict=True)), name  # noqa: PLR0124


def test_nothing_but_the_export_is_left_in_the_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    store.export(tmp_path / "out" / "t.json")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["t.json"]


def test_an_empty_store_is_exported_as_an_empty_table(tmp_path: Path) -> None:
    with Store(None) as store:
        for ending in ("csv", "json", "parquet"):
            assert store.export(tmp_path / f"t.{ending}") == 0
    assert json.loads((tmp_path / "t.json").read_text()) == []


def test_a_form_that_cannot_be_written_is_refused_by_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"t\.xlsx: expected a file that ends in \.csv, \.json, \.parquet"):
        store.export(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match=r"no/t\.csv cannot be written: No such file"):
        store.export(tmp_path / "no" / "t.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        store.export(tmp_path / "folder.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow; install blinkplan\[parquet\]"):
        store.export(tmp_path / "t.parquet")
