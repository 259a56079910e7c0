from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import networks
import numpy as np
import pytest
import samples

import planner
from planner.artefact import Artefact
from planner.budget import Budget
from planner.cli import main
from planner.errors import InputError
from planner.tvm_config import BuildConfig

ROUNDS = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Two networks, measured on the simulated device, planned and built together."""
    folder = tmp_path_factory.mktemp("made")
    data = planner.dataset.read(samples.archive(folder))
    paths = {
        "one": networks.saved(networks.chain(), folder, "one"),
        "two": networks.saved(networks.chain(1), folder, "two"),
    }
    models = [planner.load(path, data=data, name=name) for name, path in paths.items()]
    table = planner.measure(models, device="simulated", rounds=ROUNDS, approximations=["int8w", "perforate"])
    exact = sum(choice.weight_bytes for m in table.models for layer in m.layers for choice in layer.choices[:1])
    plan = planner.plan(table, Budget(memory_mib=0.75 * exact / 2**20), workers=1)
    assert any(name != "exact" for chosen in plan.choices.values() for name in chosen.values())
    build = planner.build(plan, models, out=folder / "build")
    return models, plan, build, folder


def outputs(build, name: str, images: np.ndarray) -> np.ndarray:
    return Artefact.load(build.module).run(name, images)


def test_a_build_holds_the_config_the_module_its_control_and_the_networks(made) -> None:
    _, _, build, folder = made
    assert sorted(p.relative_to(build.path).as_posix() for p in build.path.rglob("*") if p.is_file()) == [
        "exact.so",
        "model.so",
        "onnx/one.exact.onnx",
        "onnx/one.onnx",
        "onnx/two.exact.onnx",
        "onnx/two.onnx",
        "tvm_build.json",
    ]
    assert sorted(p.name for p in folder.iterdir()) == ["build", "data.npz", "one.onnx", "two.onnx"]


def test_the_config_reads_back_as_it_was(made) -> None:
    _, _, build, _ = made
    assert BuildConfig.read(build.path / "tvm_build.json") == build.config


def test_the_config_says_what_the_plan_says(made) -> None:
    _, plan, build, _ = made
    config = build.config
    assert {n.name: {layer.name: layer.choice for layer in n.layers} for n in config.networks} == {
        name: dict(choices) for name, choices in plan.choices.items()
    }
    assert {n.name: n.latency_ns for n in config.networks} == dict(plan.latency_ns)
    assert config.memory_bytes == plan.memory_bytes
    assert config.memory_bound_bytes == plan.budget.memory_bytes
    assert config.table_digest == plan.table_digest


def test_every_kernel_of_the_config_has_a_layer_and_a_schedule(made) -> None:
    _, _, build, _ = made
    names = {n.name: {layer.name for layer in n.layers} for n in build.config.networks}
    assert {k.network for k in build.config.kernels} == {"one", "two"}
    for kernel in build.config.kernels:
        assert kernel.layer in names[kernel.network]
    assert any(k.schedule.startswith("convolution pixels=") for k in build.config.kernels)


def test_the_module_computes_what_the_networks_beside_it_compute(made) -> None:
    import onnx

    models, _, build, _ = made
    images = models[0].data().inputs("test")[:4]
    for network in build.config.networks:
        for file, module in ((network.onnx, "model.so"), (network.exact_onnx, "exact.so")):
            expected = networks.run(onnx.load(build.path / file), images)
            got = Artefact.load(build.path / module).run(network.name, images)
            np.testing.assert_allclose(got, expected, atol=2e-5)


def test_int8_weights_are_smaller_in_the_artefact_than_in_its_control(made) -> None:
    models, plan, build, _ = made
    given = models[0].data().inputs("test")[:1]
    module, control = Artefact.load(build.module), Artefact.load(build.path / build.config.exact_module)
    for network in build.config.networks:
        assert module.trace(network.name, given).weight_bytes == network.weight_bytes
        if any("int8w" in choice for choice in plan.choices[network.name].values()):
            assert network.weight_bytes < control.trace(network.name, given).weight_bytes


def test_building_again_in_another_folder_gives_the_same_weights_and_outputs(made, tmp_path: Path) -> None:
    models, _, build, _ = made
    copy = tmp_path / "sent"
    copy.mkdir()
    shutil.copy(build.path / "tvm_build.json", copy)
    shutil.copytree(build.path / "onnx", copy / "onnx")
    assert main(["build", str(copy / "tvm_build.json"), "-o", str(tmp_path / "again")]) == 0
    again = BuildConfig.read(tmp_path / "again" / "tvm_build.json")
    for first, second in zip(build.config.networks, again.networks, strict=True):
        assert second.weights_sha256 == first.weights_sha256
        assert (second.weight_bytes, second.arena_bytes) == (first.weight_bytes, first.arena_bytes)
    images = models[0].data().inputs("test")[:5]
    for name in ("one", "two"):
        np.testing.assert_array_equal(
            Artefact.load(tmp_path / "again" / "model.so").run(name, images), outputs(build, name, images)
        )


def resent(build, folder: Path, change) -> Path:
    """Copy what another machine is sent, its config altered, and give where the config lies."""
    content = json.loads((build.path / "tvm_build.json").read_text())
    change(content)
    shutil.copytree(build.path / "onnx", folder / "onnx")
    (folder / "tvm_build.json").write_text(json.dumps(content))
    return folder / "tvm_build.json"


def convolution(kernels) -> dict[str, str]:
    return next(k for k in kernels if k["schedule"].startswith("convolution "))


def test_a_schedule_that_no_heuristic_would_choose_is_built_again(made, tmp_path: Path) -> None:
    _, _, build, _ = made
    written = {}

    def change(content) -> None:
        for kernels in (content["kernels"], content["exact_kernels"]):
            kernel = convolution(kernels)
            family, *parameters = kernel["schedule"].split()
            others = [p if not p.startswith("pixels=") else "pixels=1" for p in parameters]
            kernel["schedule"] = " ".join([family, *others])
            written[kernel["name"]] = kernel["schedule"]

    again = planner.rebuild(resent(build, tmp_path, change), out=tmp_path / "again")
    sent = BuildConfig.read(tmp_path / "tvm_build.json")
    assert again.config.kernels == sent.kernels != build.config.kernels
    assert again.config.exact_kernels == sent.exact_kernels != build.config.exact_kernels
    assert again.config.options == build.config.options
    images = made[0][0].data().inputs("test")[:3]
    np.testing.assert_allclose(outputs(again, "one", images), outputs(build, "one", images), atol=1e-5)


def test_a_build_is_made_again_alike_where_the_heuristics_have_changed(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from planner.schedules.families.convolution import ConvolutionRule

    models, plan, build, _ = made
    default = ConvolutionRule.default
    monkeypatch.setattr(ConvolutionRule, "default", lambda self, kernel: {**default(self, kernel), "pixels": 1})
    config = resent(build, tmp_path, lambda content: None)
    again = planner.rebuild(config, out=tmp_path / "again")
    assert again.config.kernels == build.config.kernels
    assert again.config.exact_kernels == build.config.exact_kernels
    fresh = planner.build(plan, models, out=tmp_path / "fresh")
    assert fresh.config.kernels != build.config.kernels


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (lambda kernel: kernel.update(name="m0l9_gone"), "no kernel 'm0l9_gone' to schedule; there are: fused_m0"),
        (
            lambda kernel: kernel.update(schedule="dense rows=1"),
            "is no schedule for it; expected one like 'convolution ",
        ),
        (lambda kernel: kernel.update(schedule="convolution pixels"), "is no schedule for it"),
        (lambda kernel: kernel.update(schedule="convolution tile=4"), "'convolution tile=4' is no schedule for it"),
        (lambda kernel: kernel.update(schedule=kernel["schedule"].replace("=", "=-")), "does not fit it"),
    ],
)
@pytest.mark.parametrize("module", ["kernels", "exact_kernels"])
def test_a_schedule_written_down_for_another_kernel_is_refused_and_nothing_is_left(
    made, tmp_path: Path, alter, expected: str, module: str
) -> None:
    _, _, build, _ = made
    sent = tmp_path / "sent"
    config = resent(build, sent, lambda content: alter(convolution(content[module])))
    with pytest.raises(InputError) as refused:
        planner.rebuild(config, out=tmp_path / "again")
    assert expected in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["sent"]


@pytest.mark.parametrize("module", ["kernels", "exact_kernels"])
def test_a_kernel_without_a_schedule_is_refused_by_name(made, tmp_path: Path, module: str) -> None:
    _, _, build, _ = made
    lost = []

    def change(content) -> None:
        lost.append(convolution(content[module])["name"])
        content[module] = [k for k in content[module] if k["name"] != lost[0]]

    with pytest.raises(InputError) as refused:
        planner.rebuild(resent(build, tmp_path / "sent", change), out=tmp_path / "again")
    assert f"kernel {lost[0]!r}: no schedule was written down for it" in str(refused.value)


@pytest.mark.parametrize("name", ["one.onnx", "two.exact.onnx"])
def test_an_altered_network_is_refused_and_nothing_is_left(
    made, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _, _, build, _ = made
    sent = tmp_path / "sent"
    shutil.copytree(build.path, sent)
    content = bytearray((sent / "onnx" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (sent / "onnx" / name).write_bytes(content)
    assert main(["build", str(sent / "tvm_build.json"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "SHA-256" in error
    assert [p.name for p in tmp_path.iterdir()] == ["sent"]


def test_a_network_that_is_gone_is_refused(made, tmp_path: Path) -> None:
    _, _, build, _ = made
    shutil.copy(build.path / "tvm_build.json", tmp_path)
    with pytest.raises(InputError, match=r"onnx/one\.onnx: cannot be read"):
        planner.rebuild(tmp_path / "tvm_build.json", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_come_out_otherwise_are_refused_and_nothing_is_left(made, tmp_path: Path) -> None:
    _, _, build, _ = made
    sent = tmp_path / "sent"
    shutil.copytree(build.path, sent)
    told = json.loads((sent / "tvm_build.json").read_text())
    told["networks"][0]["weights_sha256"] = "0" * 64
    (sent / "tvm_build.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"weights of one came out as .* expected 000000000000"):
        planner.rebuild(sent / "tvm_build.json", out=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["sent"]


def test_a_folder_that_holds_something_else_is_refused_and_untouched(made, tmp_path: Path) -> None:
    models, plan, _, _ = made
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis: is not empty and holds no build"):
        planner.build(plan, models, out=out)
    assert (out / "chapter.txt").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


def test_a_file_in_the_way_is_refused_and_untouched(made, tmp_path: Path) -> None:
    models, plan, _, _ = made
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        planner.build(plan, models, out=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_earlier_build_is_replaced_only_by_a_whole_one(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, plan, build, _ = made
    out = tmp_path / "out"
    shutil.copytree(build.path, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the compiler broke")

    monkeypatch.setattr("planner.compiler.compile_networks", fail)
    with pytest.raises(RuntimeError, match="the compiler broke"):
        planner.build(plan, models, out=out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    with pytest.raises(RuntimeError, match="the compiler broke"):
        planner.build(plan, models, out=tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_whole_build_replaces_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tvm_build.json").write_text("{}")
    (out / "stale").write_text("old")
    folder_of = importlib.import_module("planner.build")._Folder
    with folder_of(out) as folder:
        (folder / "tvm_build.json").write_text("new")
    assert [p.name for p in out.iterdir()] == ["tvm_build.json"]
    assert (out / "tvm_build.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_missing_model_is_named(made, tmp_path: Path) -> None:
    models, plan, _, _ = made
    with pytest.raises(InputError, match="no model was given for two"):
        planner.build(plan, models[:1], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_other_layers_is_refused(made, tmp_path: Path) -> None:
    models, plan, _, _ = made
    path = networks.saved(networks.residual(), tmp_path, "one")
    other = planner.load(path, data=samples.archive(tmp_path, (2, 8, 8)), name="one")
    with pytest.raises(InputError, match="'one' and the plan differ in their layers"):
        planner.build(plan, [other, models[1]], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_for_another_number_of_threads_is_refused(made, tmp_path: Path) -> None:
    models, plan, _, _ = made
    target = {"kind": "llvm", "mcpu": "haswell", "num-cores": 4}
    with pytest.raises(InputError, match="4 cores, but 1 threads"):
        planner.build(plan, models, out=tmp_path / "out", target=target)
    assert list(tmp_path.iterdir()) == []


def test_prints_where_it_is_and_what_is_in_it(made) -> None:
    _, _, build, _ = made
    assert "model.so: one, two for " in str(build)
