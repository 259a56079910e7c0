"""Small networks with seeded weights, each with one property that reading and rewriting must bear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = 5

CONVOLUTIONS = {
    "plain": {"pads": [1, 1, 1, 1]},
    "strided": {"pads": [1, 1, 1, 1], "strides": [2, 1]},
    "unpadded": {"pads": [0, 0, 0, 0]},
    "uneven": {"pads": [0, 2, 1, 0], "strides": [1, 2]},
    "dilated": {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    "grouped": {"pads": [1, 1, 1, 1], "group": 2},
    "depthwise": {"pads": [1, 1, 1, 1], "group": 8},
}
"""Attributes of convolutions of three rows and columns, and what they are called; the last reads eight channels."""


class Builder:
    """Put a network together node by node; tensors are called after the nodes that make them."""

    def __init__(self, shape: Sequence[int | str], *, opset: int = 17, seed: int = 0) -> None:
        self.shape, self.opset = list(shape), opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: NDArray[Any] | Sequence[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, inputs: Sequence[str], *, name: str = "", out: str = "", **values: Any) -> str:
        out = out or f"{name}:0"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=name, **values))
        return out

    def weights(self, shape: Sequence[int], name: str) -> str:
        scale = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32), name)

    def conv(self, x: str, name: str, shape: Sequence[int], *, bias: bool = True, **values: Any) -> str:
        inputs = [x, self.weights(shape, f"{name}.w")]
        if bias:
            inputs.append(self.weights(shape[:1], f"{name}.b"))
        return self.add("Conv", inputs, name=name, kernel_shape=list(shape[2:]), **values)

    def norm(self, x: str, name: str, channels: int) -> str:
        names = [x]
        for role, low, high in (("s", 0.5, 1.5), ("b", -0.5, 0.5), ("m", -0.5, 0.5), ("v", 0.5, 1.5)):
            array = self.rng.uniform(low, high, channels).astype(np.float32)
            names.append(self.constant(array, f"{name}.{role}"))
        return self.add("BatchNormalization", names, name=name)

    def dense(self, x: str, name: str, outputs: int, inputs: int) -> str:
        names = [x, self.weights((outputs, inputs), f"{name}.w"), self.weights((outputs,), f"{name}.b")]
        return self.add("Gemm", names, name=name, transB=1)

    def model(self, *outputs: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", kind, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def chain(batch: int | str = "n", height: int = 10) -> onnx.ModelProto:
    """Three convolutions and two dense layers one after the other, the first with batch normalisation."""
    b = Builder((batch, 3, height, 8))
    x = b.conv("image", "conv1", (12, 3, 3, 3), bias=False, pads=[1, 1, 1, 1])
    x = b.add("Relu", [b.norm(x, "norm1", 12)], name="relu1")
    x = b.add("Relu", [b.conv(x, "conv2", (16, 12, 3, 3), pads=[1, 1, 1, 1])], name="relu2")
    x = b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Relu", [b.conv(x, "conv3", (20, 16, 3, 3), pads=[1, 1, 1, 1])], name="relu3")
    size = 20 * (height // 2) * 4
    x = b.add("Reshape", [x, b.constant(np.array([-1, size]), "flat.shape")], name="flat")
    x = b.add("Relu", [b.dense(x, "dense1", 24, size)], name="relu4")
    return b.model(b.dense(x, "dense2", CLASSES, 24))


def residual() -> onnx.ModelProto:
    """A residual block whose shortcut is projected, then a depthwise convolution and a global pool."""
    b = Builder((1, 2, 8, 8), seed=1)
    x = b.add("Relu", [b.conv("image", "stem", (8, 2, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    y = b.add("Relu", [b.conv(x, "a", (16, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])], name="a_relu")
    y = b.norm(b.conv(y, "b", (16, 16, 3, 3), bias=False, pads=[1, 1, 1, 1]), "b_norm", 16)
    z = b.conv(x, "shortcut", (16, 8, 1, 1), strides=[2, 2])
    x = b.add("Relu", [b.add("Sum", [y, z], name="sum")], name="sum_relu")
    x = b.add("Relu", [b.conv(x, "depthwise", (16, 1, 3, 3), pads=[1, 1, 1, 1], group=16)], name="d_relu")
    x = b.add("GlobalAveragePool", [x], name="pool")
    return b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", CLASSES, 16))


def branches() -> onnx.ModelProto:
    """Two branches joined by a concatenation, unnamed nodes, a bias apart from its product, a softmax."""
    b = Builder((1, 1, 9, 9), seed=2)
    x = b.conv("image", "stem", (6, 1, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    x = b.add("Relu", [x], out="r")
    y = b.add("Sigmoid", [b.conv(x, "left", (6, 6, 1, 1))], out="s")
    y = b.add("Mul", [y, "left:0"], out="silu")
    z = b.add("Relu", [b.conv(x, "right", (4, 6, 3, 3), pads=[1, 1, 1, 1])], out="t")
    x = b.add("Concat", [y, z], name="join", axis=1)
    x = b.norm(x, "norm", 10)
    x = b.add("AveragePool", [x], name="pool", kernel_shape=[5, 5])
    shape = b.add("Concat", [b.constant(np.array([1]), "one"), b.constant(np.array([-1]), "rest")], out="q", axis=0)
    x = b.add("Reshape", [x, shape], name="flat")
    x = b.add("Dropout", [x], name="drop")
    x = b.add("MatMul", [x, b.weights((10, CLASSES), "fc.w")], name="fc")
    x = b.add("Add", [x, b.weights((CLASSES,), "fc.b")], name="fc_bias")
    return b.model(b.add("Softmax", [x], name="softmax", axis=-1))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "chain": chain,
    "residual": residual,
    "branches": branches,
}


def saved(model: onnx.ModelProto, folder: Path, name: str = "small") -> Path:
    """Write a model to a folder and return where it lies."""
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model image by image with onnxruntime, with none of its optimisations."""
    session = _session(model)
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: image[None]})[0].reshape(-1) for image in images]
    return np.stack(rows)


def run_batch(model: onnx.ModelProto, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model on all images of a batch at once, likewise."""
    session = _session(model)
    output: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return output


def images(model: onnx.ModelProto, count: int, seed: int = 7) -> NDArray[np.float32]:
    """Return smooth random images of a model's input size: neighbouring rows have to do with each other."""
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(seed).normal(size=(count, *dims)).astype(np.float32)
    for axis in (2, 3):
        x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / np.float32(np.sqrt(3))
    return x
