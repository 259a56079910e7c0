from __future__ import annotations

import os
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import samples
from networks import Builder
from problems import small_table

from planner.cli import main

HEADER = "model,layer,choice,latency_ns,weight_bytes,loss"
GOOD = "m,a,exact,10,20,0"


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(arguments: list[object], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused with status 2 and leave nothing, and give what it said."""
    before = contents(folder)
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert "Traceback" not in error
    assert contents(folder) == before
    return error


def unsupported(folder: Path) -> Path:
    b = Builder((1, 3, 10, 8))
    return networks.saved(b.model(b.add("NonZero", ["image"], name="odd")), folder, "net")


def unknown(folder: Path) -> Path:
    b = Builder((1, 3, 10, 8))
    return networks.saved(b.model(b.add("Fancy", ["image"], name="odd", domain="com.example")), folder, "net")


def no_network(folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(b"GIF89a is no network\n" * 40)
    return path


def truncated(folder: Path) -> Path:
    path = networks.saved(networks.chain(), folder, "net")
    path.write_bytes(path.read_bytes()[:3000])
    return path


def open_size(folder: Path) -> Path:
    b = Builder(("n", 3, "height", 8))
    x = b.add("GlobalAveragePool", [b.conv("image", "conv", (networks.CLASSES, 3, 3, 3))], name="pool")
    return networks.saved(b.model(b.add("Flatten", [x], name="flat")), folder, "net")


def missing(folder: Path) -> Path:
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (missing, ["no such file"]),
        (no_network, ["not an ONNX model"]),
        (truncated, []),
        (unsupported, ["'odd'", "NonZero"]),
        (unknown, ["'odd'", "Fancy", "com.example"]),
        (open_size, ["'image'", "height", "no size"]),
    ],
)
def test_a_bad_network_is_refused_by_name(make, said: list[str], tmp_path: Path, capsys) -> None:
    path, data = make(tmp_path), samples.archive(tmp_path)
    command = ["measure", path, "--data", data, "--device", "simulated", "-o", tmp_path / "t.json"]
    error = refused(command, tmp_path, capsys)
    for part in ["net.onnx", *said]:
        assert part in error


def test_a_size_left_open_can_be_given(tmp_path: Path) -> None:
    command = ["measure", open_size(tmp_path), "--data", samples.archive(tmp_path), "--device", "simulated"]
    command += ["--rounds", "1", "--approximations", "int8w", "-o", tmp_path / "t.json"]
    assert main([*map(str, command), "--input-shape", "1,3,10,8"]) == 0


@pytest.mark.parametrize("shape", ["3,10,8", "1,3,ten,8", "1,3,0,8", "1,3,10,-8"])
def test_a_bad_shape_is_refused(shape: str, tmp_path: Path, capsys) -> None:
    command = ["measure", open_size(tmp_path), "--data", samples.archive(tmp_path), "--device", "simulated"]
    command += ["-o", tmp_path / "t.json", f"--input-shape={shape}"]
    assert repr(shape) in refused(command, tmp_path, capsys)


def foreign_labels(folder: Path) -> Path:
    return samples.archive(folder, classes=networks.CLASSES + 3)


def other_shape(folder: Path) -> Path:
    return samples.archive(folder, (3, 8, 10))


def no_data(folder: Path) -> Path:
    (folder / "data.npz").write_bytes(b"PK but no archive")
    return folder / "data.npz"


def half_the_data(folder: Path) -> Path:
    arrays = dict(np.load(samples.archive(folder)))
    del arrays["test_labels"]
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (foreign_labels, ["label", "chain tells 5 classes"]),
        (other_shape, ["(3, 8, 10)", "chain takes (3, 10, 8)"]),
        (no_data, []),
        (half_the_data, ["test_labels"]),
    ],
)
def test_bad_data_are_refused_by_name(make, said: list[str], tmp_path: Path, capsys) -> None:
    path = networks.saved(networks.chain(), tmp_path, "chain")
    command = ["measure", path, "--data", make(tmp_path), "--device", "simulated", "-o", tmp_path / "t.json"]
    error = refused(command, tmp_path, capsys)
    for part in ["data.npz", *said]:
        assert part in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--device", "abacus"], ["unknown device 'abacus'", "simulated", "tvm", "onnxruntime"]),
        (["--approximations", "magic"], ["magic", "int8w", "lowrank", "perforate"]),
        (["--rounds", "0"], ["rounds is 0"]),
        (["--threads", "0"], ["threads is 0"]),
        (["--device", "tvm:far"], ["'far'"]),
        (["-o", "/no/such/folder/t.json"], ["/no/such/folder"]),
        (["-o", "table.txt"], ["table.txt", ".json or .csv"]),
        (["--store", "/no/such/folder/t.store"], ["/no/such/folder/t.store", "folder of the store does not exist"]),
        (["--store", "/"], ["/ is a folder; expected the name of a store"]),
        (["--store", "same.json", "-o", "same.json"], ["same.json is both the table and the store"]),
        (["--export", "t.xlsx"], ["t.xlsx", ".csv, .json, .parquet"]),
        (["--status"], ["--status measures nothing", "chain.onnx"]),
    ],
)
def test_bad_arguments_of_measuring_are_refused(more: list[str], said: list[str], tmp_path: Path, capsys) -> None:
    path = networks.saved(networks.chain(), tmp_path, "chain")
    command = ["measure", path, "--data", samples.archive(tmp_path), "--device", "simulated"]
    error = refused([*command, "-o", tmp_path / "t.json", *more], tmp_path, capsys)
    for part in said:
        assert part in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], ["no networks to measure", "--status", "--export"]),
        (["--status"], ["no store is named", "--store", "-o"]),
        (["--status", "--store", "none.store"], ["none.store", "there is no such store"]),
        (["--export", "t.csv", "-o", "none.json"], ["none.store", "there is no such store"]),
        (["--status", "--store", "letter.txt"], ["letter.txt is no store", "not a database"]),
    ],
)
def test_looking_into_a_store_that_is_none_is_refused(
    more: list[str], said: list[str], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("a letter to a friend, " * 100)
    monkeypatch.chdir(tmp_path)
    error = refused(["measure", *more], tmp_path, capsys)
    for part in said:
        assert part in error


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, "m,b,exact,inf,1,0"], ["line 3", "'b'", "latency_ns"]),
        ([GOOD, "m,b,exact,1,-1,0"], ["line 3", "'b'", "weight_bytes"]),
        ([GOOD, "m,b,exact,1,1,-0.5"], ["line 3", "'b'", "loss"]),
        ([GOOD, "m,b,exact,1,,0"], ["line 3", "'b'", "weight_bytes"]),
        ([GOOD, GOOD], ["line 3", "'a'", "'exact'"]),
        ([GOOD, "m,b,exact,1"], ["line 3", "4 cells; expected 6"]),
    ],
)
def test_a_bad_line_of_a_table_is_named(lines: list[str], said: list[str], tmp_path: Path, capsys) -> None:
    path = tmp_path / "costs.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    error = refused(["plan", path, "-o", tmp_path / "plan.json"], tmp_path, capsys)
    for part in ["costs.csv", *said]:
        assert part in error


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    small_table().write(tmp_path / "t.json")
    assert main(["plan", str(tmp_path / "t.json"), "-o", str(tmp_path / "plan.json"), "--workers", "1"]) == 0
    return tmp_path / "plan.json"


def test_building_a_network_that_the_plan_is_not_for_is_refused(plan: Path, tmp_path: Path, capsys) -> None:
    network, data = networks.saved(networks.chain(), tmp_path, "net"), samples.archive(tmp_path)
    capsys.readouterr()
    command = ["build", plan, "--data", data, "-o", tmp_path / "build"]
    assert "'m'" in refused([*command, "--model", f"m={network}"], tmp_path, capsys)
    assert "for m" in refused([*command, "--model", f"x={network}"], tmp_path, capsys)
    assert "expected name=file.onnx" in refused([*command, "--model", network], tmp_path, capsys)
    assert "--data is missing" in refused(["build", plan, "-o", tmp_path / "build"], tmp_path, capsys)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"kind": "blinkplan tvm build"}'])
def test_building_what_is_no_plan_is_refused(content: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "odd.json"
    path.write_text(content)
    data = [] if "kind" in content else ["--data", samples.archive(tmp_path)]
    assert "odd.json" in refused(["build", path, *data, "-o", tmp_path / "build"], tmp_path, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(plan: Path, tmp_path: Path, capsys) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    error = refused(["plan", tmp_path / "t.json", "-o", closed / "plan.json"], tmp_path, capsys)
    assert "cannot be written" in error


def test_a_build_in_a_folder_that_cannot_be_is_refused(tmp_path: Path, capsys) -> None:
    """A file stands where the folder's parent would be: not even root can write there."""
    import planner

    data = samples.archive(tmp_path)
    model = planner.load(networks.saved(networks.chain(), tmp_path, "net"), data=data)
    table = planner.measure([model], device="simulated", rounds=1, approximations=["int8w"])
    planner.plan(table, planner.Budget(memory_mib=1), workers=1).write(tmp_path / "plan.json")
    (tmp_path / "file").write_text("mine")
    command = ["build", tmp_path / "plan.json", "--model", f"net={tmp_path / 'net.onnx'}", "--data", data]
    assert "file" in refused([*command, "-o", tmp_path / "file" / "build"], tmp_path, capsys)
    assert "is a file" in refused([*command, "-o", tmp_path / "file"], tmp_path, capsys)
    assert (tmp_path / "file").read_text() == "mine"
    altered = onnx.load(tmp_path / "net.onnx")
    altered.doc_string = "another file"
    onnx.save(altered, tmp_path / "net.onnx")
    error = refused([*command, "-o", tmp_path / "build"], tmp_path, capsys)
    assert "'net' is not the network that was measured" in error
