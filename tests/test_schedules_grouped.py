from __future__ import annotations

import networks
import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.families.grouped import merge, merged, pack

CASES = {
    "of whole blocks": (2, 32, 48),
    "that straddle blocks": (4, 34, 34),
    "of unlike inputs and outputs": (4, 7, 20),
    "of four channels": (32, 4, 4),
    "of one input each": (8, 1, 3),
    "of one output each": (5, 3, 1),
    "as many as a prime": (7, 5, 5),
}


def _network(case: str, images: int = 1):
    groups, inputs, outputs = CASES[case]
    b = Builder((images, 6, 9, 8))
    x = b.conv("image", "before", (groups * inputs, 6, 1, 1))
    y = b.conv(x, "one", (groups * outputs, inputs, 3, 3), group=groups, pads=[1, 1, 1, 1])
    y = b.add("Relu", [y], name="relu")
    # Groups read groups, a bias and a residual are added to them, and all of them are joined again.
    z = b.conv(y, "two", (groups * outputs, outputs, 1, 1), group=groups)
    z = b.add("Add", [z, y], name="add")
    return b.model(b.conv(z, "after", (5, groups * outputs, 3, 3), strides=[2, 2]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])
def test_convolutions_in_groups_compute_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    assert_as_onnxruntime(raw(_network(case)), target)


def test_groups_that_straddle_blocks_are_gathered_once_for_a_layer_that_reads_them_all() -> None:
    found, _ = compiled(raw(_network("that straddle blocks")))
    gathers = [name for name, text in found.schedules.items() if text.startswith("channels")]
    assert len(gathers) == 1
    assert "m0l5" in gathers[0]  # the layer that reads all groups


def test_groups_of_whole_blocks_are_never_gathered() -> None:
    found, _ = compiled(raw(_network("of whole blocks")))
    assert not any(text.startswith("channels") for text in found.schedules.values())


def test_weights_of_merged_groups_are_zero_between_what_was_apart() -> None:
    weight = np.arange(1, 4 * 2 * 3 + 1, dtype=np.float32).reshape(8, 3, 1, 1)
    whole = merge(weight, 4, 2)
    assert whole.shape == (8, 6, 1, 1)
    np.testing.assert_array_equal(whole[2:4, 3:], weight[2:4])
    np.testing.assert_array_equal(whole[4:6, :3], weight[4:6])
    assert not whole[2:4, :3].any()
    assert np.count_nonzero(whole) == weight.size


def test_packed_groups_start_on_a_block() -> None:
    size = FeatureMap(channels=40, height=1, width=1, groups=2)
    weight = np.random.default_rng(0).normal(size=(40, 6, 1, 1)).astype(np.float32)
    packed = pack(weight, size, 2)
    assert packed.shape == (4, 3, 1, 1, 2, CHANNELS)
    assert packed[2, 1, 0, 0, 1, 3] == weight[23, 3, 0, 0]
    assert not packed[1, ..., 4:].any()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_merging_never_costs_more_than_leaving_groups_apart(groups: int) -> None:
    for inputs in (1, 3, 16, 40):
        for outputs in (1, 5, 16, 33):
            together = merged(groups, inputs, outputs)
            assert groups % together == 0
            apart = groups * -(-outputs // CHANNELS) * inputs
            assert groups // together * -(-together * outputs // CHANNELS) * together * inputs <= apart


@pytest.mark.parametrize("channels", [(24, 2), (40, 4), (48, 3), (30, 5), (16, 16)], ids=str)
@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
def test_a_channel_shuffle_is_one_kernel_and_computes_what_onnxruntime_computes(
    channels: tuple[int, int], target: dict | None
) -> None:
    count, groups = channels
    b = Builder((1, 4, 6, 5))
    x = b.conv("image", "before", (count, 4, 1, 1))
    x = b.conv(x, "groups", (count, count // groups, 1, 1), group=groups)
    split = b.constant(np.array([1, groups, count // groups, 6, 5]), "split")
    x = b.add("Reshape", [x, split], name="reshape")
    x = b.add("Transpose", [x], name="swap", perm=[0, 2, 1, 3, 4])
    x = b.add("Reshape", [x, b.constant(np.array([1, count, 6, 5]), "joined")], name="back")
    entry = raw(b.model(b.conv(x, "after", (7, count, 3, 3))))
    assert_as_onnxruntime(entry, target)
    found, _ = compiled(entry, target)
    assert sum("shuffle" in name for name in found.schedules) == 1
    assert not any("transpose" in name for name in found.schedules)


def test_half_a_channel_shuffle_is_left_as_it_is() -> None:
    b = Builder((1, 4, 6, 5))
    x = b.conv("image", "before", (24, 4, 1, 1))
    x = b.add("Reshape", [x, b.constant(np.array([1, 4, 6, 6, 5]), "split")], name="reshape")
    swapped = b.add("Transpose", [x], name="swap", perm=[0, 2, 1, 3, 4])
    back = b.add("Reshape", [swapped, b.constant(np.array([1, 24, 30]), "rows")], name="back")
    both = b.add("Reshape", [x, b.constant(np.array([1, 24, 30]), "same")], name="unshuffled")
    assert_as_onnxruntime(raw(b.model(b.add("Add", [back, both], name="sum"))))


def test_maps_of_groups_are_joined_pooled_and_gated_in_a_batch() -> None:
    b = Builder((2, 6, 8, 8))
    x = b.conv("image", "a", (20, 3, 3, 3), group=2)
    y = b.conv("image", "b", (9, 6, 3, 3))
    gate = b.add("Sigmoid", [b.conv(b.add("GlobalAveragePool", [x], name="mean"), "gate", (20, 20, 1, 1))], name="open")
    x = b.add("Mul", [x, gate], name="gated")
    x = b.add("AveragePool", [x], name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = b.add("MaxPool", [y], name="max", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Relu", [b.add("Concat", [y, x, y], name="join", axis=1)], name="relu")
    entry = raw(b.model(b.conv(x, "last", (3, 38, 1, 1))))
    images = np.random.default_rng(0).normal(size=(2, 6, 8, 8)).astype(np.float32)
    expected = networks.run_batch(entry.model, images)
    _, artefact = compiled(entry)
    got = artefact._machine[entry.name](artefact.tensor(images)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
