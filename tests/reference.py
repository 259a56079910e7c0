"""What convolutions and poolings compute, written down in numpy as plainly as can be, in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _framed(x: Array, pads: Sequence[int], value: float) -> Array:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Cut a framed map into windows: ``[image][channel][row][column][kernel row][kernel column]``."""
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    cut = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return cut[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def convolution(
    x: Array,
    weight: Array,
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
) -> Array:
    """Convolve ``x[image][channel][row][column]`` with ``weight[out][in / group][kh][kw]``."""
    windows = _windows(_framed(x, pads, 0.0), weight.shape[2:], strides, dilations)
    inputs, outputs = weight.shape[1], weight.shape[0] // group
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, g * inputs : (g + 1) * inputs],
            weight[g * outputs : (g + 1) * outputs],
        )
        for g in range(group)
    ]
    return np.concatenate(parts, axis=1)


def maximum(x: Array, kernel: Sequence[int], *, strides: Sequence[int], pads: Sequence[int]) -> Array:
    """Take the greatest value of each window; what lies outside the map never is."""
    return _windows(_framed(x, pads, -np.inf), kernel, strides, (1, 1)).max(axis=(4, 5))


def mean(x: Array, kernel: Sequence[int], *, strides: Sequence[int], pads: Sequence[int], counted: bool) -> Array:
    """Take the mean of each window; ``counted`` says whether the frame of zeros counts."""
    total = _windows(_framed(x, pads, 0.0), kernel, strides, (1, 1)).sum(axis=(4, 5))
    ones = _framed(np.ones((1, 1, *x.shape[2:])), pads, float(counted))
    return np.asarray(total / _windows(ones, kernel, strides, (1, 1)).sum(axis=(4, 5)))
