from __future__ import annotations

from typing import Any

import pytest

import planner
from planner import compiler, rewrite
from planner.artefact import Artefact
from planner.calibration import Calibration
from planner.segments import Entry


@pytest.fixture(scope="module")
def quick() -> tuple[Any, Calibration]:
    model = planner.load(planner.shipped("models/quick.onnx"), data=planner.shipped("fashion_mnist.npz"))
    images = model.data().inputs("calibration")[:8]
    return model, Calibration(model.graph, images, equalise=False)


def entry(quick: tuple[Any, Calibration], name: str, **choices: str) -> Entry:
    model, calibration = quick
    chosen = {layer.name: choices.get(layer.name, "exact") for layer in model.graph.layers}
    rewritten = rewrite.apply(model.graph, chosen, calibration, refit=False)
    return Entry(name=name, model=rewritten.model, nodes=rewritten.nodes)


def test_networks_that_share_kernels_compute_what_they_compute_alone(quick: tuple[Any, Calibration]) -> None:
    entries = [entry(quick, "one"), entry(quick, "other", conv3="lowrank@0.5")]
    found = compiler.compile_networks(entries, compiler.host_target(), merged=True)
    both = Artefact(found.executable)
    images = quick[0].data().inputs("validation")[:3]
    for item in entries:
        alone = Artefact(compiler.compile_networks([item], compiler.host_target()).executable)
        assert (both.run(item.name, images) == alone.run(item.name, images)).all()
        steps = both.trace(item.name, images[:1]).steps
        assert len(found.named(item.name, [step.kernel for step in steps])) == len(steps)
    run = {step.kernel for item in entries for step in both.trace(item.name, images[:1]).steps}
    assert len(run) < sum(len(both.trace(item.name, images[:1]).steps) for item in entries)
    # Kernels that do the same are one: no two of those that are left have the same signature.
    assert len({found.signatures[kernel] for kernel in run}) == len(run)


def test_bytes_that_are_read_as_numbers_stay_in_blocks(quick: tuple[Any, Calibration]) -> None:
    import tvm

    kind = tvm.target.Target(compiler.host_target())
    fused = compiler.fuse_networks([entry(quick, "net", conv1="int8")], kind)
    names = [var.name_hint for var in fused.get_global_vars()]
    assert not [name for name in names if "l1_" in name and "to_plain" in name]
