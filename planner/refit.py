"""Refitting a layer to what the exact network gives, from the inputs that the approximated network gives it.

Ridge least squares toward the old weights, no labels needed: the layer-wise asymmetric reconstruction of
Zhang, Zou, He and Sun, *Accelerating very deep convolutional networks for classification and detection* (PAMI
2016), section 3.2, without its non-linearity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from planner.linear import Linear, Moments

__all__ = ["ridge", "solve"]

_RIDGE = 1e-3
_FEW_SAMPLES = 0.3
_FREE = 1e-9


def ridge(depth: int, moments: Moments) -> float:
    """Return the strength of the ridge, as a share of the inputs' mean square.

    A convolution has many rows an image. Where there is one, as in a dense layer, the strength grows with the
    number of weights an output has for each image.

    >>> from planner.linear import Moments
    >>> ridge(100, Moments(gram=np.eye(101)[None], cross=None, rows=300, images=300))
    0.101
    """
    return _RIDGE + (_FEW_SAMPLES * depth / moments.rows if moments.rows <= moments.images else 0.0)


def solve(linear: Linear, moments: Moments) -> Linear:
    """Refit a layer: minimise the mean square of W·u - y plus the ridge times the square of W's change.

    With A = (W, b), G the mean of u·uᵀ and C the mean of y·uᵀ, the minimum is A + (C - A·G)·(G + λ)⁻¹.

    Args:
        linear: The layer as it was.
        moments: Moments of its present inputs, with the exact network's outputs as targets.

    Returns:
        The refitted layer. A layer without a bias stays without.
    """
    if moments.cross is None:
        raise ValueError("a refit needs moments with targets")
    depth = linear.depth
    used = slice(0, depth if linear.bias is None else depth + 1)
    weights = linear.matrix.reshape(linear.groups, -1, depth).astype(np.float64)
    bias = np.zeros(linear.outputs) if linear.bias is None else linear.bias.astype(np.float64)
    old = np.concatenate([weights, bias.reshape(linear.groups, -1, 1)], axis=2)[:, :, used]
    gram, cross = moments.gram[:, used, used], moments.cross[:, :, used]
    square = np.diagonal(gram, axis1=1, axis2=2)[:, :depth].mean(axis=1)
    strength = np.zeros((linear.groups, gram.shape[1]))
    strength[:, :depth] = (ridge(depth, moments) * square + _FREE)[:, None]
    strength[:, depth:] = _FREE
    penalised = gram + strength[:, :, None] * np.eye(gram.shape[1])
    change = np.linalg.solve(penalised, (cross - old @ gram).swapaxes(1, 2)).swapaxes(1, 2)
    new = (old + change).reshape(linear.outputs, -1)
    return replace(
        linear,
        weight=np.ascontiguousarray(new[:, :depth], dtype=np.float32).reshape(linear.weight.shape),
        bias=None if linear.bias is None else new[:, depth].astype(np.float32),
    )
