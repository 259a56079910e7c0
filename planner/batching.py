"""Whether a network written for batch 1 can be run on a batch: seen from its operators, not tried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.draft import attributes
from planner.layering import ELEMENTWISE

if TYPE_CHECKING:
    import onnx

    from planner.layering import Shape

__all__ = ["batchable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """Show a node with what the rules below ask about."""

    op: str
    data: tuple[Shape, ...]
    fixed: tuple[Shape, ...]
    made: tuple[Shape, ...]
    reads_data_first: bool
    values: Mapping[str, Any] = field(repr=False)
    lists: Mapping[int, NDArray[Any]] = field(repr=False)

    @property
    def rank(self) -> int:
        return len(self.data[0])


def batchable(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> bool:
    """Tell whether a network written for batch 1 can be run on a batch by leaving its first dimension open.

    Args:
        model: The network.
        shapes: Shape of every tensor at batch 1, initialisers included.

    Returns:
        True if every operator is known to keep the images of a batch apart; False where that is not certain.
    """
    from onnx import numpy_helper

    lists = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer if len(item.dims) == 1}
    constants = {item.name for item in model.graph.initializer}
    for proto in model.graph.node:
        if constants.issuperset(name for name in proto.input if name):  # weights that are widened, for instance
            constants.update(proto.output)
            continue
        node = _Node(
            op=proto.op_type,
            data=tuple(shapes[name] for name in proto.input if name and name not in constants),
            fixed=tuple(shapes[name] for name in proto.input if name in constants),
            made=tuple(shapes[name] for name in proto.output if name),
            reads_data_first=bool(proto.input) and proto.input[0] not in constants,
            values=attributes(proto),
            lists={index: lists[name] for index, name in enumerate(proto.input) if name in lists},
        )
        per_image = all(shape and shape[0] == 1 for shape in (*node.data, *node.made))
        rule = _RULES.get(node.op)
        if not node.data or not per_image or rule is None or not rule(node):
            return False
    return True


def _rowwise(node: _Node) -> bool:
    return len(node.data) == 1


def _elementwise(node: _Node) -> bool:
    rank = node.rank
    alike = all(len(shape) == rank for shape in node.data)
    return alike and all(len(shape) < rank or (len(shape) == rank and shape[0] == 1) for shape in node.fixed)


def _along(default: int) -> Callable[[_Node], bool]:
    return lambda node: bool(node.values.get("axis", default) % node.rank != 0)


def _gemm(node: _Node) -> bool:
    return len(node.data) == 1 and node.reads_data_first and not node.values.get("transA", 0)


def _matmul(node: _Node) -> bool:
    return node.reads_data_first and (len(node.data) == 1 or node.rank > 2)


def _transpose(node: _Node) -> bool:
    return bool(node.values.get("perm", [1])[0] == 0)


def _reshape(node: _Node) -> bool:
    target = node.lists.get(1)
    return target is not None and list(target[:1]) in [[-1], [0], [1]] and not node.values.get("allowzero", 0)


def _axes(node: _Node) -> bool:
    axes = node.values.get("axes", node.lists.get(1))
    rank = max(node.rank, len(node.made[0]))
    return axes is not None and len(axes) > 0 and all(axis % rank != 0 for axis in axes)


def _resize(node: _Node) -> bool:
    scales = node.lists.get(2, np.zeros(0))
    return 3 not in node.lists and scales.size > 0 and scales[0] == 1


def _pad(node: _Node) -> bool:
    pads = node.lists.get(1)
    return pads is not None and 3 not in node.lists and pads[0] == 0 and pads[len(pads) // 2] == 0


def _slice(node: _Node) -> bool:
    axes = node.lists.get(3)
    return axes is not None and all(axis % node.rank != 0 for axis in axes)


_RULES: Mapping[str, Callable[[_Node], bool]] = {
    **dict.fromkeys(
        (
            *(
                "Conv",
                "ConvTranspose",
                "MaxPool",
                "AveragePool",
                "LpPool",
                "GlobalAveragePool",
                "GlobalMaxPool",
            ),
            *("BatchNormalization", "InstanceNormalization", "LRN", "DequantizeLinear", "QuantizeLinear"),
            *("DepthToSpace", "SpaceToDepth", "Identity", "Dropout"),
        ),
        _rowwise,
    ),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceMean", "ReduceMax", "ReduceSum"), _axes),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization"), _along(-1)),
    **dict.fromkeys(("Concat", "Split"), _along(0)),
    "Flatten": _along(1),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Resize": _resize,
    "Pad": _pad,
    "Slice": _slice,
}
