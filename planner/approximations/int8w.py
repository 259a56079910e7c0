"""Weights stored as int8: one symmetric scale an output channel, and float32 arithmetic.

The bytes of the weights fall to a quarter. Symmetric scales a channel: Krishnamoorthi, *Quantizing deep
convolutional networks for efficient inference* (2018), section 3.1; the shift of the mean is put back by bias
correction: Nagel, van Baalen, Blankevoort and Welling, *Data-free quantization* (ICCV 2019), section 4.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored

__all__ = ["CHOICES", "KIND", "apply", "offer", "quantise"]

KIND = "storage"
CHOICES = ("int8w",)

_LARGEST = 127
_LEAST_DEPTH = 2


def offer(view: LayerView) -> Offer:
    """Offer int8 weights for every convolution and matrix product of which they save bytes."""
    if view.linear is None:
        return Offer(reason=f"{view.op} has no weights that could be stored as int8")
    if view.linear.depth < _LEAST_DEPTH:
        return Offer(reason="each output has one weight; its scale would take more bytes than are saved")
    return Offer(choices=CHOICES)


def quantise(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 with one scale an output channel, the largest weight being 127.

    Args:
        weight: float32, ``[output][...]``.

    Returns:
        Whole numbers of the same shape, and the scales ``[output]``: no weight is off by more than half its
        scale.

    >>> quantise(np.array([[1.27, -0.5]], np.float32))[0].tolist()
    [[127, -50]]
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    shape = (-1,) + (1,) * (weight.ndim - 1)
    whole = np.clip(np.rint(weight / scale.reshape(shape)), -_LARGEST, _LARGEST)
    return whole.astype(np.int8), scale


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as int8, and correct the bias."""

    def store(weight: NDArray[np.float32]) -> Stored:
        whole, scale = quantise(weight)
        return Stored(op="DequantizeLinear", constants={"int8": whole, "scale": scale}, attributes={"axis": 0})

    return stored(context, store)
