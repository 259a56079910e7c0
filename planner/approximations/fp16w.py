"""Weights stored as float16, and float32 arithmetic.

The bytes of the weights fall to half; each weight keeps 11 significant bits, so that nothing need be calibrated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "storage"
CHOICES = ("fp16w",)
ON_REQUEST = True
_GREATEST = float(np.finfo(np.float16).max)


def offer(view: LayerView) -> Offer:
    """Offer float16 weights for every convolution and matrix product whose weights are in its range."""
    if view.linear is None:
        return Offer(reason=f"{view.op} has no weights that could be stored as float16")
    if np.abs(view.linear.weight).max() > _GREATEST:
        return Offer(reason=f"it has weights beyond {_GREATEST:,.0f}, the greatest float16")
    return Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as float16, and correct the bias."""
    from onnx import TensorProto

    def store(weight: NDArray[np.float32]) -> Stored | None:
        if np.abs(weight).max() > _GREATEST:
            return None
        constants = {"float16": weight.astype(np.float16)}
        return Stored(op="Cast", constants=constants, attributes={"to": TensorProto.FLOAT})

    return stored(context, store)
