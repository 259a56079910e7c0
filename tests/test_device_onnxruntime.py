from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import samples
from entries import image, whole

from costmodels import CostTable
from planner import graph as graphs
from planner import rewrite
from planner.cli import main
from planner.devices import open_device
from planner.devices.onnxruntime import Session
from planner.segments import Entry, Network


def test_a_layer_that_is_handed_bytes_is_timed_on_bytes(tmp_path: Path) -> None:
    graph = graphs.read(networks.saved(networks.chain(), tmp_path))
    images = np.random.default_rng(0).normal(size=(16, *graph.input_shape[1:])).astype(np.float32)
    new = rewrite.apply(graph, {"conv1": "int8", "conv2": "int8", "conv3": "int8"}, images, refit=False)
    entry = Entry(name="chain", model=new.model, nodes=new.nodes)
    network = Network(entry)
    types = {network.infos[name].type.tensor_type.elem_type for s in network.segments() for name in s.inputs}
    assert types & {onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    layers = open_device("onnxruntime").program(entry).sample_layers()
    assert tuple(layers) == entry.layers
    assert all(ns > 0 for ns in layers.values())


def test_what_is_timed_is_the_input_that_was_bound(tmp_path: Path) -> None:
    entry = whole(networks.chain(), tmp_path)
    given = image(entry)
    session = Session(entry.model, given, 1)
    times = session.latencies(7)
    assert times.shape == (7,)
    assert (times > 0).all()
    (bound,) = session._binding.copy_outputs_to_cpu()
    np.testing.assert_allclose(bound, networks.run(entry.model, given).reshape(bound.shape), atol=1e-5)


@pytest.mark.parametrize("choice", ["int8", "int8w"])
def test_a_table_is_measured_on_onnxruntime_from_the_command_line(choice: str, tmp_path: Path) -> None:
    model, data = networks.saved(networks.chain(), tmp_path, "net"), samples.archive(tmp_path)
    table = tmp_path / "table.json"
    arguments = ["--device", "onnxruntime", "--approximations", choice, "--rounds", "2", "-o", str(table)]
    assert main(["measure", str(model), "--data", str(data), *arguments]) == 0
    read = CostTable.read(table)
    assert read.provenance["device"] == "onnxruntime"
    offered = {layer.name: [c.name for c in layer.choices] for layer in read.model("net").layers}
    assert choice in offered["conv2"]
    assert all(c.latency_ns > 0 for layer in read.model("net").layers for c in layer.choices)
