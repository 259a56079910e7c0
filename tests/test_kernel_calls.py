from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
from entries import compiled, image, whole

from planner import graph as graphs
from planner import rewrite
from planner.devices.tvm import counted
from planner.kernel_calls import Operand, read
from planner.segments import Entry


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_what_is_read_off_the_module_is_what_a_watched_run_shows(network: str, tmp_path: Path) -> None:
    model = networks.NETWORKS[network]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    entry = whole(model, tmp_path)
    made, artefact = compiled(entry)
    seen, told = artefact.trace(entry.name, image(entry)), read(made.module, entry.name)
    assert [step.kernel for step in told.trace.steps] == [step.kernel for step in seen.steps]
    assert [step.alive for step in told.trace.steps] == [step.alive for step in seen.steps]
    assert told.trace.storages == seen.storages
    assert told.trace.weight_bytes == seen.weight_bytes
    assert counted(entry, told.trace, made.workspaces) == counted(entry, seen, made.workspaces)


def test_stored_codes_are_counted_and_handed_on_as_they_are(tmp_path: Path) -> None:
    graph = graphs.read(networks.saved(networks.chain(), tmp_path))
    images = np.random.default_rng(0).normal(size=(16, *graph.input_shape[1:])).astype(np.float32)
    new = rewrite.apply(graph, {"conv2": "int8w", "conv3": "int8", "dense1": "int4w"}, images, refit=False)
    entry = Entry(name="chain", model=new.model, nodes=new.nodes)
    made, artefact = compiled(entry)
    seen, told = artefact.trace(entry.name, image(entry)), read(made.module, entry.name)
    assert counted(entry, told.trace, made.workspaces) == counted(entry, seen, made.workspaces)
    assert {o.dtype for call in told.calls for o in call.operands if o.value is not None} > {"float32"}


def test_operands_are_those_that_the_machine_hands_to_each_kernel(tmp_path: Path) -> None:
    entry = whole(networks.chain(), tmp_path)
    made, artefact = compiled(entry)
    watched = artefact._calls(entry.name, image(entry))
    for call, (kernel, tensors) in zip(read(made.module, entry.name).calls, watched, strict=True):
        assert call.kernel == kernel
        shown = [tensor.numpy() for tensor in tensors]
        assert [(o.shape, o.dtype) for o in call.operands] == [(s.shape, str(s.dtype)) for s in shown]
        for operand, array in zip(call.operands, shown, strict=True):
            if operand.value is not None:
                np.testing.assert_array_equal(operand.value, array)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32"])
def test_an_activation_stands_in_for_numbers_of_its_type(dtype: str) -> None:
    made = Operand(shape=(64, 3), dtype=dtype).example(np.random.default_rng(0))
    assert (made.shape, str(made.dtype)) == ((64, 3), dtype)
    assert np.isfinite(made.astype(np.float64)).all()
    assert len(np.unique(made)) > 20
