"""From the times of kernels to the time of a network: what an affine model keeps, and what it misses.

A network takes longer than its kernels measured alone: each call is dispatched, tensors are allocated, caches are
shared.  A few networks timed whole tell by how much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LatencyModel", "fit"]

Float64 = NDArray[np.float64]


_LEAST_FACTOR = 0.25
"""A fit by which kernels count for less is of networks too few or too alike; they count as they are then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Predict ``overhead + factor * kernels + dispatch * calls``, and say how far off that was.

    The prediction is meant to be right in the mean.  What has to be added so that a bound is kept is the reserve, and
    stands apart.

    Attributes:
        overhead_ns: Time of a run besides its kernels, nanoseconds.
        factor: How much longer kernels take in a run of the network than where they were timed.
        dispatch_ns: Time that each kernel call adds, nanoseconds.
        reserve: What predicted times of layers are multiplied by so that no network measured exceeds what the others
            say of it, at least 1.
        errors: Relative errors, predicted over measured less 1, of each network by a fit to all others (Stone,
            *Cross-validatory choice and assessment of statistical predictions*, 1974).

    >>> model = LatencyModel(overhead_ns=100.0, factor=1.0, dispatch_ns=10.0, reserve=1.0, errors=(0.01, -0.03))
    >>> model.layer_ns(1000.0, calls=2), model.worst_error
    (1020.0, 0.03)
    """

    overhead_ns: float
    factor: float
    dispatch_ns: float
    reserve: float
    errors: tuple[float, ...]

    @property
    def median_error(self) -> float:
        """Median of the errors' absolute values."""
        return float(np.median(np.abs(self.errors)))

    @property
    def worst_error(self) -> float:
        """Greatest of the errors' absolute values."""
        return float(np.max(np.abs(self.errors)))

    def layer_ns(self, kernels_ns: float, *, calls: int) -> float:
        """Give the time of a layer inside the network, nanoseconds, without reserve.

        Args:
            kernels_ns: Time of its kernels measured alone.
            calls: How many they are.
        """
        return self.factor * kernels_ns + self.dispatch_ns * calls


def fit(kernels_ns: Float64, calls: Float64, totals_ns: Float64) -> LatencyModel:
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
    count = len(totals_ns)
    if count == 0 or np.any(totals_ns <= 0):
        raise ValueError(f"expected positive times of at least one network, got {totals_ns}")
    factor, dispatch, overhead = _terms(kernels_ns, calls, totals_ns)
    errors, reserve = [], 1.0
    for left in range(count):
        others = np.arange(count) != left if count > 1 else np.ones(1, bool)
        by, per_call, besides = _terms(kernels_ns[others], calls[others], totals_ns[others])
        layers = by * kernels_ns[left] + per_call * calls[left]
        errors.append(float((besides + layers) / totals_ns[left] - 1.0))
        for over, of in ((besides, layers), (overhead, factor * kernels_ns[left] + dispatch * calls[left])):
            reserve = max(reserve, float((totals_ns[left] - over) / max(of, 1.0)))
    return LatencyModel(
        overhead_ns=overhead, factor=factor, dispatch_ns=dispatch, reserve=reserve, errors=tuple(errors)
    )


def _terms(kernels_ns: Float64, calls: Float64, totals_ns: Float64) -> tuple[float, float, float]:
    """Return factor, dispatch and overhead."""
    from scipy.optimize import nnls

    columns = np.stack([kernels_ns, calls, np.ones(len(totals_ns))], axis=1)
    if len(totals_ns) >= columns.shape[1]:
        (factor, dispatch, overhead), _ = nnls(columns / totals_ns[:, None], np.ones(len(totals_ns)))
        if factor >= _LEAST_FACTOR:
            return float(factor), float(dispatch), float(overhead)
    return 1.0, 0.0, max(0.0, float(np.mean(totals_ns - kernels_ns)))
