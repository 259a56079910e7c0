from __future__ import annotations

import importlib.util
from pathlib import Path

import networks
import numpy as np
import pytest
from entries import compiled, image, raw, whole
from networks import Builder

from planner import compiler, linking
from planner.artefact import Artefact
from planner.errors import InputError
from planner.segments import Entry


def small() -> Entry:
    b = Builder((1, 3, 6, 6))
    return raw(b.model(b.add("Relu", [b.conv("image", "conv", (8, 3, 3, 3))], name="relu")))


def test_a_library_on_disk_computes_what_the_module_in_memory_computes(tmp_path: Path) -> None:
    entry = small()
    found, artefact = compiled(entry)
    compiler.export(found, tmp_path / "model.so")
    assert [p.name for p in tmp_path.iterdir()] == ["model.so"]
    loaded = Artefact.load(tmp_path / "model.so")
    given = image(entry)
    np.testing.assert_array_equal(loaded.run("net", given), artefact.run("net", given))
    assert loaded.weights_sha256("net", given) == artefact.weights_sha256("net", given)


def test_without_a_compiler_and_ziglang_what_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install blinkplan\[linker\].*apt-get install gcc"):
        linking.linker()


def test_without_a_compiler_ziglang_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang", reason="ziglang is not installed")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "ziglang" in linking.linker()
    entry = small()
    found, artefact = compiled(entry)
    compiler.export(found, tmp_path / "model.so")
    given = image(entry)
    np.testing.assert_array_equal(Artefact.load(tmp_path / "model.so").run("net", given), artefact.run("net", given))


def test_a_failed_link_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "linker", lambda mtriple=None: ("false",))
    with pytest.raises(RuntimeError, match="linking failed"):
        compiler.export(compiled(small())[0], tmp_path / "model.so")
    assert list(tmp_path.iterdir()) == []


def test_a_processor_whose_instructions_are_hidden_is_compiled_for_at_the_level_it_shows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tvm.target import codegen

    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: "skylake-avx512")
    shown = frozenset({"avx2", "fma", "bmi2", "f16c", "sse4_2", "ssse3", "popcnt"})
    monkeypatch.setattr(compiler, "_flags", lambda: shown)
    monkeypatch.setattr(compiler.platform, "machine", lambda: "x86_64")
    assert compiler.host_target(2) == {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2}
    assert "hides instructions of a skylake-avx512" in caplog.text


def test_a_processor_that_shows_all_it_has_is_taken_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm.target import codegen

    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: "haswell")
    shown = frozenset({"avx2", "fma", "bmi2", "f16c", "sse4_2", "ssse3", "popcnt"})
    monkeypatch.setattr(compiler, "_flags", lambda: shown)
    assert compiler.host_target()["mcpu"] == "haswell"


def test_two_networks_live_in_one_module(tmp_path: Path) -> None:
    model = networks.residual()
    entries = [whole(model, tmp_path, "one"), whole(networks.chain(1), tmp_path, "two")]
    found = compiler.compile_networks(entries, compiler.host_target())
    artefact = Artefact(found.executable)
    for entry in entries:
        given = networks.images(entry.model, 2)
        np.testing.assert_allclose(artefact.run(entry.name, given), networks.run(entry.model, given), atol=1e-5)
    assert set(found.plans) == {"one", "two"}


def test_the_storage_plan_is_what_the_machine_allocates(tmp_path: Path) -> None:
    entry = whole(networks.residual(), tmp_path)
    found, artefact = compiled(entry)
    trace = artefact.trace("net", image(entry))
    assert sorted(trace.storages) == sorted(found.plans["net"])


def test_names_every_pass_in_order() -> None:
    names = compiler.pass_names()
    assert names.index("BlockedLayout") < names.index("FuseOps") < names.index("PlaceInOneStorage")
    assert names[-1] == "AttachGlobalSymbol"
    assert compiler.pass_context()["opt_level"] >= 0
