from __future__ import annotations

import numpy as np
import onnx
import pytest
from entries import HASWELL, compiled
from networks import NETWORKS, Builder, chain, images, residual, run, saved
from onnx import numpy_helper

from planner.activations.grids import rounded_weights
from planner.calibration import Calibration
from planner.errors import InputError
from planner.graph import read
from planner.rewrite import EXACT, apply, offers
from planner.schedules.int8.targets import Instruction
from planner.segments import Entry

IMAGES = 32
MIXES = {
    "bytes": ("int8",),
    "bytes and float32": ("int8", EXACT),
    "all three": ("int8", "int8@u7", EXACT),
}


def wide(**values):
    """Return three convolutions, a pooling and a dense layer, of channels enough for changed structures."""
    b = Builder((1, 3, 12, 12), seed=6)
    x = b.add("Relu", [b.conv("image", "first", (16, 3, 3, 3), pads=[1, 1, 1, 1])], name="r1")
    x = b.add("Relu", [b.conv(x, "middle", (32, 16, 3, 3), pads=[1, 1, 1, 1], **values)], name="r2")
    x = b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Relu", [b.conv(x, "third", (32, 32, 3, 3))], name="r3")
    x = b.add("GlobalAveragePool", [x], name="mean")
    return b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 32))


def calibrated(model, tmp_path):
    graph = read(saved(model, tmp_path))
    return Calibration(graph, images(graph.model, IMAGES))


def mixed(calibration, names):
    """Give the layers some choices by turns, as far as they offer them."""
    found = offers(calibration.graph)
    turns = {layer: names[index % len(names)] for index, layer in enumerate(found)}
    return {layer: name if name in found[layer]["int8"].choices else EXACT for layer, name in turns.items()}


def built(rewritten, target=None):
    return compiled(Entry(name="net", model=rewritten.model, nodes=rewritten.nodes), target)


def schedules_of(found, family):
    return {name: text for name, text in found.schedules.items() if text.split()[0] == family}


def instructions(found):
    texts = schedules_of(found, "int8_convolution").values()
    return [Instruction(int(text.partition("instruction=")[2].split()[0])) for text in texts]


@pytest.mark.parametrize("names", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("network", NETWORKS)
def test_neighbours_of_any_arithmetic_are_joined_and_run_as_onnxruntime_runs_them(network, names, tmp_path):
    calibration = calibrated(NETWORKS[network](), tmp_path)
    rewritten = apply(calibration.graph, mixed(calibration, names), calibration)
    onnx.checker.check_model(rewritten.model, full_check=True)
    found, artefact = built(rewritten)
    x = images(calibration.graph.model, 6, seed=2)
    theirs, exact = run(rewritten.model, x), run(calibration.graph.model, x)
    # A number that lies between two bytes may be rounded either way, which a later layer may see as one step.
    assert np.abs(artefact.run("net", x) - theirs).max() < 0.02 * np.abs(theirs).max()
    assert 0 < np.abs(theirs - exact).max() < 0.1 * np.abs(exact).max()
    quantised = [layer for layer, choice in rewritten.choices.items() if choice != EXACT]
    weighty = [layer for layer in quantised if calibration.views[layer].linear is not None]
    kernels = schedules_of(found, "int8_convolution") | schedules_of(found, "depthwise")
    assert len(kernels) >= len(weighty) > 0


@pytest.mark.parametrize("choice", ["int8", "int8@u7"])
def test_seven_bits_are_proven_across_layers_wherever_there_is_no_product_of_bytes(choice, tmp_path):
    calibration = calibrated(wide(), tmp_path)
    layers = [layer.name for layer in calibration.graph.layers]
    rewritten = apply(calibration.graph, dict.fromkeys(layers, choice), calibration)
    found, artefact = built(rewritten, HASWELL)
    taken = instructions(found)
    assert len(taken) == 4
    if choice == "int8@u7":
        assert set(taken) == {Instruction.PMADDUBSW}
    else:
        assert Instruction.PMADDWD in taken
    x = images(calibration.graph.model, 6, seed=2)
    theirs = run(rewritten.model, x)
    assert np.abs(artefact.run("net", x) - theirs).max() < 0.02 * np.abs(theirs).max()


def test_a_concatenation_of_seven_bits_stays_one_of_bytes(tmp_path):
    b = Builder((1, 3, 8, 8), seed=8)
    x = b.add("Relu", [b.conv("image", "stem", (16, 3, 3, 3))], name="r")
    y = b.add("Relu", [b.conv(x, "left", (16, 16, 1, 1))], name="r1")
    z = b.add("Relu", [b.conv(x, "right", (8, 16, 1, 1))], name="r2")
    x = b.add("Concat", [y, z], name="join", axis=1)
    x = b.add("GlobalAveragePool", [b.conv(x, "last", (16, 24, 3, 3))], name="mean")
    calibration = calibrated(b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 16)), tmp_path)
    layers = [layer.name for layer in calibration.graph.layers]
    found, artefact = built(apply(calibration.graph, dict.fromkeys(layers, "int8@u7"), calibration), HASWELL)
    x = images(calibration.graph.model, 1)
    kernels = [step.kernel for step in artefact.trace("net", x).steps]
    (join,) = [name for name in kernels if "concat" in name]
    assert "dequantize" not in join
    assert set(instructions(found)) == {Instruction.PMADDUBSW}


@pytest.mark.parametrize(("structure", "products"), [("spatial@0.5", 2), ("lowrank@0.5", 2), ("perforate@rows", 1)])
def test_every_operator_of_a_changed_structure_multiplies_bytes(structure, products, tmp_path):
    calibration = calibrated(wide(), tmp_path)
    rewritten = apply(calibration.graph, {"middle": f"{structure}+int8"}, calibration)
    onnx.checker.check_model(rewritten.model, full_check=True)
    found, artefact = built(rewritten)
    assert len(schedules_of(found, "int8_convolution")) == products
    x = images(calibration.graph.model, 6, seed=2)
    theirs = run(rewritten.model, x)
    assert np.abs(artefact.run("net", x) - theirs).max() < 0.02 * np.abs(theirs).max()
    alone = apply(calibration.graph, {"middle": structure}, calibration)
    assert np.abs(theirs - run(alone.model, x)).max() < 0.1 * np.abs(theirs).max()


def test_weights_that_are_stored_already_keep_their_form(tmp_path):
    calibration = calibrated(wide(), tmp_path)
    stored = apply(calibration.graph, {"third": "int4w"}, calibration, refit=False)
    both = apply(calibration.graph, {"third": "int4w+int8"}, calibration, refit=False)
    before = {item.name: item for item in stored.model.graph.initializer}
    after = {item.name: item for item in both.model.graph.initializer}
    kept = [name for name in before if name.startswith("third.") and "bias" not in name and not name.endswith(".b")]
    assert kept
    for name in kept:
        assert (after[name].data_type, after[name].dims) == (before[name].data_type, before[name].dims)
    assert both.parameter_bytes["third"] == stored.parameter_bytes["third"]


def test_the_mean_of_each_output_is_that_of_exact_weights(tmp_path):
    calibration = calibrated(wide(), tmp_path)
    rewritten = apply(calibration.graph, {"first": "int8"}, calibration, refit=False)
    arrays = {item.name: numpy_helper.to_array(item) for item in rewritten.model.graph.initializer}
    exact = {item.name: numpy_helper.to_array(item) for item in calibration.graph.model.graph.initializer}
    (node,) = [node for node in rewritten.model.graph.node if node.name == "first"]
    x = calibration.grid("image", "int8").rounded(calibration.images)
    conv = [{**exact}, {**exact, "first.w": rounded_weights(exact["first.w"]), "first.b": arrays[node.input[2]]}]
    anchor = calibration.anchor("first")
    means = [
        calibration.run([anchor], each, {"image": x}, [anchor.output[0]])[anchor.output[0]].mean(axis=(0, 2, 3))
        for each in conv
    ]
    assert not np.array_equal(arrays[node.input[2]], exact["first.b"])
    np.testing.assert_allclose(means[1], means[0], atol=1e-5)


def test_layers_behind_are_refitted_to_a_changed_structure_and_not_to_rounding(tmp_path):
    calibration = calibrated(wide(), tmp_path)
    exact = {item.name: item.raw_data for item in calibration.graph.model.graph.initializer}
    for choice, same in (("int8", True), ("lowrank@0.5", False), ("lowrank@0.5+int8", False)):
        rewritten = apply(calibration.graph, {"middle": choice}, calibration)
        arrays = {item.name: item.raw_data for item in rewritten.model.graph.initializer}
        assert (arrays["third.w"] == exact["third.w"]) is same, choice


def test_what_has_no_kernel_of_bytes_says_why(tmp_path):
    b = Builder((1, 4, 9, 9))
    x = b.conv("image", "grouped", (8, 2, 3, 3), group=2)
    x = b.add("AveragePool", [x], name="padded", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = b.add("AveragePool", [x], name="inside", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Concat", [x, x], name="join", axis=1)
    x = b.add("GlobalAveragePool", [x], name="mean")
    x = b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 16)
    graph = read(saved(b.model(b.add("Softmax", [x], name="softmax")), tmp_path))
    found = {layer: by_name["int8"] for layer, by_name in offers(graph).items()}
    assert "fall into 2 groups" in found["grouped"].reason
    assert "overhangs" in found["padded"].reason
    assert "[8, 8] channels" in found["join"].reason
    assert "Softmax has no kernel" in found["softmax"].reason
    assert found["inside"].choices == found["mean"].choices == found["fc"].choices == ("int8", "int8@u7")
    with pytest.raises(InputError, match="layer 'padded', choice 'int8': int8 does not apply: its window overhangs"):
        apply(graph, {"padded": "int8"}, images(graph.model, 2))


@pytest.mark.parametrize("network", [chain, residual, wide])
def test_bytes_in_the_artefact_are_those_that_were_counted(network, tmp_path):
    calibration = calibrated(network(), tmp_path)
    layers = [layer.name for layer in calibration.graph.layers if calibration.views[layer.name].linear is not None]
    exact = sum(calibration.graph.layer(name).parameter_bytes for name in layers)
    rewritten = apply(calibration.graph, dict.fromkeys(layers, "int8"), calibration)
    outputs = sum(calibration.views[name].linear.outputs for name in layers)
    expected = sum(calibration.views[name].linear.weight.size for name in layers) + 8 * outputs
    assert sum(rewritten.parameter_bytes.values()) == expected < exact
