"""Weights stored in fewer bytes: what is offered, what it costs, and that the build has it."""

from __future__ import annotations

import numpy as np
import pytest
from entries import assert_as_onnxruntime, compiled, image
from networks import CLASSES, Builder, chain, images, residual, run, saved
from onnx import TensorProto, numpy_helper

from planner.approximations import cluster, fp16w, int4w, intw
from planner.batching import batchable
from planner.errors import InputError
from planner.execution import run_model
from planner.graph import read
from planner.rewrite import applicable, apply, offers
from planner.segments import Entry

IMAGES = 32
CHOICES = ("fp16w", "int4w", "int4w@64", "int4w@128", "intw@3", "cluster@16", "cluster@8", "cluster@4")


def network():
    """A convolution and two dense layers, of enough inputs for groups of 4-bit weights."""
    b = Builder((1, 3, 8, 8))
    x = b.add("Relu", [b.conv("image", "stem", (32, 3, 3, 3), pads=[1, 1, 1, 1])], name="relu1")
    x = b.add("Relu", [b.conv(x, "conv", (24, 32, 3, 3))], name="relu2")
    x = b.add("Flatten", [b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])], name="flat")
    x = b.add("Relu", [b.dense(x, "hidden", 40, 24 * 9)], name="relu3")
    return b.model(b.dense(x, "classifier", CLASSES, 40))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory):
    return read(saved(network(), tmp_path_factory.mktemp("storage")))


def rewritten(graph, choice: str):
    calibration = images(graph.model, IMAGES)
    chosen = {layer: choice for layer, offered in applicable(graph, choice).items() if choice in offered}
    return apply(graph, chosen, calibration, refit=False)


def entry_of(found) -> Entry:
    return Entry(name="net", model=found.model, nodes=found.nodes)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_storage_on_request_is_no_part_of_the_default(graph, choice: str) -> None:
    assert choice not in applicable(graph)["hidden"]
    assert choice in applicable(graph, choice)["hidden"]
    module = choice.partition("@")[0]
    assert f"lowrank@0.5+{choice}" in applicable(graph, ["lowrank", module])["hidden"]


def test_int4_is_offered_where_it_saves_bytes(graph, tmp_path) -> None:
    assert "3 inputs" in offers(graph)["stem"]["int4w"].reason
    assert "no weights" in offers(graph)["pool"]["int4w"].reason
    assert offers(graph)["hidden"]["int4w"].choices == ("int4w", "int4w@64", "int4w@128")
    assert offers(graph)["conv"]["int4w"].choices == ("int4w",)
    assert offers(graph)["conv"]["intw"].choices == ("intw@3",)
    assert offers(graph)["hidden"]["cluster"].choices == ("cluster@16", "cluster@8", "cluster@4")
    assert "16 groups" in offers(read(saved(residual(), tmp_path)))["depthwise"]["int4w"].reason


def test_float16_is_offered_for_weights_in_its_range(tmp_path) -> None:
    model = chain(1)
    assert offers(read(saved(model, tmp_path)))["conv2"]["fp16w"].choices == ("fp16w",)
    (weight,) = (item for item in model.graph.initializer if item.name == "conv2.w")
    large = numpy_helper.to_array(weight) * np.float32(1e6)
    weight.CopyFrom(numpy_helper.from_array(large, weight.name))
    assert "beyond 65,504" in offers(read(saved(model, tmp_path)))["conv2"]["fp16w"].reason


@pytest.mark.parametrize(
    ("choice", "bits", "multipliers"),
    [
        ("fp16w", 16, 0),
        ("int4w", 4, 9),
        ("intw@3", 3, 9),
        ("cluster@16", 4, 0),
        ("cluster@8", 3, 0),
        ("cluster@4", 2, 0),
    ],
)
def test_the_bytes_that_are_promised_are_those_of_the_build(graph, choice: str, bits: int, multipliers: int) -> None:
    found = rewritten(graph, choice)
    table = int(choice.partition("@")[2]) if "cluster" in choice else 0
    each = multipliers + 4 * (choice != "fp16w") + 4  # an output's multipliers, its scale and its bias
    assert found.parameter_bytes["conv"] == 24 * (32 * 9 * bits // 8 + each) + table
    entry = entry_of(found)
    trace = compiled(entry)[1].trace("net", image(entry))
    # Outputs are filled up to whole blocks of 16: 32 filters for 24, and 16 for the 5 classes.
    assert trace.weight_bytes <= 1.5 * sum(found.parameter_bytes.values())
    assert trace.weight_bytes < sum(layer.parameter_bytes for layer in graph.layers) * (bits / 32 + 0.2)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_build_computes_what_onnxruntime_computes(graph, choice: str) -> None:
    assert_as_onnxruntime(entry_of(rewritten(graph, choice)))


@pytest.mark.parametrize(("choice", "least"), [("fp16w", 2e-3), ("int4w", 0.15), ("cluster@8", 0.4)])
def test_outputs_are_near_the_exact_ones(graph, choice: str, least: float) -> None:
    x = images(graph.model, 16, seed=3)
    exact, near = run(graph.model, x), run(rewritten(graph, choice).model, x)
    assert 0 < np.abs(near - exact).max() <= least * np.abs(exact).max()


def test_weights_of_4_bits_are_stored_as_such(graph) -> None:
    found = rewritten(graph, "int4w")
    kinds = {item.name: item.data_type for item in found.model.graph.initializer}
    assert [name for name, kind in kinds.items() if kind == TensorProto.INT4]


def test_factors_are_stored_in_4_bits_where_they_have_enough_inputs(graph) -> None:
    calibration = images(graph.model, IMAGES)
    found = apply(graph, {"conv": "lowrank@0.5+int4w"}, calibration, refit=False)
    widened = [node.input[1] for node in found.model.graph.node if node.op_type == "Conv"]
    assert "conv.reduce.weight.float32" in widened
    assert_as_onnxruntime(entry_of(found))


def test_powers_of_two_are_offered_where_a_basis_has_columns_to_join(graph) -> None:
    assert offers(graph)["conv"]["po2"].choices == ("po2@0.5", "po2@0.25")
    assert "single column" in offers(graph)["hidden"]["po2"].reason
    assert "3 inputs" in offers(graph)["stem"]["po2"].reason
    found = apply(graph, {"conv": "po2@0.5"}, images(graph.model, IMAGES), refit=False)
    coefficients, places, basis = 24 * 16 * 9 // 2, 24 * 16 * 3 // 4, 24 * 9
    assert found.parameter_bytes["conv"] == coefficients + places + basis + 24 * 4 * 2
    assert_as_onnxruntime(entry_of(found))


@pytest.mark.parametrize("choice", ["fp16w", "int4w", "intw@3", "cluster@8", "po2@0.5"])
def test_a_rewritten_network_is_read_again_as_it_is_and_runs_on_batches(graph, tmp_path, choice: str) -> None:
    found = rewritten(graph, choice)
    again = read(saved(found.model, tmp_path))
    assert batchable(again.model, again.shapes)
    x = images(graph.model, 6, seed=4)
    np.testing.assert_allclose(run_model(again.model, x), run(found.model, x), rtol=1e-4, atol=1e-4)
    conv = next(layer for layer in again.layers if layer.name == "conv")
    assert conv.parameter_bytes == found.parameter_bytes["conv"]


def test_names_of_the_choices_are_those_of_the_files() -> None:
    assert (*fp16w.CHOICES, *int4w.CHOICES, *intw.CHOICES, *cluster.CHOICES) == CHOICES


@pytest.mark.parametrize("choice", ["int4w", "cluster@8", "po2@0.5"])
def test_weights_that_are_no_numbers_are_refused_by_the_name_of_their_layer(tmp_path, choice: str) -> None:
    model = network()
    (weight,) = (item for item in model.graph.initializer if item.name == "conv.w")
    broken = numpy_helper.to_array(weight).copy()
    broken[3, 5, 1, 2] = np.nan
    weight.CopyFrom(numpy_helper.from_array(broken, weight.name))
    with pytest.raises(InputError, match="layer 'conv': its weights hold NaN"):
        apply(read(saved(model, tmp_path)), {"conv": choice}, images(model, 4), refit=False)
