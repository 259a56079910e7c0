from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import networks
import pytest
import samples

import planner
from planner.budget import Budget
from planner.cli import main
from planner.deploy import calibrated
from planner.errors import InputError
from planner.tvm_config import BuildConfig, ExpectedConfig
from planner.verify import Measured, Promise, Report, verify


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One network built as int8, and its data; the control's speed is left open, for a simulated device has none."""
    folder = tmp_path_factory.mktemp("built")
    data = samples.archive(folder)
    model = planner.load(networks.saved(networks.chain(), folder, "net"), data=data)
    table = planner.measure([model], device="simulated", rounds=2, approximations=["int8w"])
    plan = planner.plan(table, Budget(memory_mib=10.0), objective="memory", workers=1)
    planner.build(plan, [model], out=folder / "build")
    change(folder / "build", exact_latency_ns=None)
    return folder / "build", data


def change(build: Path, **updates: object) -> None:
    """Change entries of the network in a build config."""
    config = BuildConfig.read(build / "tvm_build.json")
    (network,) = config.networks
    config = config.model_copy(update={"networks": (network.model_copy(update=updates),)})
    config.write(build / "tvm_build.json")


@pytest.fixture
def copy(built: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    build, data = built
    shutil.copytree(build, tmp_path / "build")
    return tmp_path / "build", data


def test_a_build_within_its_bounds_is_kept(copy: tuple[Path, Path]) -> None:
    build, data = copy
    change(build, latency_bound_ns=10**9)
    report = verify(build, data=data)
    config = BuildConfig.read(build / "tvm_build.json")
    assert report.ok
    assert report.attempts == 1
    assert [promise.what for promise in report.promises] == ["latency of net", "memory"]
    (measured,) = report.networks
    assert 0 < measured.p50_ns <= measured.p99_ns
    assert measured.weight_bytes == config.networks[0].weight_bytes
    assert measured.arena_bytes == config.networks[0].arena_bytes
    assert report.promises[1].measured == measured.weight_bytes + measured.arena_bytes
    assert measured.images == 20
    assert measured.top1 == pytest.approx(measured.exact_top1 + measured.top1_change)
    assert "every bound is kept" in str(report)
    assert 0 < measured.onnxruntime_p50_ns <= measured.onnxruntime_p99_ns
    faster = measured.onnxruntime_p50_ns / measured.p50_ns
    assert f"this build {faster:.2f} times as fast" in str(report)


def test_a_report_of_before_onnxruntime_was_measured_is_read_and_says_nothing_of_it(tmp_path: Path) -> None:
    report((10, 12.5), (10, 10), onnxruntime_p50_ns=20.0, onnxruntime_p99_ns=30.0).write(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert "onnxruntime float32" in str(Report.read(tmp_path / "report.json"))
    for name in ("onnxruntime_p50_ns", "onnxruntime_p99_ns"):
        del told["networks"][0][name]
    (tmp_path / "old.json").write_text(json.dumps(told))
    assert "onnxruntime" not in str(Report.read(tmp_path / "old.json"))


def test_the_page_shows_what_a_user_would_run_instead() -> None:
    from planner.report import _accuracy

    shown = _accuracy(report((1, 1.0), (1, 1), onnxruntime_p50_ns=25.0, onnxruntime_p99_ns=30.0))
    assert "onnxruntime float32" in shown
    assert "this build 2.50 times as fast" in shown


def test_what_the_plan_expected_of_the_accuracy_stands_beside_what_is_measured(
    copy: tuple[Path, Path], tmp_path: Path
) -> None:
    from planner.report import _accuracy

    build, data = copy
    assert BuildConfig.read(build / "tvm_build.json").networks[0].expected is not None  # the plan knew it
    change(build, expected=ExpectedConfig(loss=0.02, loss_std=0.01, top1_change=-0.5, top1_std=0.25))
    found = verify(build, data=data)
    assert "expected: top-1 -0.50 +- 0.25 points, loss +0.0200 +- 0.0100" in str(found)
    assert "expected: top-1 -0.50" in _accuracy(found)
    found.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == found
    change(build, expected=None)
    assert "expected" not in str(verify(build, data=data))


def test_what_is_measured_is_what_the_networks_beside_it_lose(copy: tuple[Path, Path]) -> None:
    import onnx

    from planner import dataset
    from planner.accuracy import compare

    build, data = copy
    found = dataset.read(data)
    images = found.inputs("test")
    cost = compare(
        networks.run(onnx.load(build / "onnx/net.onnx"), images),
        networks.run(onnx.load(build / "onnx/net.exact.onnx"), images),
        found.test.labels,
    )
    (measured,) = verify(build, data=data).networks
    assert measured.loss == pytest.approx(cost.loss_raw, abs=1e-5)
    assert measured.loss_std == pytest.approx(cost.loss_std, abs=1e-5)


def test_a_bound_that_no_build_keeps_is_status_1_and_said(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    build, data = copy
    change(build, latency_bound_ns=1)
    assert main(["verify", str(build), "--data", str(data)]) == 1
    said = capsys.readouterr().out
    assert "BROKEN" in said
    assert "a bound is broken" in said


def test_a_broken_bound_on_memory_is_seen(copy: tuple[Path, Path]) -> None:
    build, data = copy
    config = BuildConfig.read(build / "tvm_build.json")
    (network,) = config.networks
    exactly = network.weight_bytes + network.arena_bytes
    config.model_copy(update={"memory_bound_bytes": exactly}).write(build / "tvm_build.json")
    assert verify(build, data=data).ok
    config.model_copy(update={"memory_bound_bytes": exactly - 1}).write(build / "tvm_build.json")
    assert not verify(build, data=data).ok


def test_data_of_another_shape_are_refused(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, _ = copy
    other = samples.archive(tmp_path, (1, 28, 28), name="other")
    assert main(["verify", str(build), "--data", str(other)]) == 2
    error = capsys.readouterr().err
    assert "other.npz" in error
    assert "net" in error


@pytest.mark.parametrize("name", ["model.so", "exact.so"])
def test_a_missing_module_is_refused(copy: tuple[Path, Path], name: str) -> None:
    build, data = copy
    (build / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file; the build is not whole"):
        verify(build, data=data)


def test_a_damaged_module_is_refused_with_the_reason(copy: tuple[Path, Path]) -> None:
    build, data = copy
    (build / "model.so").write_bytes(b"no library")
    with pytest.raises(InputError, match=r"cannot be measured(.|\n)*model\.so"):
        verify(build, data=data)


def test_a_folder_without_a_build_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path), "--data", str(samples.archive(tmp_path))]) == 2
    assert "tvm_build.json" in capsys.readouterr().err


def measured(name: str = "m", **more: object) -> Measured:
    """Make up what was measured of a network."""
    figures = {field.name: 0 for field in dataclasses.fields(Measured)}
    figures |= {"name": name, "p50_ns": 10.0, "control_p50_ns": 10.0, "drift": None}
    return Measured(**figures | more)


def report(latency: tuple[int, float], memory: tuple[int, int], bound: int = 10**6, **more: object) -> Report:
    """Make up a report of one network, from what was predicted and what was measured."""
    return Report(
        promises=(
            Promise(what="latency of m", bound=bound, predicted=latency[0], measured=latency[1], unit="ns"),
            Promise(what="memory", bound=bound, predicted=memory[0], measured=memory[1], unit="bytes"),
        ),
        networks=(measured(**more),),
        attempts=1,
        build="build",
    )


def test_a_report_is_written_with_every_promise_and_reads_back(tmp_path: Path) -> None:
    written = report((10, 12.5), (10, 10))
    written.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == written
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["ok"] is True
    assert told["promises"][0] == {
        "what": "latency of m", "bound": 10**6, "predicted": 10, "measured": 12.5, "unit": "ns", "kept": True
    }  # fmt: skip


@pytest.mark.parametrize(("drift", "names"), [(None, ()), (0.04, ()), (0.06, ("m",)), (-0.06, ("m",))])
def test_a_control_at_another_speed_is_named(drift: float | None, names: tuple[str, ...]) -> None:
    assert report((1, 1.0), (1, 1), drift=drift).drifted == names


def test_a_drifting_control_is_measured_again_and_the_last_stands(
    copy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, data = copy
    change(build, exact_latency_ns=1000)
    speeds = iter([2000.0, 1500.0, 1010.0, 99.0])

    def figures(*_: object) -> dict:
        speed = next(speeds)
        times = {"p50_ns": speed, "p99_ns": speed, "quantile_ns": speed}
        names = [f.name for f in dataclasses.fields(Measured)]
        return {"net": {"network": times, "control": times} | {n: 0 for n in names if n not in ("name", "drift")}}

    monkeypatch.setattr(sys.modules["planner.verify"], "_measure", figures)
    found = verify(build, data=data)
    assert found.attempts == 3
    assert found.networks[0].drift == pytest.approx(0.01)
    assert found.drifted == ()


def test_a_table_corrected_by_a_report_predicts_what_was_measured() -> None:
    from problems import small_table

    from planner.figures import figures

    table = small_table(overhead_ns=100)
    choices = {"m": {"conv1": "exact", "conv2": "int8"}}
    before = figures(table, choices, Budget())
    assert before.latency_ns["m"] == 2100
    told = report((2100, 2600.0), (before.memory_bytes, before.memory_bytes + 64))
    after = figures(calibrated(table, told), choices, Budget())
    assert 2600 <= after.latency_ns["m"] <= 2602
    assert after.memory_bytes == before.memory_bytes + 64


def test_a_table_that_promised_too_little_speed_is_left_as_it_is() -> None:
    from problems import small_table

    table = small_table()
    assert calibrated(table, report((3000, 2000.0), (4000, 3000))) == table
