"""Where the grid of a quantised tensor ought to end: ways to cut off rare large values for a finer grid.

Each method looks at a tensor's values on calibration images and gives the interval that its grid spans; what lies
beyond is cut.  They differ in what they think a cut costs: nothing is cut (``minmax``), a fixed share is
(``percentile``), the mean squared error decides (``mse``), or the information that the rounded values keep (``kl``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.activations.grids import Grid, spanning
from planner.errors import InputError

__all__ = ["DEFAULT", "METHODS", "Histogram", "grid_of"]

DEFAULT = "mse"
"""The method that is taken where nothing can be compared."""

_BINS = 2048
_VALUES = 1 << 21
"""Values that are counted, evenly far apart; least and greatest are taken over all."""
_FACTORS = np.linspace(1.0, 0.3, 36)
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Count a tensor's values.

    Attributes:
        counts: float64 ``[bin]``.
        centres: Middle of each bin, float64 ``[bin]``.
        least: The least value.
        greatest: The greatest value.

    >>> float(Histogram.of(np.array([0.0, 1.0, 2.0], np.float32)).counts.sum())
    3.0
    """

    counts: NDArray[np.float64] = field(repr=False)
    centres: NDArray[np.float64] = field(repr=False)
    least: float
    greatest: float

    def __post_init__(self) -> None:
        """Check that there is a count for each bin."""
        if self.counts.shape != self.centres.shape or not np.isfinite([self.least, self.greatest]).all():
            raise InputError(f"values from {self.least} to {self.greatest}; expected finite ones")

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Histogram:
        """Count some values, an evenly spaced part of them where there are many.

        Raises:
            InputError: There are none, or some are not finite.
        """
        if not values.size or not np.isfinite(values).all():
            raise InputError(f"values of shape {values.shape}; expected some, and all of them finite")
        flat = values.reshape(-1)
        # An odd step shares no factor with sizes that are powers of two, so that no channel is left out.
        part = flat[:: 2 * (flat.size // (2 * _VALUES)) + 1]
        counts, edges = np.histogram(part, bins=_BINS)
        centres = (edges[:-1] + edges[1:]).astype(np.float64) / 2
        # What is nought is nought exactly: after a Relu half of all values are, and they cost nothing.
        at = np.searchsorted(edges, 0.0, side="right") - 1
        if 0 <= at < _BINS and np.mean(part == 0) > 0.5 * counts[at] / part.size:
            centres[at] = 0.0
        return cls(
            counts=counts.astype(np.float64), centres=centres, least=float(flat.min()), greatest=float(flat.max())
        )


def _minmax(histogram: Histogram, levels: int) -> Grid:
    """Reach from the least to the greatest value."""
    return spanning(histogram.least, histogram.greatest, levels)


def _percentile(share: float) -> Callable[[Histogram, int], Grid]:
    """Leave half of what is beyond a share of all values at either end; all of it where there is one end."""

    def spanned(histogram: Histogram, levels: int) -> Grid:
        beyond = (1.0 - share) / (2 if histogram.least < 0 < histogram.greatest else 1)
        running = np.cumsum(histogram.counts) / histogram.counts.sum()
        last = len(running) - 1
        low = histogram.centres[min(int(np.searchsorted(running, beyond, side="right")), last)]
        high = histogram.centres[min(int(np.searchsorted(running, 1.0 - beyond)), last)]
        return spanning(low if histogram.least < 0 else 0.0, high if histogram.greatest > 0 else 0.0, levels)

    return spanned


def _cuts(histogram: Histogram, levels: int) -> Iterator[Grid]:
    """Go through grids that are cut at either end."""
    for low in _FACTORS[::3] if histogram.least < 0 else _FACTORS[:1]:
        for high in _FACTORS if histogram.greatest > 0 else _FACTORS[:1]:
            yield spanning(low * histogram.least, high * histogram.greatest, levels)


def _mse(histogram: Histogram, levels: int) -> Grid:
    """Make the mean squared error least."""

    def error(grid: Grid) -> float:
        rounded = (_bytes_of(histogram, grid) - grid.zero) * grid.scale
        return float(histogram.counts @ np.square(rounded - histogram.centres))

    return min(_cuts(histogram, levels), key=error)


def _kl(histogram: Histogram, levels: int) -> Grid:
    """Make the divergence of the rounded values' distribution from the cut one's least.

    After Migacz, *8-bit inference with TensorRT* (GTC 2017).  Bins beyond the ends fall to the outermost ones; the
    rounded distribution spreads what falls on a byte evenly over the bins that had any.  Both ends move together.
    """
    reach = max(-histogram.least, histogram.greatest)
    counts = histogram.counts.copy()
    # Noughts keep their value on every grid.  Counted, they would ask for a step as narrow as their bin.
    for at in np.flatnonzero(histogram.centres == 0.0):
        counts[at] = counts[max(at - 1, 0) : at + 2 : 2 if 0 < at < len(counts) - 1 else 1].min()

    def divergence(grid: Grid) -> float:
        whole = _bytes_of(histogram, grid)
        inside = (histogram.centres >= grid.least) & (histogram.centres <= grid.greatest)
        places = np.flatnonzero(inside)
        if len(places) < 2:
            return float("inf")
        kept, fallen = counts[inside].copy(), counts[inside]
        kept[0] += counts[: places[0]].sum()
        kept[-1] += counts[places[-1] + 1 :].sum()
        full = (kept > 0).astype(np.float64)
        mass = np.bincount(whole[inside], fallen, grid.levels)
        bins = np.bincount(whole[inside], full, grid.levels)
        spread = full * (mass / np.maximum(bins, 1.0))[whole[inside]]
        p, q = kept / kept.sum(), spread / max(spread.sum(), _TINY)
        return float(np.sum(p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], _TINY))))

    def grids() -> Iterator[Grid]:
        for factor in np.linspace(1.0, levels / 2 / _BINS, 100):
            end = factor * reach
            yield spanning(max(histogram.least, -end), min(histogram.greatest, end), levels)

    return min(grids(), key=divergence)


def _bytes_of(histogram: Histogram, grid: Grid) -> NDArray[np.int64]:
    """Return the byte that each bin falls on."""
    whole = np.clip(np.rint(histogram.centres / grid.scale) + grid.zero, 0, grid.levels - 1)
    found: NDArray[np.int64] = whole.astype(np.int64)
    return found


METHODS: Mapping[str, Callable[[Histogram, int], Grid]] = {
    "minmax": _minmax,
    "percentile@99.99": _percentile(0.9999),
    "percentile@99.9": _percentile(0.999),
    "mse": _mse,
    "kl": _kl,
}
"""The methods by name."""


def grid_of(histogram: Histogram, levels: int, method: str) -> Grid:
    """Return the grid of so many levels that a method chooses.

    Raises:
        InputError: There is no such method; the message lists those that exist.
    """
    if method not in METHODS:
        raise InputError(f"unknown calibration method {method!r}; there are: {', '.join(METHODS)}")
    return METHODS[method](histogram, levels)
