"""Mobile networks as exporters write them, activations clipped to 0..6, with seeded random weights.

Structures: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), table 2, and
EfficientNet-lite0, which is B0 of Tan and Le, "EfficientNet" (ICML 2019), table 1, without squeeze and excitation and
with clipped activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 1000
SIDE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Inverted bottlenecks of one size.

    Attributes:
        kernel: Height and width of the depthwise kernel.
        expansion: How many times as many channels the depthwise convolution has.
        channels: Channels that leave the stage.
        repeats: Bottlenecks.
        stride: Stride of the first one.
    """

    kernel: int
    expansion: int
    channels: int
    repeats: int
    stride: int


def _stages(*rows: tuple[int, int, int, int, int]) -> tuple[Stage, ...]:
    return tuple(Stage(kernel=k, expansion=t, channels=c, repeats=n, stride=s) for k, t, c, n, s in rows)


MOBILENET_V2 = _stages(
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)
EFFICIENTNET_LITE0 = _stages(
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


class _Writer:
    """Writes nodes one after the other, each reading the one before."""

    def __init__(self, seed: int, *, same: bool) -> None:
        """Start; ``same`` pads as TensorFlow's SAME does, more behind than before where the stride is 2."""
        self.random = np.random.default_rng(seed)
        self.same = same
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last, self.channels, self.side = "image", 3, SIDE

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], **attributes: object) -> None:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}_output"], name=name, **attributes))
        self.last = f"{name}_output"

    def convolution(self, filters: int, kernel: int, *, stride: int = 1, groups: int = 1, clip: bool = True) -> None:
        fan = self.channels // groups * kernel * kernel
        shape = (filters, self.channels // groups, kernel, kernel)
        number = len(self.nodes)
        weight = self.random.normal(0.0, np.sqrt(2.0 / fan), shape).astype(np.float32)
        bias = self.random.normal(0.0, 0.05, filters).astype(np.float32)
        out = -(-self.side // stride)
        before = kernel // 2
        behind = (out - 1) * stride + kernel - self.side - before
        if self.same:
            total = before + behind
            before, behind = total // 2, total - total // 2
        else:
            behind = before
        inputs = [
            self.last,
            self.constant(f"conv_{number}.weight", weight),
            self.constant(f"conv_{number}.bias", bias),
        ]
        self.add(
            "Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups,
            pads=[before, before, behind, behind], dilations=[1, 1],
        )  # fmt: skip
        self.channels, self.side = filters, out
        if clip:
            low = self.constant(f"clip_{number}.min", np.float32(0.0).reshape(()))
            high = self.constant(f"clip_{number}.max", np.float32(6.0).reshape(()))
            self.add("Clip", [self.last, low, high])

    def bottleneck(self, stage: Stage, stride: int) -> None:
        entrance, channels = self.last, self.channels
        if stage.expansion > 1:
            self.convolution(channels * stage.expansion, 1)
        self.convolution(self.channels, stage.kernel, stride=stride, groups=self.channels)
        self.convolution(stage.channels, 1, clip=False)
        if stride == 1 and channels == stage.channels:
            self.add("Add", [entrance, self.last])

    def classifier(self) -> None:
        self.add("GlobalAveragePool", [self.last])
        self.add("Flatten", [self.last], axis=1)
        shape = (CLASSES, self.channels)
        weight = self.random.normal(0.0, np.sqrt(1.0 / self.channels), shape).astype(np.float32)
        inputs = [
            self.last,
            self.constant("classifier.weight", weight),
            self.constant("classifier.bias", np.zeros(CLASSES, np.float32)),
        ]
        self.add("Gemm", inputs, transB=1)


def mobile(stages: Sequence[Stage], *, same: bool, seed: int = 0) -> onnx.ModelProto:
    """Write a mobile network of 224x224 images and 1000 classes, batch normalisation folded as exporters do.

    Args:
        stages: Its stages, between a stem of 32 channels and a last convolution of 1280.
        same: Whether it is padded as TensorFlow pads, not alike on all sides, or as PyTorch pads.
        seed: Seed of the weights.
    """
    writer = _Writer(seed, same=same)
    writer.convolution(32, 3, stride=2)
    for stage in stages:
        for index in range(stage.repeats):
            writer.bottleneck(stage, stage.stride if index == 0 else 1)
    writer.convolution(1280, 1)
    writer.classifier()
    graph = helper.make_graph(
        writer.nodes,
        "mobile",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(writer.last, TensorProto.FLOAT, [1, CLASSES])],
        writer.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
