from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
from entries import whole
from networks import Builder

from planner import graph as graphs
from planner import rewrite
from planner.devices import available, open_device
from planner.errors import InputError
from planner.segments import Entry

CHAIN = ("conv1", "conv2", "pool", "conv3")


def rewritten(folder: Path, choices: dict[str, str], height: int = 10) -> Entry:
    """Rewrite the chain of three convolutions; calibrated on random images."""
    graph = graphs.read(networks.saved(networks.chain(height=height), folder))
    images = np.random.default_rng(0).normal(size=(16, *graph.input_shape[1:])).astype(np.float32)
    new = rewrite.apply(graph, choices, images, refit=False)
    return Entry(name="chain", model=new.model, nodes=new.nodes)


def random_images(entry: Entry, count: int = 3) -> np.ndarray:
    return networks.images(entry.model, count)


@pytest.mark.parametrize("device", available())
def test_every_device_runs_times_and_counts_a_network(device: str, tmp_path: Path) -> None:
    if device == "tvm_rpc":
        pytest.skip("needs a tracker")
    entry = rewritten(tmp_path, {})
    opened = open_device(device)
    assert opened.name == device
    assert opened.describe()["device"] == device
    program = opened.program(entry)
    images = random_images(entry)
    expected = networks.run(entry.model, images)
    np.testing.assert_allclose(program.run(images), expected, atol=1e-5)
    assert program.sample() > 0
    assert tuple(program.sample_layers()) == entry.layers
    footprint = program.footprint
    for counted in (footprint.weight_bytes, footprint.live_bytes, footprint.kernels):
        assert tuple(counted) == entry.layers
    assert all(
        0 < live <= footprint.arena_bytes for layer, live in footprint.live_bytes.items() if footprint.kernels[layer]
    )
    assert opened.planned_arena(entry) == footprint.arena_bytes


def test_an_unknown_device_is_answered_with_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"unknown device 'abacus'; there are: .*simulated.*tvm"):
        open_device("abacus")


@pytest.mark.parametrize("device", ["tvm", "onnxruntime"])
def test_this_machine_takes_no_address(device: str) -> None:
    with pytest.raises(InputError, match="takes no address, got 'there'"):
        open_device(f"{device}:there")


def test_the_address_of_the_simulated_device_is_a_seed(tmp_path: Path) -> None:
    entry = rewritten(tmp_path, {})
    first, again, other = (open_device(f"simulated:{seed}").program(entry).sample() for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(InputError, match="seed"):
        open_device("simulated:x")


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        open_device("simulated", threads=threads)


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_the_arena_that_is_planned_is_the_arena_that_is_counted(network: str, tmp_path: Path) -> None:
    model = networks.NETWORKS[network]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    entry = whole(model, tmp_path)
    device = open_device("tvm")
    assert device.planned_arena(entry) == device.program(entry).footprint.arena_bytes


def test_weights_are_counted_by_layer_as_they_lie_in_the_artefact(tmp_path: Path) -> None:
    counted = open_device("tvm").program(rewritten(tmp_path, {})).footprint.weight_bytes
    # conv2 maps 12 channels to 16, a block; its weights are padded nowhere.
    assert counted["conv2"] == 4 * (16 * 12 * 9 + 16)
    # conv1 writes 12 channels, which lie in a block of 16.
    assert counted["conv1"] == 4 * (16 * 3 * 9 + 16)
    assert counted["pool"] == 0
    assert counted["dense1"] >= 4 * (24 * 400 + 24)


def test_int8_weights_take_a_quarter_of_the_bytes_in_the_artefact(tmp_path: Path) -> None:
    device = open_device("tvm")
    exact = device.program(rewritten(tmp_path, {})).footprint.weight_bytes
    names = {"conv2": "int8w", "conv3": "int8w", "dense1": "int8w"}
    entry = rewritten(tmp_path, names)
    program = device.program(entry)
    small = program.footprint.weight_bytes
    assert small["conv2"] == 16 * 12 * 9 + 4 * 16 + 4 * 16
    for layer in names:
        assert small[layer] < 0.3 * exact[layer] + 4 * 2 * 32
    assert small["conv1"] == exact["conv1"]
    images = random_images(entry)
    np.testing.assert_allclose(program.run(images), networks.run(entry.model, images), atol=2e-5)


@pytest.mark.parametrize("choice", ["lowrank@0.5", "spatial@0.5", "perforate@rows", "perforate@rows+int8w"])
@pytest.mark.parametrize("height", [10, 11])
def test_approximated_layers_compute_what_onnxruntime_computes(choice: str, height: int, tmp_path: Path) -> None:
    graph = graphs.read(networks.saved(networks.chain(height=height), tmp_path))
    offered = rewrite.applicable(graph, [choice])
    layers = [layer for layer in CHAIN if choice in offered[layer]]
    assert layers, offered
    entry = rewritten(tmp_path, dict.fromkeys(layers, choice), height)
    images = random_images(entry)
    got = open_device("tvm").program(entry).run(images)
    np.testing.assert_allclose(got, networks.run(entry.model, images), atol=2e-5)
    exact = rewritten(tmp_path, {}, height)
    assert np.abs(got - networks.run(exact.model, images)).max() > 1e-3


def test_two_equal_layers_keep_kernels_of_their_own(tmp_path: Path) -> None:
    b = Builder((1, 16, 8, 8))
    weight, bias = b.weights((16, 16, 3, 3), "w"), b.weights((16,), "b")
    x = "image"
    for name in ("first", "second"):
        x = b.add("Conv", [x, weight, bias], name=name, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        x = b.add("Relu", [x], name=f"{name}_relu")
    x = b.add("GlobalAveragePool", [x], name="pool")
    entry = whole(b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 16)), tmp_path)
    program = open_device("tvm").program(entry)
    # Each pads and convolves; the first gathers the plain input into blocks besides.
    assert program.footprint.kernels["second"] == 2
    assert program.footprint.kernels["first"] == 3
    times = program.sample_layers()
    assert times["first"] > 0
    assert times["second"] > 0


def test_every_kernel_belongs_to_a_layer(tmp_path: Path) -> None:
    from planner.compiler import compile_networks, host_target
    from planner.schedules import naming

    for name, network in networks.NETWORKS.items():
        model = network()
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        entry = whole(model, tmp_path, name)
        kernels = compile_networks([entry], host_target()).schedules
        owners = [naming.owner(kernel) for kernel in kernels]
        assert None not in owners, dict(zip(kernels, owners, strict=True))
        assert all(0 <= layer < len(entry.layers) for _, layer in owners)


def test_layers_must_hold_every_node_exactly_once(tmp_path: Path) -> None:
    entry = rewritten(tmp_path, {})
    nodes = dict(entry.nodes)
    lost = nodes.pop("conv1")
    with pytest.raises(ValueError, match=lost[0]):
        Entry(name="chain", model=entry.model, nodes=nodes)
    with pytest.raises(ValueError, match="exactly once"):
        Entry(name="chain", model=entry.model, nodes={**entry.nodes, "again": lost})
