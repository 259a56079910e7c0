from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from light import light
from networks import NETWORKS, Builder

from planner.schedules.blocked import (
    CHANNELS,
    FeatureMap,
    pack_convolution,
    pack_dense,
    pack_depthwise,
    per_channel,
)
from planner.schedules.vectors import VectorUnit, tile_of

TARGETS = pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])

CONVOLUTIONS = {
    "pointwise": ((1, 32, 7, 7), (48, 32, 1, 1), {}),
    "pointwise of odd channels": ((1, 20, 5, 9), (21, 20, 1, 1), {}),
    "pointwise with a stride": ((1, 16, 9, 8), (16, 16, 1, 1), {"strides": [2, 2]}),
    "3x3 of three planes": ((1, 3, 12, 10), (16, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3 without padding": ((1, 16, 9, 11), (10, 16, 3, 3), {}),
    "3x3 with a stride": ((1, 24, 11, 11), (40, 24, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "unlike strides": ((1, 17, 10, 12), (33, 17, 3, 3), {"pads": [1, 1, 1, 1], "strides": [1, 2]}),
    "5x5 padded on two sides": ((1, 8, 10, 10), (16, 8, 5, 5), {"pads": [0, 3, 1, 0]}),
    "7x7 with a stride": ((1, 3, 21, 21), (20, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "a column": ((1, 16, 8, 8), (32, 16, 3, 1), {"pads": [1, 0, 1, 0]}),
    "a row": ((1, 33, 8, 6), (16, 33, 1, 5), {"pads": [0, 2, 0, 2]}),
    "dilated": ((1, 16, 13, 12), (16, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "unlike dilations": ((1, 18, 13, 12), (9, 18, 3, 2), {"dilations": [3, 1]}),
    "a filter of the whole map": ((1, 16, 4, 4), (5, 16, 4, 4), {}),
    "one pixel": ((1, 64, 1, 1), (64, 64, 1, 1), {}),
    "depthwise": ((1, 32, 9, 9), (32, 1, 3, 3), {"group": 32, "pads": [1, 1, 1, 1]}),
    "depthwise of odd channels": ((1, 21, 9, 8), (21, 1, 3, 3), {"group": 21, "strides": [2, 2]}),
    "dilated depthwise": ((1, 16, 11, 9), (16, 1, 3, 3), {"group": 16, "dilations": [2, 3]}),
    "depthwise 5x5": ((1, 7, 9, 9), (7, 1, 5, 5), {"group": 7, "pads": [2, 2, 2, 2]}),
    "two groups": ((1, 32, 8, 8), (32, 16, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups of odd channels": ((1, 9, 8, 8), (15, 3, 3, 3), {"group": 3}),
    "depthwise that multiplies channels": ((1, 8, 8, 8), (24, 1, 3, 3), {"group": 8}),
}

POOLS = {
    "max": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "max that overlaps and is padded": (
        "MaxPool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "max padded on one side": ("MaxPool", {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [0, 0, 2, 1]}),
    "max rounded up": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "mean": ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "mean without the padding": (
        "AveragePool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 0},
    ),
    "mean with the padding": (
        "AveragePool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "mean padded on one side": (
        "AveragePool",
        {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [2, 0, 0, 1], "count_include_pad": 0},
    ),
    "mean rounded up": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "global mean": ("GlobalAveragePool", {}),
    "global maximum": ("GlobalMaxPool", {}),
}


def convolution(case: str):
    shape, filters, attributes = CONVOLUTIONS[case]
    b = Builder(shape)
    x = b.conv("image", "conv", filters, **attributes)
    return b.model(b.add("Relu", [x], name="relu"))


def pooled(case: str, size: tuple[int, int] = (10, 9), channels: int = 20):
    op, attributes = POOLS[case]
    b = Builder((1, 4, *size))
    # Without a bias that lifts all of them, most values are negative: padding with zeros would win a maximum.
    x = b.conv("image", "conv", (channels, 4, 1, 1))
    x = b.add("Sub", [x, b.constant(np.float32(3.0), "three")], name="lower")
    return b.model(b.add(op, [x], name="pool", **attributes))


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_computes_what_onnxruntime_computes(case: str) -> None:
    assert_as_onnxruntime(raw(convolution(case)))


@pytest.mark.parametrize(
    "case", ["3x3 with a stride", "pointwise of odd channels", "depthwise of odd channels", "two groups"]
)
@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
def test_a_convolution_is_right_with_narrower_vectors_too(case: str, target: dict) -> None:
    assert_as_onnxruntime(raw(convolution(case)), target)


@pytest.mark.parametrize("case", POOLS)
def test_a_pool_computes_what_onnxruntime_computes(case: str) -> None:
    assert_as_onnxruntime(raw(pooled(case)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    size=st.tuples(st.integers(4, 11), st.integers(4, 11)),
)
def test_any_convolution_computes_what_onnxruntime_computes(inputs, outputs, kernel, strides, pads, size) -> None:
    b = Builder((1, inputs, *size))
    x = b.conv("image", "conv", (outputs, inputs, *kernel), strides=list(strides), pads=list(pads))
    assert_as_onnxruntime(raw(b.model(b.add("Relu", [x], name="relu"))))


@TARGETS
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_onnxruntime_computes(name: str, target: dict | None, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert_as_onnxruntime(whole(model, tmp_path), target)


@pytest.mark.parametrize("channels", [(16, 20), (20, 16), (16, 32)], ids=str)
def test_maps_are_joined_and_added_whether_or_not_blocks_are_full(channels: tuple[int, int]) -> None:
    first, second = channels
    b = Builder((1, 8, 6, 5))
    x = b.conv("image", "a", (first, 8, 1, 1))
    y = b.conv("image", "b", (second, 8, 3, 3), pads=[1, 1, 1, 1])
    joined = b.add("Concat", [x, y, x], name="join", axis=1)
    z = b.conv(joined, "c", (first, 2 * first + second, 1, 1))
    added = b.add("Relu", [b.add("Add", [z, x], name="add")], name="relu")
    assert_as_onnxruntime(raw(b.model(b.conv(added, "d", (7, first, 1, 1)))))


@pytest.mark.parametrize("outputs", [1, 5, 16, 100])
def test_a_dense_layer_computes_what_onnxruntime_computes(outputs: int) -> None:
    b = Builder((1, 3, 5, 5))
    x = b.add("Flatten", ["image"], name="flat")
    x = b.add("Relu", [b.dense(x, "fc1", 37, 75)], name="relu")
    assert_as_onnxruntime(raw(b.model(b.dense(x, "fc2", outputs, 37))))


UNKNOWN = {
    "LRN": {"size": 3},
    "Softmax": {"axis": 1},
    "InstanceNormalization": {},
    "HardSwish": {},
    "Sigmoid": {},
    "Elu": {},
    "ReduceMax": {},
}


@pytest.mark.parametrize("op", UNKNOWN)
def test_an_operator_without_a_schedule_of_its_own_falls_back_to_correct_code(op: str) -> None:
    b = Builder((1, 6, 7, 7))
    x = b.conv("image", "before", (20, 6, 3, 3))
    more = [b.weights((20,), "scale"), b.weights((20,), "shift")] if op == "InstanceNormalization" else []
    more = [b.constant(np.array([2, 3]), "axes")] if op == "ReduceMax" else more
    x = b.add(op, [x, *more], name="odd", **UNKNOWN[op]) if op != "ReduceMax" else _maximum(b, x)
    assert_as_onnxruntime(raw(b.model(b.conv(x, "after", (16, 20, 1, 1)))), tolerance=1e-4)


def _maximum(b: Builder, x: str) -> str:
    return b.add("ReduceMax", [x], name="odd", axes=[2, 3], keepdims=1)


def test_a_channel_wise_gate_computes_what_onnxruntime_computes() -> None:
    b = Builder((1, 8, 6, 6))
    x = b.conv("image", "conv", (24, 8, 3, 3), pads=[1, 1, 1, 1])
    gate = b.add("GlobalAveragePool", [x], name="squeeze")
    gate = b.add("Relu", [b.conv(gate, "reduce", (6, 24, 1, 1))], name="relu")
    gate = b.add("Sigmoid", [b.conv(gate, "expand", (24, 6, 1, 1))], name="gate")
    assert_as_onnxruntime(raw(b.model(b.add("Mul", [x, gate], name="scale"))))


@pytest.mark.parametrize("height", [8, 9])
@TARGETS
def test_interpolated_rows_are_those_of_onnxruntime(height: int, target: dict | None) -> None:
    b = Builder((1, 5, height, 7))
    x = b.conv("image", "conv", (20, 5, 3, 3), pads=[1, 1, 1, 1], strides=[2, 1])
    if height % 2:
        sizes = b.constant(np.array([1, 20, height, 7]), "sizes")
        inputs, mode = [x, "", "", sizes], "align_corners"
    else:
        inputs = [x, "", b.constant(np.array([1, 1, 2, 1], np.float32), "scales")]
        mode = "asymmetric"
    x = b.add("Resize", inputs, name="rows", mode="linear", coordinate_transformation_mode=mode)
    assert_as_onnxruntime(raw(b.model(b.add("Relu", [x], name="relu"))), target)


def test_a_well_known_network_computes_what_onnxruntime_computes(tmp_path: Path) -> None:
    assert_as_onnxruntime(whole(light("squeezenet"), tmp_path), tolerance=1e-4)


def test_two_threads_compute_the_same_as_one(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, networks, entries\n"
        "from pathlib import Path\n"
        "from planner.devices import open_device\n"
        "folder, threads = Path(sys.argv[1]), int(sys.argv[2])\n"
        "model = networks.chain(1, height=32)\n"
        "device = open_device('tvm', threads=threads)\n"
        "assert device.target['num-cores'] == threads\n"
        "program = device.program(entries.whole(model, folder))\n"
        "images = networks.images(model, 3)\n"
        "np.save(folder / f'{threads}.npy', program.run(images))\n"
        "np.save(folder / 'expected.npy', networks.run(model, images))\n"
    )
    root = Path(__file__).parent.parent
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "OMP_NUM_THREADS": "1"}
    for threads in (1, 2):
        subprocess.run([sys.executable, "-c", code, tmp_path, str(threads)], check=True, env=os.environ | paths)
    one, two = np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy")
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, np.load(tmp_path / "expected.npy"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "spread"), [(28, True), (4, False)], ids=["large", "small"])
def test_a_kernel_for_several_threads_is_spread_over_them_where_it_is_large(size: int, spread: bool) -> None:
    b = Builder((1, 32, size, size))
    entry = raw(b.model(b.add("Relu", [b.conv("image", "conv", (32, 32, 3, 3))], name="relu")))
    for threads in (1, 2):
        found, _ = compiled(entry, HASWELL | {"num-cores": threads})
        (name,) = (name for name in found.schedules if "conv2d" in name)
        source = str(_scheduled(entry, HASWELL | {"num-cores": threads})[name])
        assert ("T.parallel" in source) is (threads == 2 and spread)
        assert ("parts=0" in found.schedules[name]) is not (threads == 2 and spread)


def _scheduled(entry, target):
    import tvm
    from tvm import relax

    from planner.compiler import fuse_networks, schedule_networks

    kind = tvm.target.Target(target)
    module = schedule_networks(fuse_networks([entry], kind), kind)
    return {v.name_hint: f for v, f in module.functions_items() if not isinstance(f, relax.Function)}


def test_says_how_each_kernel_is_scheduled() -> None:
    b = Builder((1, 3, 12, 12))
    x = b.conv("image", "conv", (32, 3, 3, 3), pads=[1, 1, 1, 1])
    x = b.conv(x, "thin", (32, 1, 3, 3), group=32)
    x = b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.dense(b.add("Flatten", [x], name="flat"), "fc", 10, 800)
    found, _ = compiled(raw(b.model(x)), HASWELL)
    by_kind = {name: schedule.split()[0] for name, schedule in found.schedules.items()}
    assert found.workspaces.keys() == by_kind.keys()
    for what, rule in (("conv2d", "convolution"), ("depthwise", "depthwise"), ("pool", "pooling"), ("dense", "dense")):
        assert [rule] == [kind for name, kind in by_kind.items() if f"_{what}" in name], found.schedules
    # Two registers hold 16 lanes: six pixels and their weights are what fits sixteen registers.
    assert any("pixels=6" in schedule or "pixels=4" in schedule for schedule in found.schedules.values())


@settings(max_examples=60, deadline=None)
@given(
    registers=st.sampled_from([(16, 4), (16, 8), (32, 4), (32, 16)]),
    blocks=st.integers(1, 70),
    pixels=st.integers(1, 4000),
    run=st.integers(1, 60),
    window=st.sampled_from([1, 9]),
)
def test_a_tile_divides_the_blocks_and_fits_the_registers(registers, blocks, pixels, run, window) -> None:
    unit = VectorUnit(registers=registers[0], lanes=registers[1], threads=1)
    tile = tile_of(unit, blocks=blocks, pixels=pixels, run=run, window=window)
    assert 1 <= tile.pixels <= pixels
    assert blocks % tile.blocks == 0
    accumulators = tile.pixels * tile.blocks * unit.registers_per_block
    assert accumulators <= max(registers[0], unit.registers_per_block)


def test_packed_weights_are_the_weights_in_another_order_padded_with_zeros() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(20, 32, 3, 2)).astype(np.float32)
    packed = pack_convolution(weight)
    assert packed.shape == (2, 2, 3, 2, 16, 16)
    assert packed[1, 1, 2, 0, 5, 3] == weight[19, 21, 2, 0]
    assert not packed[1, ..., 4:].any()
    dense = rng.normal(size=(10, 7)).astype(np.float32)
    assert pack_dense(dense, 8)[1, 6, 1] == dense[9, 6]
    assert not pack_dense(dense, 8)[1, :, 2:].any()
    thin = rng.normal(size=(17, 1, 3, 3)).astype(np.float32)
    assert pack_depthwise(thin)[1, 2, 1, 0] == thin[16, 0, 2, 1]
    values = per_channel(np.arange(17), 17)
    assert values.shape == (2, 1, CHANNELS)
    assert values[1, 0, 0] == 16


def test_integers_stay_integers_when_packed() -> None:
    packed = pack_convolution(np.ones((3, 5, 3, 3), np.int8))
    assert packed.dtype == np.int8


@pytest.mark.parametrize("size", [(0, 1, 1), (1, 0, 1), (1, 1, -2)])
def test_a_map_without_pixels_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        FeatureMap(channels=size[0], height=size[1], width=size[2])


def test_networks_run_twice_give_the_same() -> None:
    entry = raw(convolution("7x7 with a stride"))
    _, artefact = compiled(entry)
    images = networks.images(entry.model, 2)
    np.testing.assert_array_equal(artefact.run("net", images), artefact.run("net", images))
