"""Rounding weights to few values so that a layer's outputs change least, by its inputs' second moments.

The error of a layer is tr(E·H·Eᵀ), with E the change of its weights and H the covariance of its inputs; what E does to
the mean goes into the bias (:func:`shift`). Columns are rounded one after the other, and what each leaves is made up
for by those that are still to come: Frantar, Ashkboos, Hoefler and Alistarh, *GPTQ: accurate post-training quantization
for generative pre-trained transformers* (ICLR 2023), section 3. Afterwards every number may move once more to where it
is best given all others: coordinate descent, Behdin et al., *QuantEase: optimization-based quantization for language
models* (2023), section 3, in turn with the least-squares scale of each output.

Everything is counted in units of a scale an output, in which the values that weights can take are whole numbers
of 8 bits: the numbers of fewer bits times a small whole multiplier for each group of inputs (Lin et al., *QServe:
W4A8KV4 quantization and system co-design for efficient LLM serving*, 2024, section 4.1), or the entries of a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.refit import ridge

if TYPE_CHECKING:
    from planner.linear import Moments

__all__ = ["Codebook", "Problem", "Rounded", "Steps", "fitted_codebook", "fitted_steps", "rounded", "shift"]

Float64 = NDArray[np.float64]
Whole = NDArray[np.int64]

_BLOCK = 128
"""Columns that are rounded before what they leave is handed to all behind them."""
_DAMPING = 0.01
_SWEEPS = 3
_ROUNDS = 4
_SHARES = np.arange(14, 34) / 32
"""Steps that are tried, as shares of the one that clips nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """State what is to be rounded.

    Attributes:
        weights: ``[output][input]``.
        hessian: ``[input][input]``, positive definite.
    """

    weights: Float64 = field(repr=False)
    hessian: Float64 = field(repr=False)

    @classmethod
    def of(cls, matrix: NDArray[np.float32], moments: Moments, group: int = 0) -> Problem:
        """Put the problem of one group of a layer's channels.

        Args:
            matrix: Its weights, ``[output][input]``.
            moments: Second moments of the layer's inputs.
            group: Number of the group.
        """
        hessian = moments.covariance[group]
        depth = len(hessian)
        square = float(np.mean(np.diagonal(moments.gram[group])[:depth]))
        damped = hessian + (_DAMPING + ridge(depth, moments)) * (square or 1.0) * np.eye(depth)
        return cls(weights=matrix.astype(np.float64), hessian=damped)

    def error(self, values: Float64) -> Float64:
        """Return the mean square of what each output is off by under other weights, ``[output]``."""
        off = self.weights - values
        squares: Float64 = np.einsum("oi,oi->o", off @ self.hessian, off)
        return squares


class Values(Protocol):
    """What numbers there are to round to, in units of the outputs' scales."""

    def nearest(self, wanted: Float64, column: int) -> Float64:
        """Round what is wanted in a column, ``[output]``, to the nearest numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Whole numbers of few bits times a multiplier for each group of columns.

    Attributes:
        multipliers: ``[output][group]``, at least 1.
        groups: Group of each column, ``[input]``.
        bits: Of the numbers.
    """

    multipliers: Whole = field(repr=False)
    groups: Whole = field(repr=False)
    bits: int

    def nearest(self, wanted: Float64, column: int) -> Float64:
        """Round to the nearest multiples."""
        step = self.multipliers[:, self.groups[column]]
        half = 1 << (self.bits - 1)
        found: Float64 = np.clip(np.rint(wanted / step), -half, half - 1) * step
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codebook:
    """A few whole numbers of 8 bits that all weights of a layer share.

    Attributes:
        levels: In ascending order.
    """

    levels: Whole = field(repr=False)

    def nearest(self, wanted: Float64, column: int) -> Float64:
        """Take the nearest entries."""
        found: Float64 = self.levels[self.codes(wanted)].astype(np.float64)
        return found

    def codes(self, wanted: Float64) -> Whole:
        """Give the number of the nearest entry to each value."""
        return np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, wanted)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """Weights as whole numbers times a scale an output.

    Attributes:
        whole: ``[output][input]``.
        scale: ``[output]``.
    """

    whole: Whole = field(repr=False)
    scale: Float64 = field(repr=False)

    @property
    def values(self) -> Float64:
        """The weights that they stand for."""
        return self.whole * self.scale[:, None]


def fitted_steps(problem: Problem, groups: Whole, *, bits: int, largest: int) -> tuple[Steps, Float64]:
    """Choose multipliers of groups, and scales of outputs, of least squared error weighted by the inputs' squares.

    Args:
        problem: The weights.
        groups: Group of each column.
        bits: Of the numbers.
        largest: Greatest multiplier.

    Returns:
        The steps, and a scale for each output.
    """
    count = int(groups.max()) + 1
    half = 1 << (bits - 1)
    importance = np.diagonal(problem.hessian)
    best = np.empty((len(problem.weights), count))
    for group in range(count):
        inside = groups == group
        best[:, group] = _best_step(problem.weights[:, inside], importance[inside], half)
    greatest = best.max(axis=1)
    scale = np.where(greatest > 0, greatest, 1.0) / (largest if count > 1 else 1)
    multipliers = np.clip(np.rint(best / scale[:, None]), 1, largest).astype(np.int64)
    return Steps(multipliers=multipliers, groups=groups, bits=bits), scale


def _best_step(weights: Float64, importance: Float64, half: int) -> Float64:
    """Search the step of each output that leaves the least weighted square, ``[output]``."""
    widest = np.abs(weights).max(axis=1) / (half - 0.5)
    best, least = widest, np.full(len(weights), np.inf)
    for share in _SHARES:
        step = np.where(widest > 0, widest * share, 1.0)[:, None]
        whole = np.clip(np.rint(weights / step), -half, half - 1)
        error = ((whole * step - weights) ** 2) @ importance
        better = error < least
        best, least = np.where(better, step[:, 0], best), np.where(better, error, least)
    return np.where(widest > 0, best, 0.0)


def fitted_codebook(problem: Problem, size: int, *, with_zero: bool = False) -> tuple[Codebook, Float64]:
    """Find levels by k-means over all weights, weighted by what each one's square does to the outputs.

    Args:
        problem: The weights.
        size: Number of levels.
        with_zero: Whether 0 has to be among them; it is wherever an output has no weights but 0.

    Returns:
        The codebook, and a scale for each output.
    """
    importance = np.diagonal(problem.hessian)
    spread = np.sqrt((problem.weights**2) @ importance / importance.sum())
    spread = np.where(spread > 0, spread, 1.0)
    normal = problem.weights / spread[:, None]
    order = np.argsort(normal, axis=None)
    points = normal.reshape(-1)[order]
    mass = (spread[:, None] ** 2 * importance).reshape(-1)[order]
    levels = np.quantile(points, (np.arange(size) + 0.5) / size)
    total = np.concatenate([[0.0], np.cumsum(mass)])
    first = np.concatenate([[0.0], np.cumsum(mass * points)])
    for _ in range(_LLOYD):
        ends = np.searchsorted(points, (levels[1:] + levels[:-1]) / 2)
        ends = np.concatenate([[0], ends, [len(points)]])
        inside = total[ends[1:]] - total[ends[:-1]]
        moved = (first[ends[1:]] - first[ends[:-1]]) / np.where(inside > 0, inside, 1.0)
        levels = np.sort(np.where(inside > 0, moved, levels))
    if with_zero or not problem.weights.any(axis=1).all():
        levels[np.argmin(np.abs(levels))] = 0.0
    unit = (np.abs(levels).max() or 1.0) / _LARGEST
    return Codebook(levels=np.rint(levels / unit).astype(np.int64)), spread * unit


_LLOYD = 50
_LARGEST = 127


def rounded(problem: Problem, values: Values, scale: Float64) -> Rounded:
    """Round a layer's weights.

    Args:
        problem: The weights.
        values: What they may become, in units of the scales.
        scale: One for each output, to start from.

    Returns:
        The numbers, and scales that are best for them.
    """
    hessian = problem.hessian
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    whole = _compensated(problem.weights / scale[:, None], hessian, values, order)
    for _ in range(_ROUNDS):
        scale = _best_scale(problem, whole, scale)
        whole = _refined(problem.weights / scale[:, None], hessian, values, whole, order)
    return Rounded(whole=whole.astype(np.int64), scale=_best_scale(problem, whole, scale))


def _best_scale(problem: Problem, whole: Float64, scale: Float64) -> Float64:
    """Solve for the scale of each output, the numbers being given."""
    seen = whole @ problem.hessian
    square = np.einsum("oi,oi->o", seen, whole)
    best = np.einsum("oi,oi->o", seen, problem.weights) / np.where(square > 0, square, 1.0)
    return np.where((square > 0) & (best > 0), best, scale)


def _compensated(wanted: Float64, hessian: Float64, values: Values, order: Whole) -> Float64:
    """Round columns in order, each handing what it leaves to those behind it."""
    left = wanted[:, order]
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    root = np.linalg.cholesky((inverse + inverse.T) / 2).T
    result = np.empty_like(wanted)
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        errors = np.empty((len(wanted), stop - start))
        for place in range(start, stop):
            found = values.nearest(left[:, place], int(order[place]))
            result[:, order[place]] = found
            error = (left[:, place] - found) / root[place, place]
            left[:, place + 1 : stop] -= error[:, None] * root[place, place + 1 : stop]
            errors[:, place - start] = error
        left[:, stop:] -= errors @ root[start:stop, stop:]
    return result


def _refined(wanted: Float64, hessian: Float64, values: Values, whole: Float64, order: Whole) -> Float64:
    """Move each number to where it is best given all others, in a few sweeps over the columns."""
    whole, hessian = whole[:, order], hessian[np.ix_(order, order)]
    pull = (wanted[:, order] - whole) @ hessian
    for _ in range(_SWEEPS):
        moved = 0
        for start in range(0, len(order), _BLOCK):
            stop = min(start + _BLOCK, len(order))
            before, felt = whole[:, start:stop].copy(), pull[:, start:stop].copy()
            near = hessian[start:stop, start:stop]
            for place in range(stop - start):
                now = whole[:, start + place]
                found = values.nearest(now + felt[:, place] / near[place, place], int(order[start + place]))
                rows = np.flatnonzero(found != now)
                if len(rows):
                    felt[rows] -= (found - now)[rows, None] * near[place]
                    whole[rows, start + place] = found[rows]
                    moved += len(rows)
            pull -= (whole[:, start:stop] - before) @ hessian[start:stop]
        if not moved:
            break
    result = np.empty_like(whole)
    result[:, order] = whole
    return result


def shift(matrix: NDArray[np.float32], values: Float64, moments: Moments, group: int = 0) -> Float64:
    """Return what has to be added to the bias so that outputs keep their means, ``[output]``."""
    off: Float64 = (matrix - values) @ moments.mean[group]
    return off
