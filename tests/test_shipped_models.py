"""The shipped networks are what data/README.md says: trained, named, and as accurate as promised."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from planner.dataset import read, shipped

DATA = Path(__file__).parent.parent / "data"
DESCRIBED = json.loads((DATA / "models" / "models.json").read_text())
PROMISED = {"quick": 89.0, "resnet8": 90.5, "vggs": 92.5, "vgg16q": 92.5}
NOT_SHIPPED = {"vgg16": 92.5}
"""What `make models` trains beside them, too large for a repository."""


def test_the_networks_are_described() -> None:
    assert set(PROMISED) == {path.stem for path in (DATA / "models").glob("*.onnx")}
    assert set(DESCRIBED) - set(NOT_SHIPPED) == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_a_description_is_of_the_file_that_is_shipped(name: str) -> None:
    content = shipped(f"models/{name}.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == DESCRIBED[name]["sha256"]
    assert len(content) == DESCRIBED[name]["bytes"]


@pytest.mark.parametrize("name", PROMISED | NOT_SHIPPED)
def test_a_network_is_as_accurate_as_promised_on_all_test_images(name: str) -> None:
    assert DESCRIBED[name]["test_images"] == 10000
    assert DESCRIBED[name]["test_top1"] >= (PROMISED | NOT_SHIPPED)[name]


@pytest.mark.parametrize("name", PROMISED)
def test_accuracy_on_the_sample_is_the_recorded_one(name: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(shipped(f"models/{name}.onnx"), options, providers=["CPUExecutionProvider"])
    sample = read(shipped("fashion_mnist.npz"))
    images = sample.inputs("test")
    logits = np.concatenate([session.run(["logits"], {"input": images[i : i + 1]})[0] for i in range(len(images))])
    top1 = 100 * float((logits.argmax(1) == sample.test.labels).mean())
    # Two images either way: another processor rounds differently.
    assert top1 == pytest.approx(DESCRIBED[name]["sample_test_top1"], abs=0.1)


@pytest.mark.parametrize("name", PROMISED)
def test_a_network_has_a_static_shape_and_meaningful_names(name: str) -> None:
    import onnx

    model = onnx.load(str(shipped(f"models/{name}.onnx")))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 17
    ends = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert ends == {"input": [1, 1, 28, 28], "logits": [1, 10]}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(name[0].isalpha() and "onnx" not in name.lower() for name in names)
    assert {"conv1", "conv1_1"} & set(names)


def test_vgg16_scales_its_images_itself_by_a_constant() -> None:
    import onnx

    model = onnx.load(str(shipped("models/vgg16q.onnx")))
    nodes = {node.name: node for node in model.graph.node}
    assert [node.op_type for node in model.graph.node].count("Conv") == 13
    assert nodes["scale"].op_type == "Resize"
    (scales,) = (onnx.numpy_helper.to_array(c) for c in model.graph.initializer if c.name == nodes["scale"].input[2])
    assert scales.tolist() == pytest.approx([1, 1, 32 / 28, 32 / 28])


def test_residual_networks_keep_their_shortcuts_and_normalisation() -> None:
    import onnx

    model = onnx.load(str(shipped("models/resnet8.onnx")))
    operators = {node.name: node.op_type for node in model.graph.node}
    assert {operators[f"block{number}/add"] for number in (1, 2, 3)} == {"Add"}
    assert operators["block2/shortcut"] == "Conv"
    assert operators["block2/norm3"] == "BatchNormalization"
