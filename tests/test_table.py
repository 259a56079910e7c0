from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import choice, small_table, two_layers

from costmodels import (
    ChoiceCost,
    Conversion,
    CostTable,
    EdgeCosts,
    Format,
    LayerCosts,
    ModelCosts,
    TableError,
)

HEADER = "model,layer,choice,latency_ns,weight_bytes,loss"


def written(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


finite = st.floats(0, 1e6, allow_nan=False)
names = st.text("abcXYZ019_/.@+é-", min_size=1, max_size=8)
choices = st.builds(
    ChoiceCost,
    name=names,
    latency_ns=st.integers(0, 2**53),
    weight_bytes=st.integers(0, 2**53),
    loss=finite,
    activation_bytes=st.integers(0, 2**40),
    energy_nj=st.none() | st.integers(0, 10**9),
    latency_std_ns=st.none() | finite,
    loss_raw=st.none() | st.floats(-1, 1),
    loss_std=st.none() | finite,
    top1_change=st.none() | st.floats(-100, 100),
    in_format=st.builds(Format, dtype=st.sampled_from(["float32", "int8"])),
)
layers = st.builds(
    LayerCosts,
    name=names,
    choices=st.lists(choices, min_size=1, max_size=3, unique_by=lambda c: c.name).map(tuple),
    op=names,
)
models = st.builds(
    ModelCosts,
    name=names,
    layers=st.lists(layers, min_size=1, max_size=3, unique_by=lambda la: la.name).map(tuple),
    overhead_ns=st.integers(0, 10**9),
    scale=st.floats(0.1, 10),
    reference_bytes=st.none() | st.integers(0, 10**9),
)
tables = st.builds(
    CostTable,
    models=st.lists(models, min_size=1, max_size=2, unique_by=lambda m: m.name).map(tuple),
    provenance=st.dictionaries(names, st.integers() | st.text() | st.none(), max_size=3),
    refit=st.booleans(),
)


@given(table=tables)
def test_json_reads_back_identical(table: CostTable, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "identical.json"
    table.write(path)
    again = CostTable.read(path)
    assert again == table
    assert again.digest == table.digest


def test_json_keeps_edges_formats_and_ties(tmp_path: Path) -> None:
    int8 = Format(dtype="int8")
    conversion = Conversion(source_format=int8, target_format=Format(), latency_ns=7, loss=0.5)
    model = ModelCosts(
        name="m",
        layers=(
            LayerCosts(name="a", choices=(choice(), choice("int8", out_format=int8)), tie="t"),
            LayerCosts(name="b", choices=(choice(), choice("int8")), tie="t"),
        ),
        edges=(EdgeCosts(source="a", target="b", conversions=(conversion,)),),
    )
    table = CostTable(models=(model,), refit=True, provenance={"device": "cpu"})
    table.write(tmp_path / "t.json")
    assert CostTable.read(tmp_path / "t.json") == table


def test_the_digest_changes_with_any_cost() -> None:
    dearer = replace(two_layers(), overhead_ns=1)
    assert small_table().digest != CostTable(models=(dearer,)).digest


def test_csv_costs_the_same_with_constants_as_a_layer(tmp_path: Path) -> None:
    table = small_table(overhead_ns=5, fixed_bytes=6, scale=1.5)
    table.write(tmp_path / "t.csv")
    model = CostTable.read(tmp_path / "t.csv").model("m")
    assert [layer.name for layer in model.layers] == ["conv1", "conv2", "model_constants"]
    assert model.layer("conv1").choice("exact").latency_ns == 1500
    constants = model.layer("model_constants").choices
    assert [(c.latency_ns, c.weight_bytes) for c in constants] == [(5, 6)]


def test_a_foreign_csv_is_read_with_ties_and_scattered_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "m,a,exact,100,10,0,t",
        "m,b,exact,200,20,0,t",
        "",
        "m,a,int8,50.0,5,1e-3,t",
        "m,b,int8,60,6,0.002,t",
        header=HEADER + ",tie",
    )
    model = CostTable.read(path).model("m")
    assert [c.name for c in model.layer("a").choices] == ["exact", "int8"]
    assert model.layer("a").choice("int8").latency_ns == 50
    assert set(model.ties()) == {"t"}


def test_unknown_columns_are_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "m,a,exact,100,10,0,red", header=HEADER + ",colour")
    with caplog.at_level(logging.WARNING):
        CostTable.read(path)
    assert "colour" in caplog.text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["m,a,exact,100,10,0", "m,a,int8,nan,10,0"], ["line 3", "'m'", "'a'", "'int8'", "latency_ns"]),
        (["m,a,exact,100,10,inf"], ["line 2", "'exact'", "loss"]),
        (["m,a,exact,100,10,NaN"], ["line 2", "'exact'", "loss"]),
        (["m,a,exact,-1,10,0"], ["line 2", "latency_ns", "-1"]),
        (["m,a,exact,1,10,-0.5"], ["line 2", "loss", "-0.5"]),
        (["m,a,exact,,10,0"], ["line 2", "latency_ns is missing"]),
        (["m,a,,1,10,0"], ["line 2", "'a'", "choice is missing"]),
        (["m,a,exact,1.5,10,0"], ["line 2", "latency_ns", "1.5"]),
        (["m,a,exact,1_0,10,0"], ["line 2", "latency_ns"]),
        (["m,a,exact,1,2,0", "m,b,exact,1,2,0", "m,a,exact,1,2,0"], ["line 4", "twice", "line 2"]),
        (["m,a,exact,1,2"], ["line 2", "5 cells", "6"]),
        (["m=1,a,exact,1,2,0"], ["line 2", "'='"]),
        (["m,a,exact,1e30,2,0"], ["line 2", "latency_ns"]),
        ([], ["no models"]),
    ],
)
def test_a_bad_csv_is_refused_and_the_place_named(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(TableError) as refused:
        CostTable.read(path)
    assert str(path) in str(refused.value)
    for part in expected:
        assert part in str(refused.value)


def test_a_csv_without_a_required_column_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "m,a,exact,1,2", header="model,layer,choice,latency_ns,weight_bytes")
    with pytest.raises(TableError, match="the header has no loss"):
        CostTable.read(path)


def test_unlike_ties_in_one_layer_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "m,a,exact,1,2,0,t", "m,a,int8,1,2,0,u", header=HEADER + ",tie")
    with pytest.raises(TableError, match=r"line 3.*tie"):
        CostTable.read(path)


def test_a_tie_with_no_choice_in_common_is_refused() -> None:
    a = LayerCosts(name="a", choices=(choice("exact"),), tie="t")
    b = LayerCosts(name="b", choices=(choice("int8"),), tie="t")
    with pytest.raises(TableError, match="no choice is offered by every layer of the tie 't'"):
        ModelCosts(name="m", layers=(a, b))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda t: t["models"][0]["layers"][0]["choices"][0].update(loss=float("nan")),
            ["conv1", "exact", "loss"],
        ),
        (
            lambda t: t["models"][0]["layers"][0]["choices"][0].update(latency_ns=None),
            ["latency_ns is missing"],
        ),
        (
            lambda t: t["models"][0]["layers"][0]["choices"][0].pop("latency_ns"),
            ["conv1", "exact", "latency_ns"],
        ),
        (lambda t: t["models"][0]["layers"][0].update(choices=[]), ["conv1", "no choices"]),
        (lambda t: t["models"].append(t["models"][0]), ["'m'", "twice"]),
        (lambda t: t["models"][0]["layers"].append(t["models"][0]["layers"][0]), ["conv1", "twice"]),
        (lambda t: t["models"][0].update(edges=[{"source": "conv1", "target": "x"}]), ["conv1 -> x", "'x'"]),
        (lambda t: t["models"][0].update(scale=0), ["scale"]),
        (lambda t: t.update(models=[]), ["no models"]),
        (lambda t: t.update(version=99), ["version 99"]),
        (lambda t: t.update(kind="plan"), ["not a cost table"]),
    ],
)
def test_bad_json_is_refused_and_the_place_named(tmp_path: Path, change: object, expected: list[str]) -> None:
    path = tmp_path / "t.json"
    small_table().write(path)
    table = json.loads(path.read_text())
    change(table)  # type: ignore[operator]
    path.write_text(json.dumps(table))
    with pytest.raises(TableError) as refused:
        CostTable.read(path)
    for part in [str(path), *expected]:
        assert part in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"kind": 1, "kind": 2}', "[" * 100000])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(TableError, match=r"t\.json"):
        CostTable.read(path)


@pytest.mark.parametrize("name", ["missing.json", "table.txt", "table"])
def test_a_file_that_is_not_there_or_has_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=name):
        CostTable.read(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(TableError, match="No space left"):
        small_table().write(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.json"]


def test_a_conversion_without_a_cost_is_refused() -> None:
    a = LayerCosts(name="a", choices=(choice(out_format=Format(dtype="int8")),))
    b = LayerCosts(name="b", choices=(choice(),))
    with pytest.raises(TableError, match="cost of converting int8/any to float32/any is missing"):
        ModelCosts(name="m", layers=(a, b), edges=(EdgeCosts(source="a", target="b"),))


def test_unlike_masks_cannot_meet() -> None:
    edge = EdgeCosts(source="a", target="b")
    assert edge.cost(Format(mask="half"), Format()) is None
    with pytest.raises(TableError, match="unlike masks"):
        Conversion(source_format=Format(mask="half"), target_format=Format(), latency_ns=1)


def test_numpy_numbers_become_plain_ones() -> None:
    import numpy as np

    cost = choice(latency_ns=np.int64(5), loss=np.float32(0.5))
    assert type(cost.latency_ns) is int
    assert type(cost.loss) is float


@pytest.mark.parametrize("bad", [True, "5", None, -1, 1.5, float("nan"), 2**60])
def test_what_is_no_count_is_refused(bad: object) -> None:
    with pytest.raises(TableError, match="weight_bytes"):
        choice(weight_bytes=bad)


def test_the_frame_has_one_row_a_choice_and_the_print_one_line_a_layer() -> None:
    frame = small_table().to_frame()
    assert list(frame["choice"]) == ["exact", "lowrank@0.5", "exact", "int8"]
    assert "m: 2 layers, 4 choices" in str(small_table())


def test_asking_for_a_model_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(TableError, match=r"'x'.*there are: m"):
        small_table().model("x")
