"""A network while it is being rewritten: nodes, constants and shapes that can be changed in place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["Draft", "attributes"]

_LARGE = 1024
"""Constants of more elements than this are no shapes or indices; of them inference needs the shape alone."""


@dataclass(slots=True)
class Draft:
    """Hold a model while it is rewritten: nodes in topological order, constants, and shapes at batch 1."""

    where: str
    nodes: list[onnx.NodeProto]
    arrays: dict[str, NDArray[Any]]
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    opset: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: list[onnx.ValueInfoProto] = field(default_factory=list)

    def readers(self) -> Counter[str]:
        """Return how often each tensor is read; the network's output counts as one reader."""
        counts = Counter(name for node in self.nodes for name in node.input if name)
        counts[self.output_name] += 1
        return counts

    def to_model(self, *, light: bool = False) -> onnx.ModelProto:
        """Write the draft as an ONNX model with a static input and the constants that are still read.

        Args:
            light: Declare large constants by their shape alone, as inputs: enough to infer shapes from.
        """
        import onnx
        from onnx import helper, numpy_helper

        read = self.readers()
        inputs = [helper.make_tensor_value_info(self.input_name, onnx.TensorProto.FLOAT, list(self.input_shape))]
        kept = []
        for name, array in self.arrays.items():
            if read[name] and light and array.size > _LARGE:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
            elif read[name]:
                kept.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        shape = self.shapes.get(self.output_name)
        output = helper.make_tensor_value_info(self.output_name, onnx.TensorProto.FLOAT, shape)
        values = [] if light else self.values
        graph = helper.make_graph(self.nodes, "folded", inputs, [output], kept, value_info=values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def infer(self) -> None:
        """Infer the shape of every tensor at batch 1 and keep it in ``shapes``.

        Raises:
            InputError: Shapes contradict each other.
        """
        import onnx

        try:
            model = onnx.shape_inference.infer_shapes(self.to_model(light=True), strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as err:
            raise InputError(f"{self.where}: the shapes of the network do not fit together: {err}") from err
        self.values = list(model.graph.value_info)
        self.shapes = {name: array.shape for name, array in self.arrays.items()}
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                self.shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
