from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from entries import HASWELL, OLD, compiled, raw, whole
from integers import Quantiser, assert_as_the_reference, quantise_statically, reference
from light import light
from networks import Builder, run

import planner
from planner.segments import Entry

if TYPE_CHECKING:
    from pathlib import Path


def block(kind: type = np.uint8) -> onnx.ModelProto:
    """A residual block, a maximum, two branches that are joined, means and a dense layer, all of bytes."""
    b = Builder((1, 3, 12, 12))
    q = Quantiser(b, kind)
    off = 0 if kind is np.uint8 else -128

    def conv(x: str, name: str, shape: tuple[int, ...], scale: float, zero: int, **attributes: Any) -> str:
        w = q.weights(shape, f"{name}_w", scale=0.02)
        bias = q.bias(w, shape[0], f"{name}_b", scale=0.05)
        y = b.add("Conv", [x, w, bias], name=name, **attributes)
        return q.point(y, f"{name}_q", scale, zero + off)

    x = q.point("image", "in", 0.02, 130 + off)
    x = conv(x, "stem", (16, 3, 3, 3), 0.09, 0, pads=[1, 1, 1, 1])
    y = conv(x, "a", (16, 16, 1, 1), 0.3, 128)
    x = b.add("Add", [y, x], name="add")
    x = q.point(b.add("Relu", [x], name="relu"), "sum", 0.2, 0 + off)
    x = q.point(b.add("MaxPool", [x], name="max", kernel_shape=[3, 3], strides=[2, 2]), "max_q", 0.2, 0 + off)
    left = conv(x, "left", (32, 16, 1, 1), 0.5, 0)
    right = conv(x, "right", (20, 16, 3, 3), 1.0, 12, pads=[1, 1, 1, 1])
    x = q.point(b.add("Concat", [left, right], name="join", axis=1), "join_q", 0.9, 5 + off)
    x = conv(x, "after", (24, 52, 1, 1), 5.0, 100)
    x = q.point(b.add("AveragePool", [x], name="mean", kernel_shape=[2, 2]), "mean_q", 4.5, 90 + off)
    x = b.add("Flatten", [x], name="flat")
    w = q.weights((10, 24 * 16), "fc_w", scale=0.01)
    x = b.add("Gemm", [x, w, q.bias(w, 10, "fc_b", scale=4.5)], name="fc", transB=1)
    return b.model(q.point(x, "logits", 100.0, 128 + off))


@pytest.mark.parametrize(
    ("kind", "target"),
    [(np.uint8, None), (np.int8, None), (np.int8, HASWELL), (np.uint8, OLD)],
    ids=["unsigned", "signed", "signed on avx2", "unsigned on sse"],
)
def test_a_chain_of_layers_stays_in_bytes_and_equals_its_reference(kind: type, target: dict | None) -> None:
    found = assert_as_the_reference(raw(block(kind)), target)
    kinds = [text.split()[0] for text in found.schedules.values()]
    assert kinds.count("int8_convolution") == 6
    assert not {"convolution", "dense"} & set(kinds)
    assert not any(found.workspaces.values())


def test_a_residual_sum_is_rounded_in_the_kernel_of_its_convolution() -> None:
    found, _ = compiled(raw(block()))
    assert any("conv2d" in name and "add" in name for name in found.schedules)


SHIPPED = ("quick", "resnet8", "vggs")


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_quantised_by_onnxruntime_equal_their_reference(
    name: str, tmp_path: Path, *, signed: bool
) -> None:
    from onnxruntime.quantization import QuantType

    source = planner.load(planner.shipped(f"models/{name}.onnx")).graph
    with np.load(planner.shipped("fashion_mnist.npz")) as data:
        images, tests = data["calibration_images"][:32].astype(np.float32), data["test_images"][:6].astype(np.float32)
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    path = quantise_statically(source.model, tmp_path / f"{name}.onnx", images, activation_type=kind)
    graph = planner.load(path).graph
    assert graph.classes == source.classes
    # Rounding belongs to the layer whose result is rounded; only that of the image has none.
    assert {layer.name for layer in graph.layers} - {layer.name for layer in source.layers} == {
        f"{source.input_name}_QuantizeLinear"
    }
    entry = Entry(name="net", model=graph.model, nodes={layer.name: layer.nodes for layer in graph.layers})
    _, artefact = compiled(entry)
    got = artefact.run("net", tests)
    np.testing.assert_array_equal(got, np.stack([reference(graph.model, image[None]) for image in tests]))
    # What onnxruntime computes step by step in float32 differs by a step of the last grid at most, and seldom.
    theirs = run(graph.model, tests)
    assert np.mean(got == theirs) > 0.9
    assert np.abs(got - theirs).max() < 0.02 * np.abs(theirs).max()


def test_a_well_known_network_equals_its_reference(tmp_path: Path) -> None:
    source = whole(light("squeezenet"), tmp_path)
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 3, 224, 224)).astype(np.float32)
    path = quantise_statically(source.model, tmp_path / "int8.onnx", images)
    entry = raw(planner.load(path).graph.model)
    _, artefact = compiled(entry)
    got = artefact.run("net", images[:1])
    expected = reference(entry.model, images[:1])
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=1 / 255)  # softmax is float32: one step of its grid
    assert np.mean(got[0] == expected) > 0.99


def test_a_quantised_network_is_measured_like_any_other(tmp_path: Path) -> None:
    data = planner.shipped("fashion_mnist.npz")
    source = planner.load(planner.shipped("models/quick.onnx")).graph
    with np.load(data) as arrays:
        images = arrays["calibration_images"][:16].astype(np.float32)
    path = quantise_statically(source.model, tmp_path / "quick.onnx", images)
    table = planner.measure([planner.load(path, data=data)], approximations=["exact"], rounds=2)
    (model,) = table.models
    measured = {layer.name: layer.choices[0] for layer in model.layers}
    weighty = [layer.name for layer in source.layers if layer.macs]
    assert all(measured[name].latency_ns > 0 for name in weighty)
    # A quarter, and what channels padded to 16 (a single one to 4), scales and offsets take.
    assert sum(cost.weight_bytes for cost in measured.values()) < 0.4 * source.parameter_bytes
