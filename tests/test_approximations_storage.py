"""Weights stored in fewer bytes: what is offered, what it costs, and that the build has it."""

from __future__ import annotations

import numpy as np
import pytest
from entries import assert_as_onnxruntime, compiled, image
from hypothesis import given
from hypothesis import strategies as st
from networks import CLASSES, Builder, chain, images, residual, run, saved
from onnx import TensorProto, numpy_helper

from planner.approximations import fp16w, int4w
from planner.graph import read
from planner.rewrite import EXACT, applicable, apply, offers
from planner.segments import Entry

IMAGES = 32
CHOICES = ("fp16w", "int4w")


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
    assert choice not in applicable(graph)["conv"]
    assert applicable(graph, choice)["conv"] == (EXACT, choice)
    assert f"lowrank@0.5+{choice}" in applicable(graph, ["lowrank", choice])["conv"]


def test_int4_is_offered_where_it_saves_bytes(graph, tmp_path) -> None:
    assert "3 inputs" in offers(graph)["stem"]["int4w"].reason
    assert "no weights" in offers(graph)["pool"]["int4w"].reason
    assert offers(graph)["hidden"]["int4w"].choices == ("int4w",)
    assert "16 groups" in offers(read(saved(residual(), tmp_path)))["depthwise"]["int4w"].reason


def test_float16_is_offered_for_weights_in_its_range(tmp_path) -> None:
    model = chain(1)
    assert offers(read(saved(model, tmp_path)))["conv2"]["fp16w"].choices == ("fp16w",)
    (weight,) = (item for item in model.graph.initializer if item.name == "conv2.w")
    large = numpy_helper.to_array(weight) * np.float32(1e6)
    weight.CopyFrom(numpy_helper.from_array(large, weight.name))
    assert "beyond 65,504" in offers(read(saved(model, tmp_path)))["conv2"]["fp16w"].reason


@pytest.mark.parametrize(("choice", "share"), [("fp16w", 0.5), ("int4w", 0.5 / 4 + 1 / 32)])
def test_the_bytes_that_are_promised_are_those_of_the_build(graph, choice: str, share: float) -> None:
    found = rewritten(graph, choice)
    exact = graph.layer("conv")
    weights = exact.parameter_bytes - 4 * 24
    assert found.parameter_bytes["conv"] == share * weights + 4 * 24
    entry = entry_of(found)
    trace = compiled(entry)[1].trace("net", image(entry))
    # Outputs are filled up to whole blocks of 16: 32 filters for 24, and 16 for the 5 classes.
    assert trace.weight_bytes <= 1.5 * sum(found.parameter_bytes.values())
    assert trace.weight_bytes < sum(layer.parameter_bytes for layer in graph.layers) * (share + 0.2)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_build_computes_what_onnxruntime_computes(graph, choice: str) -> None:
    assert_as_onnxruntime(entry_of(rewritten(graph, choice)))


@pytest.mark.parametrize(("choice", "least"), [("fp16w", 2e-3), ("int4w", 0.2)])
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


@given(outputs=st.integers(1, 5), inputs=st.integers(1, 70), taps=st.integers(1, 3), seed=st.integers(0, 99))
def test_groups_of_4_bits_are_off_by_less_than_those_that_clip_nothing(outputs, inputs, taps, seed) -> None:
    weight = np.random.default_rng(seed).standard_t(4, (outputs, inputs, taps)).astype(np.float32)
    whole, scale = int4w.quantise(weight)
    assert whole.shape == weight.shape
    assert -8 <= whole.min() <= whole.max() <= 7
    assert scale.shape == (outputs, -(-inputs // 32), taps)

    def error(whole, scale):
        return ((whole * np.repeat(scale, 32, axis=1)[:, :inputs] - weight) ** 2).sum()

    padded = np.pad(weight, ((0, 0), (0, -inputs % 32), (0, 0))).reshape(outputs, -1, 32, taps)
    plain = np.maximum(np.abs(padded).max(axis=2) / 7, 1e-30)
    naive = np.rint(weight / np.repeat(plain, 32, axis=1)[:, :inputs])
    assert error(whole, scale) <= error(naive, plain) * (1 + 1e-5) + 1e-12


def test_names_of_the_choices_are_those_of_the_files() -> None:
    assert (*fp16w.CHOICES, *int4w.CHOICES) == CHOICES
