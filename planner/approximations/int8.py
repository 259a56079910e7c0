"""Integer arithmetic: weights and activations as bytes, products summed in int32.

Jacob et al., *Quantization and training of neural networks for efficient integer-arithmetic-only inference* (CVPR
2018), with a scale for each output channel of the weights (Krishnamoorthi, *Quantizing deep convolutional networks for
efficient inference*, 2018).  ``int8`` keeps 8 bits of each activation; ``int8@u7`` keeps 7, with which processors
without a dot product of bytes take a faster instruction that cannot overflow then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored
from planner.boundaries import Rounding
from planner.grids import LEVELS, whole_weights
from planner.ranges import DEFAULT, Histogram, grid_of

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

__all__ = ["CHOICES", "DTYPES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "arithmetic"
CHOICES = ("int8", "int8@u7")
DTYPES = {"int8": "int8", "int8@u7": "uint7"}
ON_REQUEST = ("int8@u7",)
_BYTES = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat"})
"""Operators without weights whose kernels read and write bytes."""
_PRODUCTS = frozenset({"Conv", "Gemm"})


def offer(view: LayerView) -> Offer:
    """Offer both for convolutions, matrix products, and operators that work on bytes as they are."""
    if view.linear is None and view.op not in _BYTES:
        return Offer(reason=f"{view.op} has no kernel that reads and writes bytes")
    return Offer(choices=CHOICES)


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
