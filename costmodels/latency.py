"""From the times of kernels to the time of a network: what an affine model keeps, and what it misses.

A network takes longer than its kernels measured alone: each call is dispatched, tensors are allocated, caches are
shared.  A few networks timed whole tell by how much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LatencyModel", "fit", "spread"]


_LEAST_FACTOR = 0.5
"""A fit by which kernels count for less than half is of networks too few or too alike; they count as they are then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Predict ``overhead + factor * kernels + dispatch * calls`` and say how far off that was.

    Attributes:
        overhead_ns: Time of a run besides its kernels, nanoseconds.
        factor: How much longer kernels take inside a network than alone.
        dispatch_ns: Time that each kernel call adds, nanoseconds.
        reserve: What layer times are multiplied by so that no network measured exceeds its prediction, at least 1.
        worst_error: Greatest relative error of the model without reserve over the networks it was fitted to.

    >>> model = LatencyModel(overhead_ns=100.0, factor=1.0, dispatch_ns=10.0, reserve=1.0, worst_error=0.0)
    >>> model.layer_ns(1000.0, calls=2)
    1020.0
    """

    overhead_ns: float
    factor: float
    dispatch_ns: float
    reserve: float
    worst_error: float

    def layer_ns(self, kernels_ns: float, *, calls: int) -> float:
        """Give the time of a layer inside the network, nanoseconds, without reserve.

        Args:
            kernels_ns: Time of its kernels measured alone.
            calls: How many they are.
        """
        return self.factor * kernels_ns + self.dispatch_ns * calls


def fit(kernels_ns: NDArray[np.float64], calls: NDArray[np.float64], totals_ns: NDArray[np.float64]) -> LatencyModel:
    """Fit a latency model by non-negative least squares of relative errors.

    Args:
        kernels_ns: Sum of kernel times, ``[network]``.
        calls: Kernel calls, ``[network]``.
        totals_ns: Times of whole networks, ``[network]``.

    Returns:
        The model. With fewer than three networks, or where they are too alike to tell the terms apart, only the
            overhead is fitted, and kernels count as they are.

    Raises:
        ValueError: There is no network, or a time is not positive.
    """
    from scipy.optimize import nnls

    if len(totals_ns) == 0 or np.any(totals_ns <= 0):
        raise ValueError(f"expected positive times of at least one network, got {totals_ns}")
    columns = np.stack([kernels_ns, calls, np.ones(len(totals_ns))], axis=1)
    if len(totals_ns) >= columns.shape[1]:
        (factor, dispatch, overhead), _ = nnls(columns / totals_ns[:, None], np.ones(len(totals_ns)))
    else:
        factor = 0.0
    if factor < _LEAST_FACTOR:
        factor, dispatch = 1.0, 0.0
        overhead = max(0.0, float(np.mean(totals_ns - kernels_ns)))
    layers = factor * kernels_ns + dispatch * calls
    reserve = float(np.max((totals_ns - overhead) / np.maximum(layers, 1.0)))
    return LatencyModel(
        overhead_ns=float(overhead),
        factor=float(factor),
        dispatch_ns=float(dispatch),
        reserve=max(1.0, reserve),
        worst_error=float(np.max(np.abs(overhead + layers - totals_ns) / totals_ns)),
    )


def spread(samples: NDArray[np.float64]) -> float:
    """Give the standard deviation of samples from their median absolute deviation, along the first axis summed.

    Outliers of a shared machine do not reach it (Rousseeuw and Croux, 1993; factor 1.4826 for normal samples).

    Args:
        samples: ``[repeat]``.
    """
    centre = np.median(samples)
    return float(1.4826 * np.median(np.abs(samples - centre)))
