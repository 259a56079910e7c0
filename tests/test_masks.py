from __future__ import annotations

import numpy as np
import pytest
from networks import CLASSES, NETWORKS, Builder, saved

from planner.choices import Choice, applicable, offers, parsed
from planner.errors import InputError
from planner.graph import read
from planner.masks.choices import everywhere, with_masks
from planner.masks.classes import ChannelClass, masks_of
from planner.rewrite import apply


def graph_of(model, tmp_path):
    return read(saved(model, tmp_path))


def named(graph, name):
    return next(item for item in masks_of(graph).classes if item.name == name)


def closing(b: Builder, x: str, channels: int) -> Builder:
    """End a network in a mean over rows and columns and a classifier."""
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="mean")], name="flat")
    b.dense(x, "fc", CLASSES, channels)
    return b


def test_a_chain_has_a_class_for_each_layer_but_the_last(tmp_path):
    graph = graph_of(NETWORKS["chain"](), tmp_path)
    found = {item.name: item for item in masks_of(graph).prunable}
    assert list(found) == ["conv1", "conv2", "conv3", "dense1"]
    assert found["conv2"].producers == ("conv2",)
    assert found["conv2"].consumers == ("conv3",)
    assert found["conv2"].passers == ("pool",)
    assert found["conv3"].tensors == ("conv3:0", "relu3:0", "flat:0")
    assert not found["conv3"].is_sum


def test_a_flattened_channel_owns_a_block_of_columns(tmp_path):
    graph = graph_of(NETWORKS["chain"](), tmp_path)
    places = named(graph, "conv3").places["flat:0"]
    assert np.array_equal(places, np.repeat(np.arange(20), 5 * 4))


def test_what_meets_in_a_sum_is_one_class_through_depthwise_layers_and_pools(tmp_path):
    found = named(graph_of(NETWORKS["residual"](), tmp_path), "b")
    assert found.producers == ("b", "shortcut")
    assert found.consumers == ("fc",)
    assert found.passers == ("depthwise", "pool")
    assert found.is_sum
    assert found.channels == 16


def test_parts_of_a_concatenation_keep_the_same_share_each(tmp_path):
    found = named(graph_of(NETWORKS["branches"](), tmp_path), "left")
    assert [len(family) for family in found.families] == [6, 4]
    assert found.counts("0.5") == (3, 2)
    assert found.count("0.75") == 4 + 3
    assert found.producers == ("left", "right")
    assert not found.is_sum
    assert np.array_equal(found.places["t"], [6, 7, 8, 9])


def test_what_the_network_is_given_and_what_it_gives_keep_their_channels(tmp_path):
    classes = {item.name: item.reason for item in masks_of(graph_of(NETWORKS["chain"](), tmp_path)).classes}
    assert classes["image"] == "it is what the network is given"
    assert classes["dense2"] == "it is what the network gives"


def grouped(b, x):
    return b.conv(x, "odd", (12, 3, 3, 3), group=4), 12


def turned(b, x):
    return b.add("Transpose", [x], name="odd", perm=[0, 2, 1, 3]), 8


def shuffled(b, x):
    x = b.add("Reshape", [x, b.constant(np.array([1, 3, 4, 8, 8]), "odd.in")], name="apart")
    x = b.add("Transpose", [x], name="odd", perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", [x, b.constant(np.array([1, 12, 8, 8]), "odd.out")], name="together"), 12


def softened(b, x):
    return b.add("Softmax", [x], name="odd", axis=1), 12


def normalised(b, x):
    return b.add("LRN", [x], name="odd", size=3), 12


def split(b, x):
    return b.add("Slice", [x, *(b.constant(np.array([n]), f"odd.{n}") for n in (0, 6, 1))], name="odd"), 6


def spread(b, x):
    one = b.conv(x, "odd", (1, 12, 1, 1))
    return b.add("Mul", [x, one], name="product"), 12


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (grouped, "Conv in layer 'odd' has 4 groups of channels"),
        (turned, "Transpose in layer 'odd' moves channels to another axis"),
        (shuffled, "takes channels apart"),
        (softened, "Softmax in layer 'odd' is over channels"),
        (normalised, "LRN in layer 'odd' normalises each channel by its neighbours"),
        (split, "Slice in layer 'odd' takes channels apart"),
        (spread, "spreads a tensor over channels"),
    ],
)
def test_what_is_not_understood_keeps_its_channels_and_says_why(make, reason, tmp_path):
    b = Builder((1, 2, 8, 8))
    x, channels = make(b, b.conv("image", "stem", (12, 2, 3, 3), pads=[1, 1, 1, 1]))
    b = closing(b, x, channels)
    graph = graph_of(b.model("fc:0"), tmp_path)
    assert reason in named(graph, "stem").reason
    with pytest.raises(InputError, match=r"layer 'stem', choice 'exact:1>0\.5': class 'stem' keeps its channels"):
        masks_of(graph).shares(parsed(graph, {"stem": "exact:1>0.5"}))


def test_what_keeps_channels_in_their_places_passes_them_on(tmp_path):
    b = Builder((1, 2, 8, 8))
    x = b.conv("image", "stem", (12, 2, 3, 3), pads=[1, 1, 1, 1])
    x = b.add("PRelu", [x, b.weights((12, 1, 1), "slope")], name="slopes")
    x = b.add("Pad", [x, b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")], name="pad")
    x = b.add("Resize", [x, "", b.constant(np.array([1, 1, 2, 2], np.float32), "scales")], name="resize")
    x = b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Softmax", [x], name="soft", axis=-1)
    x = b.add("ReduceMean", [x, b.constant(np.array([2, 3]), "axes")], name="mean", keepdims=0)
    graph = graph_of(Builder.model(_dense(b, x, 12), "fc:0"), tmp_path)
    found = named(graph, "stem")
    assert not found.reason
    assert found.consumers == ("fc",)
    assert {"pad", "resize", "pool", "soft", "mean"} <= set(found.passers)


def _dense(b, x, channels):
    b.opset = 18
    b.dense(x, "fc", CLASSES, channels)
    return b


def test_a_gate_has_the_channels_of_what_it_scales(tmp_path):
    b = Builder((1, 2, 8, 8))
    x = b.conv("image", "stem", (12, 2, 3, 3), pads=[1, 1, 1, 1])
    squeezed = b.conv(b.add("GlobalAveragePool", [x], name="squeeze"), "narrow", (4, 12, 1, 1))
    gate = b.add("Sigmoid", [b.conv(squeezed, "gate", (12, 4, 1, 1))], name="sigmoid")
    graph = graph_of(closing(b, b.add("Mul", [x, gate], name="scale"), 12).model("fc:0"), tmp_path)
    assert named(graph, "stem").producers == ("stem", "gate")
    assert named(graph, "narrow").channels == 4


def test_a_layer_of_one_channel_keeps_it(tmp_path):
    b = Builder((1, 2, 8, 8))
    x = b.conv(b.conv("image", "thin", (1, 2, 1, 1)), "wide", (4, 1, 1, 1))
    graph = graph_of(closing(b, x, 4).model("fc:0"), tmp_path)
    assert named(graph, "thin").reason == "it has one channel"
    assert offers(graph)["thin"]["prune"].reason.endswith("class 'thin' keeps its channels: it has one channel")


def test_weights_that_another_operator_reads_keep_their_channels(tmp_path):
    b = Builder((1, 2, 8, 4))
    x = b.add("Relu", [b.conv("image", "stem", (4, 2, 1, 1))], name="relu")
    x = b.add("Mul", [x, "stem.b"], name="product")
    graph = graph_of(closing(b, x, 4).model("fc:0"), tmp_path)
    assert named(graph, "stem").reason == "Conv in layer 'stem' has weights that another operator reads too"


@pytest.mark.parametrize(
    ("count", "share", "left"), [(2, "0.75", 1), (2, "0.5", 1), (3, "0.75", 2), (16, "0.75", 12), (5, "0.01", 1)]
)
def test_one_channel_is_left_and_one_is_gone(count, share, left):
    found = ChannelClass(name="x", tensors=("x",), families=(np.arange(count),), places={})
    assert found.count(share) == left


def test_layers_of_a_class_that_do_not_agree_are_named(tmp_path):
    graph = graph_of(NETWORKS["residual"](), tmp_path)
    chosen = with_masks(graph, {"b": "0.75"})
    for layer, choice, message in (
        ("shortcut", "exact", r"layers of class 'b' must keep the same share .* shortcut 1, depthwise 0\.75"),
        ("fc", "exact:0.5>1", r"class 'b' must keep the same share .* fc 0\.5"),
        ("pool", "exact:0.75>1", r"layer 'pool', choice 'exact:0\.75>1': .* one share on both sides"),
        ("stem", "exact:0.5>1", r"class 'image' keeps its channels: it is what the network is given"),
        ("b", "exact:1>.75", r"mask '\.75'; expected a share between 0 and 1"),
        ("b", "exact:1>1.5", r"mask '1\.5'; expected a share between 0 and 1"),
        ("b", "exact:1>many", r"mask 'many'; expected a share between 0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            masks_of(graph).shares(parsed(graph, chosen | {layer: choice}))


def test_masks_everywhere_agree_and_leave_sums_aside_when_told_to(tmp_path):
    for name, make in NETWORKS.items():
        graph = read(saved(make(), tmp_path, name))
        masks = masks_of(graph)
        for sums in (True, False):
            shares = masks.shares(parsed(graph, everywhere(graph, "0.5", sums=sums)))
            expected = {item.name for item in masks.prunable if sums or not item.is_sum}
            assert shares == dict.fromkeys(expected, "0.5")


def test_masks_stand_behind_what_each_layer_is_offered(tmp_path):
    graph = graph_of(NETWORKS["chain"](), tmp_path)
    chosen = everywhere(graph, "0.75", "int8")
    assert chosen["conv1"] == "int8:1>0.75"
    assert chosen["dense2"] == "int8:0.75>1"
    chosen = everywhere(graph, "0.75", {"conv2": "lowrank@0.5+int8"})
    assert (chosen["conv2"], chosen["conv3"]) == ("lowrank@0.5+int8:0.75>0.75", "exact:0.75>0.75")
    with pytest.raises(InputError, match="has no class 'conv9'; it has: image, conv1"):
        with_masks(graph, {"conv9": "0.5"})


def test_prune_lists_every_two_shares_that_a_layer_can_read_and_write(tmp_path):
    names = applicable(graph_of(NETWORKS["chain"](), tmp_path), ["prune"])
    assert names["conv1"] == ("exact", "exact:1>0.75", "exact:1>0.5")
    assert names["dense2"] == ("exact", "exact:0.75>1", "exact:0.5>1")
    assert names["pool"] == ("exact", "exact:0.75>0.75", "exact:0.5>0.5")
    assert len(names["conv2"]) == 9
    narrower = applicable(graph_of(NETWORKS["chain"](), tmp_path), ["prune@0.5", "int8w"])
    assert narrower["conv1"] == ("exact", "int8w", "exact:1>0.5", "int8w:1>0.5")


def test_a_share_is_no_part_of_a_choice(tmp_path):
    graph = graph_of(NETWORKS["chain"](), tmp_path)
    with pytest.raises(InputError, match=r"masks stand behind a colon; expected a name like exact:0\.75>0\.5"):
        apply(graph, {"conv2": "prune@0.5"}, np.zeros((1, 3, 10, 8), np.float32))
    assert str(Choice.parse("exact:1>0.5")) == "exact:1>0.5"


def test_masks_are_offered_with_exact_and_int8_where_nothing_is_asked_for(tmp_path):
    names = applicable(graph_of(NETWORKS["chain"](), tmp_path))["conv2"]
    found = {name.partition(":")[0] for name in names if ":" in name}
    assert found == {"exact", "int8"}
    assert sum(":" in name for name in names) == 2 * 8
    assert names[0] == "exact"
