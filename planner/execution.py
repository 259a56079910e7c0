"""Running networks, and parts of them, on many images at once with onnxruntime.

A network is written for batch 1. Most can run a batch as they are, once the leading 1 of constant reshapes is left
open; `batchable` tells which, by looking at the operators. The others are run image by image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from planner.folding import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from planner.layering import Shape

__all__ = ["BATCH", "batchable", "run_model", "run_nodes"]

BATCH = 64
"""Images a call: the activations of small networks stay in the cache."""

_ROWWISE = frozenset(
    {
        *(
            "Conv",
            "ConvTranspose",
            "MaxPool",
            "AveragePool",
            "LpPool",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "LRN",
        ),
        *(
            "BatchNormalization",
            "InstanceNormalization",
            "DequantizeLinear",
            "QuantizeLinear",
            "DepthToSpace",
        ),
        *("SpaceToDepth", "Identity", "Dropout"),
    }
)
"""Operators that treat each image alone, whatever their attributes."""

_ELEMENTWISE = frozenset(
    {
        *(
            "Abs",
            "Add",
            "Cast",
            "Ceil",
            "Celu",
            "Clip",
            "Div",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "HardSigmoid",
        ),
        *(
            "HardSwish",
            "LeakyRelu",
            "Log",
            "Max",
            "Mean",
            "Min",
            "Mish",
            "Mul",
            "Neg",
            "Pow",
            "PRelu",
            "Reciprocal",
        ),
        *("Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh"),
        "ThresholdedRelu",
    }
)

_ALONG_AXIS = {
    "Softmax": -1,
    "LogSoftmax": -1,
    "Concat": 0,
    "LayerNormalization": -1,
    "Flatten": 1,
    "Split": 0,
}
"""Operators that work along the axis in an attribute, with its default; any axis but the first will do."""


def batchable(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether a network written for batch 1 can be run on a batch by leaving its first dimension open.

    Args:
        model: The network.
        shapes: Shape of every tensor at batch 1, initialisers included.

    Returns:
        True if every operator is known to keep the images of a batch apart; False where that is not certain.
    """
    from onnx import numpy_helper

    small = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer if _is_list(item)}
    constants = {item.name for item in model.graph.initializer}
    fed = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return all(_keeps_images_apart(node, shapes, constants | fed, small) for node in model.graph.node)


def _is_list(item: onnx.TensorProto) -> bool:
    return len(item.dims) < 2  # noqa: PLR2004


def _keeps_images_apart(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: set[str], small: Mapping[str, NDArray[Any]]
) -> bool:
    if node.op_type == "DequantizeLinear" and node.input[0] in constants:
        return True
    data = [shapes[name] for name in node.input if name and name not in constants]
    made = [shapes[name] for name in node.output if name]
    if not data or any(not shape or shape[0] != 1 for shape in (*data, *made)):
        return False
    rank = len(data[0])
    values = attributes(node)
    if node.op_type in _ROWWISE:
        return len(data) == 1
    if node.op_type in _ELEMENTWISE:
        fixed = [shapes[name] for name in node.input if name in constants]
        return all(len(shape) == rank for shape in data) and all(
            len(shape) < rank or (len(shape) == rank and shape[0] == 1) for shape in fixed
        )
    if node.op_type in _ALONG_AXIS:
        return bool(values.get("axis", _ALONG_AXIS[node.op_type]) % rank != 0)
    if node.op_type == "Gemm":
        return len(data) == 1 and node.input[0] not in constants and not values.get("transA", 0)
    if node.op_type == "MatMul":
        return node.input[0] not in constants and (len(data) == 1 or rank > 2)  # noqa: PLR2004
    if node.op_type == "Transpose":
        return bool(values.get("perm", [1])[0] == 0)
    if node.op_type == "Reshape":
        target = small.get(node.input[1])
        return (
            target is not None
            and len(target) > 0
            and target[0] in {-1, 0, 1}
            and not values.get("allowzero", 0)
        )
    if node.op_type in {"Squeeze", "Unsqueeze", "ReduceMean", "ReduceMax", "ReduceSum"}:
        axes = values.get("axes") or (small.get(node.input[1]) if len(node.input) > 1 else None)
        return axes is not None and all(axis % max(rank, len(made[0])) != 0 for axis in axes)
    if node.op_type == "Resize":
        return len(node.input) == 3 and node.input[2] in small and small[node.input[2]][0] == 1  # noqa: PLR2004
    if node.op_type == "Pad":
        pads = small.get(node.input[1])
        return pads is not None and pads[0] == 0 and pads[len(pads) // 2] == 0 and len(node.input) < 4  # noqa: PLR2004
    return False


def run_nodes(
    nodes: Sequence[onnx.NodeProto],
    arrays: Mapping[str, NDArray[Any]],
    feeds: Mapping[str, NDArray[np.float32]],
    outputs: Sequence[str],
    *,
    opset: int,
    batch: int = BATCH,
    threads: int = 1,
) -> dict[str, NDArray[np.float32]]:
    """Run some nodes of a network on many images.

    Args:
        nodes: The nodes in topological order.
        arrays: The constants they read.
        feeds: Value of every other tensor they read, ``[image][...]``.
        outputs: Names of the tensors wanted.
        opset: ONNX operator set the nodes are written in.
        batch: Images a call; 1 for a network that cannot run a batch.
        threads: Threads of onnxruntime.

    Returns:
        The tensors wanted, ``[image][...]``.
    """
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes = [_open_reshape(node, arrays) for node in nodes]
    constants = {name: arrays[name] for node in nodes for name in node.input if name in arrays}
    opened = {
        node.input[1]: np.concatenate([np.zeros(1, np.int64), arrays[node.input[1].removesuffix(_OPEN)][1:]])
        for node in nodes
        if node.op_type == "Reshape" and node.input[1].endswith(_OPEN)
    }
    graph = helper.make_graph(
        list(nodes),
        "part",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *array.shape[1:]])
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in (constants | opened).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Weights stored as int8 are judged by their exact values, never by the runtime's own integer kernels.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    count = len(next(iter(feeds.values())))
    parts = [
        session.run(list(outputs), {name: array[start : start + batch] for name, array in feeds.items()})
        for start in range(0, count, batch)
    ]
    return {name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(outputs)}


_OPEN = "/any_batch"


def _open_reshape(node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> onnx.NodeProto:
    """Leave the first dimension of a constant reshape open where it is 1: 0 copies it from the input."""
    if node.op_type != "Reshape" or node.input[1] not in arrays or list(arrays[node.input[1]][:1]) != [1]:
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[1] = node.input[1] + _OPEN
    return copy


def run_model(
    model: onnx.ModelProto, images: NDArray[np.float32], *, batch: int = BATCH, threads: int = 1
) -> NDArray[np.float32]:
    """Run a whole network on many images.

    Args:
        model: A network of one input and one output, written for batch 1.
        images: Its inputs, ``[image][channel][row][column]``.
        batch: Images a call; 1 for a network that cannot run a batch.
        threads: Threads of onnxruntime.

    Returns:
        Its output, one row an image.
    """
    from onnx import numpy_helper

    graph = model.graph
    output = graph.output[0].name
    results = run_nodes(
        list(graph.node),
        {item.name: numpy_helper.to_array(item) for item in graph.initializer},
        {graph.input[0].name: images},
        [output],
        opset=next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}),
        batch=batch,
        threads=threads,
    )
    return results[output].reshape(len(images), -1)
