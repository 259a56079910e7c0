"""Running networks, and parts of them, on many images at once with onnxruntime.

A network is written for batch 1. Most can run a batch as they are, once the leading 1 of constant reshapes is
left open; `planner.batching` tells which. The others are run image by image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

__all__ = ["BATCH", "Part", "run_model", "run_nodes"]

BATCH = 64
"""Images a call: the activations of small networks stay in the cache."""


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
    part = Part(
        nodes,
        arrays,
        {name: array.shape for name, array in feeds.items()},
        outputs,
        opset=opset,
        batch=batch,
        threads=threads,
    )
    return part.run(feeds)


class Part:
    """Some nodes of a network, ready to be run on images as they come.

    Attributes:
        outputs: Names of the tensors that it gives.
    """

    def __init__(
        self,
        nodes: Sequence[onnx.NodeProto],
        arrays: Mapping[str, NDArray[Any]],
        feeds: Mapping[str, Sequence[int]],
        outputs: Sequence[str],
        *,
        opset: int,
        batch: int = BATCH,
        threads: int = 1,
    ) -> None:
        """Prepare the nodes.

        Args:
            nodes: The nodes in topological order.
            arrays: The constants they read.
            feeds: Shape of every other tensor they read, the number of images first.
            outputs: Names of the tensors wanted.
            opset: ONNX operator set the nodes are written in.
            batch: Images a call; 1 for a network that cannot run a batch.
            threads: Threads of onnxruntime.
        """
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        self.outputs = tuple(outputs)
        self._batch = batch
        if batch > 1:
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
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]])
                for name, shape in feeds.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [
                numpy_helper.from_array(np.asarray(array, order="C"), name)
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
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the nodes on the values of the tensors they read, ``[image][...]``."""
        count = len(next(iter(feeds.values())))
        parts = [
            self._session.run(
                list(self.outputs), {name: array[start : start + self._batch] for name, array in feeds.items()}
            )
            for start in range(0, count, self._batch)
        ]
        return {name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(self.outputs)}


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
