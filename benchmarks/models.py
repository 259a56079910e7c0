"""The networks of the benchmarks by name: shipped ones, well-known ones with seeded weights, or any ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import encoder
import light
import mobile
import numpy as np
import onnx
from numpy.typing import NDArray

import planner

SHIPPED = ("quick", "resnet8", "vggs", "vgg16q")
LIGHT = {
    "squeezenet": "squeezenet",
    "resnet50": "resnet50",
    "shufflenet": "shufflenet",
    "densenet121": "densenet121",
    "inception_v1": "inception_v1",
    "inception_v2": "inception_v2",
    "alexnet": "bvlc_alexnet",
    "vgg19": "vgg19",
    "zfnet512": "zfnet512",
}
MADE: dict[str, Callable[[], onnx.ModelProto]] = {
    "encoder": encoder.encoder,
    "mobilenet": lambda: mobile.mobile(mobile.MOBILENET_V2, same=False),
    "efficientnet": lambda: mobile.mobile(mobile.EFFICIENTNET_LITE0, same=True),
}
NAMES = (*SHIPPED, *LIGHT, *MADE)
FAMOUS = ("quick", "resnet8", "vggs", *LIGHT)
"""The networks whose geometric mean is stated."""
CALIBRATION = 16
"""Inputs that an int8 network is calibrated with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One network on disk, and what it is run with.

    Attributes:
        name: As the user wrote it; the file's name without its suffix for a path.
        path: The float32 network as it came, less a softmax that it ends in.
        folded: The same with what can be computed from constants computed: what is quantised.
        inputs: ``(n, ...)``: real images for shipped networks, seeded normal numbers for others.
    """

    name: str
    path: Path
    folded: onnx.ModelProto
    inputs: NDArray[np.float32]


def prepare(name: str, folder: Path) -> Subject:
    """Write one network into a folder, the file that every runtime is handed.

    Args:
        name: One of :data:`NAMES`, or the path of an ONNX file.
        folder: Where files may be written.

    Raises:
        SystemExit: There is no network of that name, and no file.
    """
    stem = Path(name).stem if name.endswith(".onnx") else name
    source = folder / f"{stem}.onnx"
    if name in SHIPPED:
        model = onnx.load(planner.shipped(f"models/{name}.onnx"))
    elif name in LIGHT:
        model = light.light(LIGHT[name])
    elif name in MADE:
        model = MADE[name]()
    elif Path(name).is_file():
        model = onnx.load(name)
    else:
        raise SystemExit(f"no network {name!r}; expected an ONNX file or one of {', '.join(NAMES)}")
    onnx.save(without_softmax(model), source)
    graph = planner.load(source).graph
    if name in SHIPPED:
        inputs = planner.dataset.read(planner.shipped("fashion_mnist.npz")).inputs("calibration", first=CALIBRATION)
    else:
        shape = (CALIBRATION, *graph.input_shape[1:])
        inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return Subject(name=stem, path=source, folded=graph.model, inputs=inputs)


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cut a network before a softmax that it ends in: random weights saturate it, and it would hide differences."""
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    last = made[graph.output[0].name]
    if last.op_type != "Softmax":
        return model
    before = onnx.ValueInfoProto()
    before.CopyFrom(graph.output[0])
    before.name = last.input[0]
    before.type.tensor_type.ClearField("shape")
    graph.node.remove(last)
    del graph.output[:]
    graph.output.append(before)
    return onnx.shape_inference.infer_shapes(model)
