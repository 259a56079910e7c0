"""Single layers as networks: in float32, and with their weights stored in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

GROUP = 32
"""Weights that share one scale where they are stored in 4 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer.

    Attributes:
        name: What it is called in tables.
        operator: ``Conv``, ``Gemm`` or ``MatMul``.
        input_shape: Shape of its input.
        weight_shape: ``(filters, channels of a group, height, width)``, ``(outputs, inputs)`` or, for ``MatMul``,
            ``(inputs, outputs)``.
        stride: Of a convolution.
        groups: Of a convolution; it is padded so that a stride of 1 keeps the size.
    """

    name: str
    operator: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: int = 1
    groups: int = 1

    @property
    def input_size(self) -> int:
        """Numbers of its input."""
        return prod(self.input_shape)

    @property
    def winograd(self) -> bool:
        """Whether Winograd's algorithm can compute it."""
        return self.operator == "Conv" and self.stride == 1 == self.groups and self.weight_shape[2:] == (3, 3)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""
        if self.operator != "Conv":
            return self.input_size * self.weight_shape[0 if self.operator == "Gemm" else 1]
        return prod(self.weight_shape) * prod(-(-side // self.stride) for side in self.input_shape[2:])


def _conv(name: str, channels: int, side: int, filters: int, kernel: int, **more: int) -> Layer:
    shape = (filters, channels // more.get("groups", 1), kernel, kernel)
    return Layer(name=name, operator="Conv", input_shape=(1, channels, side, side), weight_shape=shape, **more)


LAYERS = (
    _conv("7x7/2 3-64 224", 3, 224, 64, 7, stride=2),
    _conv("3x3 64-64 56", 64, 56, 64, 3),
    _conv("3x3 128-128 28", 128, 28, 128, 3),
    _conv("3x3 256-256 14", 256, 14, 256, 3),
    _conv("3x3 512-512 7", 512, 7, 512, 3),
    _conv("3x3/2 128-128 56", 128, 56, 128, 3, stride=2),
    _conv("1x1 64-256 56", 64, 56, 256, 1),
    _conv("1x1 256-64 56", 256, 56, 64, 1),
    _conv("1x1 1024-256 14", 1024, 14, 256, 1),
    _conv("1x1 512-2048 7", 512, 7, 2048, 1),
    _conv("3x3 depthwise 96 112", 96, 112, 96, 3, groups=96),
    _conv("5x5/2 depthwise 240 28", 240, 28, 240, 5, groups=240, stride=2),
    _conv("3x3 32 groups 128-128 56", 128, 56, 128, 3, groups=32),
    Layer(name="dense 4096-4096", operator="Gemm", input_shape=(1, 4096), weight_shape=(4096, 4096)),
    Layer(name="matmul 64x384x1536", operator="MatMul", input_shape=(1, 64, 384), weight_shape=(384, 1536)),
)


def _weight(layer: Layer) -> NDArray[np.float32]:
    fan = layer.weight_shape[0] if layer.operator == "MatMul" else prod(layer.weight_shape[1:])
    random = np.random.default_rng(0)
    return random.normal(0.0, np.sqrt(1.0 / fan), layer.weight_shape).astype(np.float32)


def _model(layer: Layer, before: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    """Write the layer behind the nodes that make its ``weight``."""
    filters = layer.weight_shape[1 if layer.operator == "MatMul" else 0]
    attributes: dict[str, Any] = {}
    inputs = ["input", "weight"]
    if layer.operator != "MatMul":
        inputs.append("bias")
        constants = [*constants, numpy_helper.from_array(np.full(filters, 0.1, np.float32), "bias")]
    if layer.operator == "Conv":
        kernel = layer.weight_shape[2]
        attributes = {
            "kernel_shape": [kernel] * 2,
            "strides": [layer.stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": layer.groups,
        }
    elif layer.operator == "Gemm":
        attributes = {"transB": 1}
    graph = helper.make_graph(
        [*before, helper.make_node(layer.operator, inputs, ["output"], name="layer", **attributes)],
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(layer.input_shape))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def constant_bytes(model: onnx.ModelProto) -> int:
    """Count the bytes of a model's constants, two numbers of 4 bits to a byte."""
    kinds = {TensorProto.INT4: 0.5, TensorProto.UINT4: 0.5}
    sizes = (prod(c.dims) * (kinds.get(c.data_type) or _item_bytes(c)) for c in model.graph.initializer)
    return int(sum(sizes))


def _item_bytes(constant: onnx.TensorProto) -> int:
    return int(helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize)


def float32(layer: Layer) -> onnx.ModelProto:
    """Write a layer as it is."""
    return _model(layer, [], [numpy_helper.from_array(_weight(layer), "weight")])


def float16(layer: Layer) -> onnx.ModelProto:
    """Write a layer with weights of 16 bits."""
    cast = helper.make_node("Cast", ["stored"], ["weight"], name="widen", to=TensorProto.FLOAT)
    return _model(layer, [cast], [numpy_helper.from_array(_weight(layer).astype(np.float16), "stored")])


def int8(layer: Layer) -> onnx.ModelProto:
    """Write a layer with weights of 8 bits and a scale for each output."""
    weight, axis = _weight(layer), 1 if layer.operator == "MatMul" else 0
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
    constants = [
        numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), "stored"),
        numpy_helper.from_array(scale.reshape(-1), "scale"),
    ]
    node = helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"], name="widen", axis=axis)
    return _model(layer, [node], constants)


def int4(layer: Layer) -> onnx.ModelProto | None:
    """Write a layer with weights of 4 bits and a scale for each group of inputs; None where no groups fit."""
    weight, axis = _weight(layer), 0 if layer.operator == "MatMul" else 1
    if weight.shape[axis] % GROUP:
        return None
    split = (*weight.shape[:axis], -1, GROUP, *weight.shape[axis + 1 :])
    grouped = weight.reshape(split)
    scale = np.abs(grouped).max(axis=axis + 1, keepdims=True) / np.float32(7)
    whole = np.rint(grouped / scale).astype(np.int8).reshape(-1).view(np.uint8) & 15
    packed = (whole[::2] | whole[1::2] << 4).tobytes()
    stored = helper.make_tensor("stored", TensorProto.INT4, weight.shape, packed, raw=True)
    constants = [stored, numpy_helper.from_array(np.squeeze(scale, axis=axis + 1), "scale")]
    node = helper.make_node(
        "DequantizeLinear", ["stored", "scale"], ["weight"], name="widen", axis=axis, block_size=GROUP
    )
    return _model(layer, [node], constants)


STORED: dict[str, Callable[[Layer], onnx.ModelProto | None]] = {
    "float16 weights": float16,
    "int8 weights": int8,
    "int4 weights": int4,
}
