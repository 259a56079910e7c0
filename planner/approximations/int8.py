"""Integer arithmetic: weights and activations as bytes, products summed in int32.

Jacob et al., *Quantization and training of neural networks for efficient integer-arithmetic-only inference* (CVPR
2018), with a scale for each output channel of the weights (Krishnamoorthi, *Quantizing deep convolutional networks for
efficient inference*, 2018).  ``int8`` keeps 8 bits of each activation; ``int8@u7`` keeps 7, with which processors
without a dot product of bytes take a faster instruction that cannot overflow then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored
from planner.grids import whole_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CHOICES", "DTYPES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "arithmetic"
CHOICES = ("int8", "int8@u7")
DTYPES = {"int8": "int8", "int8@u7": "uint7"}
ON_REQUEST = ("int8@u7",)
_BYTES = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat"})
"""Operators without weights whose kernels read and write bytes."""


def offer(view: LayerView) -> Offer:
    """Offer both for convolutions, matrix products, and operators that work on bytes as they are."""
    if view.linear is None and view.op not in _BYTES:
        return Offer(reason=f"{view.op} has no kernel that reads and writes bytes")
    return Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as int8, and round what passes between its operators."""
    if context.weights is None:
        return context.replacement

    def store(weight: NDArray[np.float32]) -> Stored | None:
        whole, scale = whole_weights(weight)
        return Stored(op="DequantizeLinear", constants={"int8": whole, "scale": scale}, attributes={"axis": 0})

    return stored(context, store)
