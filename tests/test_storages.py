"""One storage for the tensors of a network, in the module and as it is promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest
from entries import compiled, image, raw, whole
from networks import Builder

from planner import compiler
from planner.artefact import Artefact

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from planner.compiler import Compiled
    from planner.segments import Entry


def residual() -> onnx.ModelProto:
    """Blocks whose input is added to what they compute."""
    b = Builder((1, 3, 12, 12))
    x = b.add("Relu", [b.conv("image", "stem", (16, 3, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    for block in range(3):
        y = b.add("Relu", [b.conv(x, f"first{block}", (16, 16, 3, 3), pads=[1, 1, 1, 1])], name=f"relu{block}")
        y = b.conv(y, f"second{block}", (16, 16, 3, 3), pads=[1, 1, 1, 1])
        x = b.add("Relu", [b.add("Add", [y, x], name=f"sum{block}")], name=f"sum_relu{block}")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="pool")], name="flat")
    return b.model(b.dense(x, "fc", networks.CLASSES, 16))


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The network as measuring and building take it."""
    return whole(residual(), tmp_path_factory.mktemp("residual"))


@pytest.fixture(scope="module")
def built(entry: Entry) -> tuple[Compiled, Artefact]:
    """The network compiled for this machine."""
    return compiled(entry)


def test_a_network_allocates_one_storage_and_its_result(entry: Entry, built: tuple[Compiled, Artefact]) -> None:
    found, artefact = built
    arena, result = found.plans[entry.name]
    assert result == networks.CLASSES * 4
    assert artefact.trace(entry.name, image(entry)).storages == (arena, result)


def test_what_is_promised_without_compiling_is_what_the_artefact_takes(
    entry: Entry, built: tuple[Compiled, Artefact], tmp_path: Path
) -> None:
    found, artefact = built
    script = compiler.memory_script(entry, compiler.host_target())
    given = image(entry)
    assert script.bytes == artefact.trace(entry.name, given).activation_bytes
    compiler.export(found, tmp_path / "model.so")
    loaded = Artefact.load(tmp_path / "model.so")
    assert loaded.trace(entry.name, given).activation_bytes == script.bytes
    np.testing.assert_array_equal(loaded.run(entry.name, given), artefact.run(entry.name, given))


def test_sums_are_written_over_what_they_add(entry: Entry) -> None:
    script = compiler.memory_script(entry, compiler.host_target())
    sums = [call for call in script.calls if call.over]
    assert len(sums) == 3
    tensors, numbers, _ = script.tensors()
    packing = script.pack()
    place = dict(zip(numbers, packing.offsets, strict=True))
    for call in sums:
        ((written, read),) = call.over
        assert place[written] == place[read]
    assert packing.optimal
    assert all(tensor.within is None or tensors[tensor.within].last == tensor.born for tensor in tensors)


def test_outputs_are_those_of_tensors_that_lie_apart(
    entry: Entry, built: tuple[Compiled, Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.concatenate([image(entry, seed) for seed in range(4)])
    together = built[1].run(entry.name, images)
    monkeypatch.setattr(compiler, "_plan", compiler._allocate)
    found, artefact = compiled(entry)
    assert len(found.plans[entry.name]) > 5
    np.testing.assert_array_equal(artefact.run(entry.name, images), together)


def test_a_run_does_not_change_the_result_of_an_earlier_one(entry: Entry, built: tuple[Compiled, Artefact]) -> None:
    _, artefact = built
    one, other = image(entry, 0), image(entry, 1)
    function = artefact._machine[entry.name]
    first = function(artefact.tensor(one))
    kept = first.numpy().copy()
    function(artefact.tensor(other))
    np.testing.assert_array_equal(first.numpy(), kept)


def test_networks_of_one_module_have_a_storage_each() -> None:
    b = Builder((1, 3, 6, 6))
    model = b.model(
        b.conv(b.add("Relu", [b.conv("image", "first", (8, 3, 3, 3))], name="relu"), "second", (8, 8, 3, 3))
    )
    entries = [raw(model, "one"), raw(model, "other")]
    artefact = Artefact(compiler.compile_networks(entries, compiler.host_target()).executable)
    for entry in entries:
        trace = artefact.trace(entry.name, image(entry))
        assert trace.activation_bytes == compiler.memory_script(entry, compiler.host_target()).bytes
        assert max(step.alive for step in trace.steps) <= trace.activation_bytes


def test_a_network_of_one_kernel_needs_no_storage_but_its_result() -> None:
    b = Builder((1, 4, 4, 4))
    entry = raw(b.model(b.add("Relu", ["image"], name="relu")))
    found, artefact = compiled(entry)
    given = image(entry)
    np.testing.assert_array_equal(artefact.run(entry.name, given), np.maximum(given, 0).reshape(1, -1))
    assert sum(found.plans[entry.name]) + given.nbytes == compiler.memory_script(entry, compiler.host_target()).bytes
