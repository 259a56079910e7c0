"""The light models of the ``onnx`` package: well-known networks with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
CHEAP = ("squeezenet", "shufflenet")
COSTLY = ("resnet50", "densenet121", "inception_v1", "inception_v2")


def light(name: str, seed: int = 0) -> onnx.ModelProto:
    """Load a light model, its constant weights replaced by random ones that keep activations sane."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    graph = model.graph
    sizes = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    roles = {
        tensor: role
        for node in graph.node
        if node.op_type == "BatchNormalization"
        for role, tensor in zip(("scale", "shift", "mean", "var"), node.input[1:5], strict=True)
    }
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "ConstantOfShape":
            array = _weights(rng, sizes[node.input[0]].tolist(), roles.get(node.output[0], ""))
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            graph.node.append(node)
    return model


def _weights(rng: np.random.Generator, shape: list[int], role: str) -> NDArray[np.float32]:
    if role in {"scale", "var"}:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) > 1:
        return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape).astype(np.float32)
    return rng.normal(0.0, 0.05 if role else 0.02, shape).astype(np.float32)
