"""What repeated samples say: medians, quantiles, and how certain they are, with no assumption of a distribution."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "estimate", "spread"]

RESAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Hold samples of one figure and what they say.

    Attributes:
        median: Their median.
        spread: Their standard deviation, from the median absolute deviation.
        error: Standard error of the median, by the bootstrap.
        samples: The samples, ``[repeat]``.

    >>> estimate(np.array([1.0, 2.0, 9.0])).quantile(0.5)
    2.0
    """

    median: float
    spread: float
    error: float
    samples: NDArray[np.float64] = field(repr=False)

    def quantile(self, share: float) -> float:
        """Return the value that a share of samples does not exceed."""
        return float(np.quantile(self.samples, share))


def estimate(samples: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Say what samples show.

    The error is the standard deviation of the medians of 200 resamples (Efron, *Bootstrap methods: another look at the
    jackknife*, 1979).

    Args:
        samples: ``[repeat]``.
        seed: Seed of the resampling.

    Raises:
        ValueError: There is no sample, or one is not finite.
    """
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"expected finite samples, at least one; got {samples}")
    drawn = np.random.default_rng(seed).integers(0, len(samples), (RESAMPLES, len(samples)))
    return Estimate(
        median=float(np.median(samples)),
        spread=spread(samples),
        error=float(np.median(samples[drawn], axis=1).std()),
        samples=samples,
    )


def spread(samples: NDArray[np.float64]) -> float:
    """Give the standard deviation of samples from their median absolute deviation.

    Outliers of a shared machine do not reach it (Rousseeuw and Croux, 1993; factor 1.4826 for normal samples).

    Args:
        samples: ``[repeat]``.
    """
    return float(1.4826 * np.median(np.abs(samples - np.median(samples))))
