"""Integer arithmetic: weights and activations as bytes, products summed in int32.

Jacob et al., *Quantization and training of neural networks for efficient integer-arithmetic-only inference* (CVPR
2018), with a scale for each output channel of the weights (Krishnamoorthi, *Quantizing deep convolutional networks for
efficient inference*, 2018).  ``int8`` keeps 8 bits of each activation; ``int8@u7`` keeps 7, with which processors
without a dot product of bytes take a faster instruction that cannot overflow then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.activations.boundaries import Rounding
from planner.activations.grids import LEVELS, whole_weights
from planner.activations.ranges import DEFAULT, Histogram, grid_of
from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

__all__ = ["CHOICES", "DTYPES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "arithmetic"
CHOICES = ("int8", "int8@u7")
DTYPES = {"int8": "int8", "int8@u7": "uint7"}
ON_REQUEST = ("int8@u7",)
_PRODUCTS = frozenset({"Conv", "Gemm"})
_MAP = 4
"""Dimensions of a feature map."""
_BLOCK = 16
"""Channels that lie side by side in kernels."""


def offer(view: LayerView) -> Offer:
    """Offer both where there is a kernel that reads and writes bytes."""
    reason = _reason_against(view)
    return Offer(reason=reason) if reason else Offer(choices=CHOICES)


def _reason_against(view: LayerView) -> str:
    """Say why no kernel of bytes does what a layer does; nothing where one does.

    What those kernels take is stated where they are made, in `planner.schedules.int8.lowerings`.
    """
    linear, maps = view.linear, len(view.input_shape) == _MAP
    if linear is not None and view.op in _PRODUCTS:
        alone = linear.groups == linear.outputs == view.input_shape[1]
        if linear.groups > 1 and not alone:
            return f"its channels fall into {linear.groups} groups, and kernels of bytes read all of them or each alone"
        return ""
    if view.op in {"MaxPool", "GlobalAveragePool"}:
        return "" if maps else f"its input has {len(view.input_shape)} dimensions; kernels of bytes read maps of rows"
    if view.op == "AveragePool":
        return "" if maps and _lies_inside(view) else "its window overhangs the map, and its mean is not of all bytes"
    if view.op == "Concat":
        channels = [shape[1] for shape in view.input_shapes if len(shape) == _MAP]
        if len(channels) != len(view.input_shapes) or view.attributes.get("axis") not in {1, 1 - _MAP}:
            return "it joins something else than the channels of maps"
        if any(count % _BLOCK for count in channels[:-1]):
            return f"it joins {channels} channels, and bytes lie in blocks of {_BLOCK}"
        return ""
    return f"{view.op} has no kernel that reads and writes bytes"


def _lies_inside(view: LayerView) -> bool:
    """Tell whether no window of a pooling reaches beyond the map."""
    kernel = view.attributes["kernel_shape"]
    strides, dilations = (view.attributes.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    reach = [
        (places - 1) * stride + (size - 1) * dilation + 1
        for places, stride, size, dilation in zip(view.output_shape[2:], strides, kernel, dilations, strict=True)
    ]
    inside = all(end <= size for end, size in zip(reach, view.input_shape[2:], strict=True))
    return inside and not any(view.attributes.get("pads", ()))


def apply(context: Context, choice: str) -> Replacement:
    """Round the weights of whatever stands for the anchor to 8 bits, and what passes between its operators to bytes.

    Weights that are stored as whole numbers already stay as they are.
    """
    if context.weights is None:
        return context.replacement

    def store(weight: NDArray[np.float32]) -> Stored | None:
        whole, scale = whole_weights(weight)
        return Stored(op="DequantizeLinear", constants={"int8": whole, "scale": scale}, attributes={"axis": 0})

    return stored(replace(context, replacement=_inner_rounded(context, DTYPES[choice])), store)


def _inner_rounded(context: Context, dtype: str) -> Replacement:
    """Round tensors between operators of a replacement to bytes, where products of them are taken.

    Their grids are those of the least squared error on what the layer reads in the approximated network.
    """
    new = context.replacement
    multiplied = {node.input[0] for node in new.nodes if node.op_type in _PRODUCTS}
    others = {name for node in new.nodes if node.op_type not in _PRODUCTS for name in node.input}
    for tensor in [node.output[0] for node in new.nodes[:-1] if node.output[0] in multiplied - others]:
        place = next(index for index, node in enumerate(new.nodes) if tensor in node.output) + 1
        values = context.run(replace(new, nodes=new.nodes[:place]), context.present)
        grid = grid_of(Histogram.of(values), LEVELS[dtype], DEFAULT)
        rounding = Rounding(context.view.name)
        rounding.quantise(tensor, f"{tensor}.{dtype}", grid, dtype)
        rounding.dequantise(f"{tensor}.{dtype}", f"{tensor}.real", grid)
        readers = [_reading(node, tensor, f"{tensor}.real") for node in new.nodes[place:]]
        new = Replacement(
            nodes=(*new.nodes[:place], *rounding.nodes, *readers), arrays={**new.arrays, **rounding.arrays}
        )
    return new


def _reading(node: onnx.NodeProto, tensor: str, instead: str) -> onnx.NodeProto:
    """Return an operator that reads something else instead of a tensor."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = [instead if name == tensor else name for name in node.input]
    return copy
