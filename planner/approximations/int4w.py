"""Weights stored as int4: a scale for each group of 32 inputs, and float32 arithmetic.

The bytes of the weights fall to between a fifth and a sixth. A scale for each group: Dettmers and Zettlemoyer, *The
case for 4-bit precision: k-bit inference scaling laws* (ICML 2023), section 3. A group's scale is the one of least
squared error among a few that clip its greatest weights: Banner, Nahshan and Soudry, *Post training 4-bit quantization
of convolutional networks* (NeurIPS 2019), section 2, searched for rather than derived from a distribution. The shift
of the mean is put back by bias correction: Nagel, van Baalen, Blankevoort and Welling, *Data-free quantization*
(ICCV 2019), section 4.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import Context, LayerView, Offer, Replacement, Stored, stored

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer", "quantise"]

KIND = "storage"
CHOICES = ("int4w",)
ON_REQUEST = True
BLOCK = 32
"""Inputs that share a scale."""
_LEAST, _MOST = -8, 7
_FEWEST = 16
"""Inputs below which the scales take back what the weights save."""
_SHARES = np.arange(16, 33) / 32
"""Scales that are tried, as shares of the one that maps the greatest weight to 7; with 7/8 it may be -8."""


def offer(view: LayerView) -> Offer:
    """Offer int4 weights for convolutions of one group and matrix products of enough inputs."""
    if view.linear is None:
        return Offer(reason=f"{view.op} has no weights that could be stored as int4")
    if view.linear.groups > 1:
        return Offer(reason=f"its channels fall into {view.linear.groups} groups, and kernels read int4 in one only")
    inputs = view.linear.weight.shape[1]
    if inputs < _FEWEST:
        return Offer(reason=f"of {inputs} inputs, scales would take more bytes than are saved; {_FEWEST} are needed")
    return Offer(choices=CHOICES)


def quantise(weight: NDArray[np.float32], block: int = BLOCK) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to whole numbers from -8 to 7 with one scale for each group of inputs.

    Args:
        weight: float32, ``[output][input]...``.
        block: Inputs in a group; the last group may have fewer.

    Returns:
        Whole numbers of the same shape, and the scales, ``[output][group]...``: of those tried, the ones of least
        squared error.

    >>> whole, scale = quantise(np.array([[0.7, -0.2]], np.float32))
    >>> whole.tolist(), scale.shape
    ([[7, -2]], (1, 1))
    """
    inputs = weight.shape[1]
    missing = -inputs % block
    padded = np.pad(weight, [(0, 0), (0, missing)] + [(0, 0)] * (weight.ndim - 2)).astype(np.float64)
    groups = padded.reshape(len(weight), -1, block, *weight.shape[2:])
    widest = np.abs(groups).max(axis=2) / _MOST
    widest = np.where(widest > 0, widest, 1.0)
    best, least = widest, np.full(widest.shape, np.inf)
    for share in _SHARES:
        scale = (widest * share).astype(np.float32).astype(np.float64)
        whole = np.clip(np.rint(groups / scale[:, :, None]), _LEAST, _MOST)
        error = ((whole * scale[:, :, None] - groups) ** 2).sum(axis=2)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    whole = np.clip(np.rint(groups / best[:, :, None]), _LEAST, _MOST).astype(np.int8)
    return whole.reshape(padded.shape)[:, :inputs], best.astype(np.float32)


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as int4, and correct the bias."""
    from onnx import TensorProto, helper

    kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)

    def store(weight: NDArray[np.float32]) -> Stored | None:
        if weight.shape[1] < _FEWEST:
            return None
        whole, scale = quantise(weight)
        constants = {"int4": whole.astype(kind), "scale": scale}
        return Stored(op="DequantizeLinear", constants=constants, attributes={"axis": 1, "block_size": BLOCK})

    return stored(context, store)
