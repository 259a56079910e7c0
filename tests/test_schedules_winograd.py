from __future__ import annotations

import re

import networks
import numpy as np
import onnx
import pytest
from entries import HASWELL, OLD, image, raw
from networks import Builder
from onnx import numpy_helper

from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target, memory_script
from planner.devices.tvm import TvmDevice
from planner.graph import read
from planner.rewrite import applicable, apply, offers
from planner.schedules import Options
from planner.schedules.families.winograd import FILTER, INPUT, OUTPUT, pack
from planner.segments import Entry

CASES = {
    "a map of even size": ((1, 16, 8, 12), (32, 16, 3, 3), [1, 1, 1, 1]),
    "a map of odd size": ((1, 32, 13, 7), (16, 32, 3, 3), [1, 1, 1, 1]),
    "no padding": ((1, 16, 10, 10), (48, 16, 3, 3), [0, 0, 0, 0]),
    "no padding of an odd size": ((1, 16, 11, 9), (16, 16, 3, 3), [0, 0, 0, 0]),
    "padding on two sides": ((1, 16, 9, 10), (20, 16, 3, 3), [0, 2, 1, 0]),
    "outputs that fill no block": ((1, 16, 7, 7), (37, 16, 3, 3), [1, 1, 1, 1]),
    "many channels": ((1, 256, 14, 14), (256, 256, 3, 3), [1, 1, 1, 1]),
}
TARGETS = pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])


def network(shape, filters, pads):
    b = Builder(shape)
    return b.model(b.add("Relu", [b.conv("image", "conv", filters, pads=pads)], name="relu"))


def schedules_and_output(model, target=None, **keywords):
    entry = raw(model)
    found = compile_networks([entry], target or host_target(), options=Options(winograd=True), **keywords)
    return found, Artefact(found.executable).run(entry.name, image(entry))


def assert_right(model, got) -> None:
    expected = networks.run(model, image(raw(model)))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@TARGETS
@pytest.mark.parametrize("case", CASES)
def test_winograd_computes_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    model = network(*CASES[case])
    found, got = schedules_and_output(model, target)
    assert any(text.startswith("winograd ") for text in found.schedules.values())
    assert_right(model, got)


def test_its_error_is_below_a_millionth_of_the_largest_output() -> None:
    model = network((1, 64, 20, 20), (64, 64, 3, 3), [1, 1, 1, 1])
    _, got = schedules_and_output(model)
    constants = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    weight, bias = (constants[name] for name in model.graph.node[0].input[1:])
    padded = np.pad(image(raw(model)).astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weight) + bias.reshape(1, -1, 1, 1)
    error = np.abs(got - np.maximum(expected, 0).reshape(got.shape)).max() / np.abs(expected).max()
    assert 0 < error < 1e-6


def test_the_transforms_give_the_convolution_of_one_tile() -> None:
    rng = np.random.default_rng(0)
    tile, weights = rng.normal(size=(4, 4)), rng.normal(size=(3, 3))
    b, g, a = (np.asarray(matrix, float) for matrix in (INPUT, FILTER, OUTPUT))
    got = a @ ((g @ weights @ g.T) * (b @ tile @ b.T)) @ a.T
    expected = [[(tile[y : y + 3, x : x + 3] * weights).sum() for x in range(2)] for y in range(2)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_packed_weights_are_the_transformed_ones_and_take_16_ninths_of_the_bytes() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 48, 3, 3)).astype(np.float32)
    packed = pack(weight)
    assert packed.shape == (2, 16, 3, 16, 16)
    assert packed.nbytes * 9 == weight.nbytes * 16
    g = np.asarray(FILTER)
    assert packed[1, 6, 2, 5, 3] == pytest.approx((g @ weight[19, 37] @ g.T)[1, 2])


@pytest.mark.parametrize(
    ("filters", "attributes"),
    [
        ((16, 16, 1, 1), {}),
        ((16, 16, 3, 3), {"strides": [2, 2]}),
        ((16, 16, 3, 3), {"dilations": [2, 2]}),
        ((16, 8, 3, 3), {"group": 2}),
        ((8, 16, 3, 3), {}),
    ],
    ids=["pointwise", "strided", "dilated", "grouped", "few outputs"],
)
def test_other_convolutions_stay_direct(filters, attributes) -> None:
    b = Builder((1, 16, 12, 12))
    model = b.model(b.add("Relu", [b.conv("image", "conv", filters, **attributes)], name="relu"))
    found, got = schedules_and_output(model)
    assert not any(text.startswith("winograd") for text in found.schedules.values())
    assert_right(model, got)


def test_it_is_off_unless_asked_for() -> None:
    entry = raw(network(*CASES["a map of even size"]))
    found = compile_networks([entry], host_target())
    assert not any(text.startswith("winograd") for text in found.schedules.values())


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_written_schedule_is_the_one_that_runs(rows: int) -> None:
    model = network(*CASES["a map of even size"])
    found, expected = schedules_and_output(model)
    (name,) = (name for name, text in found.schedules.items() if text.startswith("winograd"))
    text = f"winograd rows={rows} tiles=3 blocks=2 unroll=2 threads=0"
    again, got = schedules_and_output(model, chosen={name: text})
    assert again.schedules[name] == text
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_what_lies_between_the_steps_counts_as_workspace() -> None:
    model = network((1, 64, 28, 28), (64, 64, 3, 3), [1, 1, 1, 1])
    found, _ = schedules_and_output(model, HASWELL)
    (name,) = (name for name, text in found.schedules.items() if text.startswith("winograd"))
    chunk = int(re.search(r"rows=(\d+)", found.schedules[name])[1]) * 14
    script = memory_script(raw(model), HASWELL, Options(winograd=True))
    (needed,) = (call.workspace_bytes for call in script.calls if call.kernel == name)
    assert needed >= 16 * 64 * chunk * 4
    assert needed < 16 * 64 * 14 * 14 * 4  # less than the transform of the whole map
    assert not found.workspaces[name]  # it lies in the network's storage


@pytest.fixture
def graph(tmp_path):
    b = Builder((1, 3, 12, 12))
    x = b.conv("image", "first", (16, 3, 3, 3), pads=[1, 1, 1, 1])
    for name in ("second", "third"):
        x = b.add("Relu", [b.conv(x, name, (16, 16, 3, 3), pads=[1, 1, 1, 1])], name=f"relu_{name}")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="pool")], name="flat")
    return read(networks.saved(b.model(b.dense(x, "fc", networks.CLASSES, 16)), tmp_path))


def test_the_choice_runs_the_exact_layer_and_is_offered_where_the_kernel_takes_it(graph) -> None:
    choices = applicable(graph, "winograd")
    assert choices == applicable(graph, "exact+winograd")
    assert {layer for layer, names in choices.items() if names == ("exact", "exact+winograd")} == {"second", "third"}
    assert "3 and writes 16 channels" in offers(graph)["first"]["winograd"].reason
    assert not any("winograd" in name for names in applicable(graph).values() for name in names)


def test_only_chosen_layers_are_computed_so_and_their_values_stay(graph, tmp_path) -> None:
    images = networks.images(graph.model, 4)
    rewritten = apply(graph, {"third": "exact+winograd"}, images)
    np.testing.assert_array_equal(networks.run(rewritten.model, images), networks.run(graph.model, images))
    onnx.checker.check_model(rewritten.model, full_check=True)
    onnx.save(rewritten.model, tmp_path / "kept.onnx")
    kept = onnx.load(tmp_path / "kept.onnx")
    entry = Entry(name="net", model=kept, nodes=rewritten.nodes)
    found = compile_networks([entry], host_target())
    third = list(rewritten.nodes).index("third")
    assert [name for name, text in found.schedules.items() if text.startswith("winograd")] == [
        name for name in found.schedules if f"l{third}_" in name and "winograd" in name
    ]
    got = Artefact(found.executable).run("net", images)
    np.testing.assert_allclose(got, networks.run(graph.model, images), rtol=0, atol=1e-5)


def test_its_bytes_are_measured_on_the_artefact(graph) -> None:
    images = networks.images(graph.model, 4)
    both = {}
    for choice in ("exact", "exact+winograd"):
        rewritten = apply(graph, {"third": choice}, images)
        entry = Entry(name="net", model=rewritten.model, nodes=rewritten.nodes)
        both[choice] = TvmDevice(threads=1).program(entry).footprint.weight_bytes["third"]
    assert both["exact+winograd"] - both["exact"] == 16 * 16 * 4 * (16 - 9)
