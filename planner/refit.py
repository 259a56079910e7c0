"""Fitting a layer to what the exact network gives, from the inputs that the approximated network gives it.

Ridge least squares toward the old weights, no labels needed, by a ridge that is chosen on images held out: the
layer-wise asymmetric reconstruction of Zhang, Zou, He and Sun, *Accelerating very deep convolutional networks for
classification and detection* (PAMI 2016). Their section 3.2 fits the responses behind the activation; here that is done
by majorisation: where the activation cuts off what the exact network gives, whatever the present weights give beyond
the bound is right as it is, and the next weights are fitted to that (Hunter and Lange, *A tutorial on MM algorithms*,
The American Statistician 2004). But for the ridge, no step makes the fit worse.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.linear import ROWS, Moments, input_rows, output_rows, sample, values_at

if TYPE_CHECKING:
    from planner.epilogue import Epilogue
    from planner.layering import Shape
    from planner.linear import Linear

__all__ = ["Aim", "aim_at", "ridge", "solve"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_RIDGE = 1e-3
_FEW_SAMPLES = 0.3
_FREE = 1e-9
_BLOCK = 4096
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Multiples of the usual ridge tried on images held out: what errs little is best left near its old weights."""
_HELD_OUT = 0.25
_ROUNDS = 2
"""Steps of the majorisation. Most is gained by the first; each costs two products of the rows with the weights."""


def ridge(depth: int, moments: Moments) -> float:
    """Return the strength of the ridge, as a share of the inputs' mean square.

    A convolution has many rows an image. Where there is one, as in a dense layer, the strength grows with the
    number of weights an output has for each image.

    >>> from planner.linear import Moments
    >>> ridge(100, Moments(gram=np.eye(101)[None], cross=None, rows=300, images=300))
    0.101
    """
    return _RIDGE + (_FEW_SAMPLES * depth / moments.rows if moments.rows <= moments.images else 0.0)


def solve(linear: Linear, moments: Moments, *, strength: float = 1.0) -> Linear:
    """Refit a layer: minimise the mean square of W·u - y plus the ridge times the square of W's change.

    With A = (W, b), G the mean of u·uᵀ and C the mean of y·uᵀ, the minimum is A + (C - A·G)·(G + λ)⁻¹.

    Args:
        linear: The layer as it was.
        moments: Moments of its present inputs, with the exact network's outputs as targets.
        strength: Multiple of the usual `ridge`.

    Returns:
        The refitted layer. A layer without a bias stays without.
    """
    if moments.cross is None:
        raise ValueError("a refit needs moments with targets")
    return _Solver(linear, moments, strength).solve(moments.cross)


class _Solver:
    """Solve for weights that are drawn to the same ones by the same ridge, whatever is wanted of them.

    Only what is wanted changes from one step of a fit to the next: the matrix is factorised once for all of them.
    """

    def __init__(self, prior: Linear, moments: Moments, strength: float) -> None:
        depth = prior.depth
        self._prior = prior
        self._used = slice(0, depth if prior.bias is None else depth + 1)
        self._old = _augmented(prior)[:, :, self._used]
        gram = moments.gram[:, self._used, self._used]
        self._given = self._old @ gram
        square = np.diagonal(gram, axis1=1, axis2=2)[:, :depth].mean(axis=1)
        penalised = gram.copy()
        diagonal = np.einsum("gii->gi", penalised)
        diagonal[:, :depth] += (strength * ridge(depth, moments) * square)[:, None]
        diagonal += _FREE
        self._penalised = penalised
        self._factor = _factorised(penalised)

    def solve(self, cross: Float64) -> Linear:
        """Return the weights for cross moments ``[group][output][product + 1]``."""
        from scipy.linalg import cho_solve

        prior, depth = self._prior, self._prior.depth
        wanted = (cross[:, :, self._used] - self._given).swapaxes(1, 2)
        if self._factor is not None:
            change = cho_solve(self._factor, wanted[0], check_finite=False)[None]
        else:
            change = np.linalg.solve(self._penalised, wanted)
        new = (self._old + change.swapaxes(1, 2)).reshape(prior.outputs, -1)
        return replace(
            prior,
            weight=np.ascontiguousarray(new[:, :depth], dtype=np.float32).reshape(prior.weight.shape),
            bias=None if prior.bias is None else new[:, depth].astype(np.float32),
        )


def _factorised(matrices: Float64) -> tuple[Float64, bool] | None:
    """Return the Cholesky factor of a single matrix; None for many small ones, and where rounding made one indefinite.

    Those are solved all together, by elimination.
    """
    from scipy.linalg import LinAlgError, cho_factor

    if len(matrices) > 1:
        return None
    try:
        factor, lower = cho_factor(matrices[0], lower=True, check_finite=False)
    except LinAlgError:
        return None
    return factor, bool(lower)


def _augmented(linear: Linear) -> Float64:
    """Return weights and bias as ``[group][output][product + 1]``."""
    weights = linear.matrix.reshape(linear.groups, -1, linear.depth).astype(np.float64)
    bias = np.zeros(linear.outputs) if linear.bias is None else linear.bias.astype(np.float64)
    return np.concatenate([weights, bias.reshape(linear.groups, -1, 1)], axis=2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aim:
    """Hold what a layer reads now and what it ought to give, at a sample of its outputs.

    Attributes:
        rows: float32 ``[group][row][product + 1]``, the inputs of each output, the last of them 1.
        gram: float64 ``[group][product + 1][product + 1]``, the mean over rows of u·uᵀ.
        wanted: float32 ``[group][row][output]``: what the layer's anchor ought to give.
        offset: float32 of the same shape, what is added to it before the activation; None for nothing.
        low: What the sum need not be told from below.
        high: What the sum need not be told from above.
        images: Number of images that the rows come from.
        last: The part of ``gram`` that comes from the last quarter of the rows, on which a ridge is judged.
    """

    rows: Float32 = field(repr=False)
    gram: Float64 = field(repr=False)
    wanted: Float32 = field(repr=False)
    offset: Float32 | None = field(repr=False)
    low: float
    high: float
    images: int
    last: Float64 = field(repr=False, default_factory=lambda: np.zeros((0, 0, 0)))

    def __post_init__(self) -> None:
        """Check that there is a row of inputs for each row that is wanted."""
        if self.rows.shape[:2] != self.wanted.shape[:2]:
            raise ValueError(f"rows of inputs {self.rows.shape} for outputs {self.wanted.shape}")

    @property
    def moments(self) -> Moments:
        """Second moments of the inputs."""
        return Moments(gram=self.gram, cross=None, rows=self.rows.shape[1], images=self.images)

    def reading(self, rows: Float32) -> Aim:
        """Return the same aim for a layer that reads something else, ``[group][row][product + 1]``."""
        gram, last = _grams(rows)
        return replace(self, rows=rows, gram=gram, last=last)

    def step(self, prior: Linear, now: Linear | None = None, *, strength: float = 1.0) -> Linear:
        """Return the weights that do best, being kept near others.

        Args:
            prior: What the ridge draws the weights to.
            now: Weights in use now. Where they give something beyond a bound that the exact network is beyond too,
                that is left as it is; without them every value counts.
            strength: Multiple of the usual `ridge`.
        """
        cross = _cross(self.wanted if now is None else self._excused(now), self.rows)
        return solve(prior, replace(self.moments, cross=cross), strength=strength)

    def fit(self, prior: Linear) -> Linear:
        """Return the weights that do best after all steps, under the ridge that does best on images held out."""
        cross = _cross(self.wanted, self.rows)
        solver = _Solver(prior, self.moments, self._strength(prior, cross))
        fitted = solver.solve(cross)
        for _ in range(_ROUNDS if self.low > -np.inf or self.high < np.inf else 0):
            fitted = solver.solve(_cross(self._excused(fitted), self.rows))
        return fitted

    def _strength(self, prior: Linear, cross: Float64) -> float:
        """Choose the strength of the ridge: weights are fitted on the first images and judged on the last ones."""
        count = self.rows.shape[1]
        kept = _kept(count)
        if kept == count:
            return _STRENGTHS[0]
        share = kept / count
        last = _cross(self.wanted[:, kept:], self.rows[:, kept:]) * (1 - share)
        images = self.images - int(_HELD_OUT * self.images)
        known = Moments(gram=(self.gram - self.last) / share, cross=(cross - last) / share, rows=kept, images=images)

        def missed(strength: float) -> float:
            full = _augmented(solve(prior, known, strength=strength))
            return float(np.sum((full @ self.last - 2 * last) * full))

        best, least = _STRENGTHS[0], missed(_STRENGTHS[0])
        for strength in _STRENGTHS[1:]:  # what is missed falls and then rises
            found = missed(strength)
            if found >= least:
                break
            best, least = strength, found
        return best

    def error(self, linear: Linear) -> float:
        """Return the mean square of what some weights miss, beyond what the activation cuts off."""
        return float(np.mean(np.square(self._given(linear) - self._excused(linear), dtype=np.float64)))

    def _given(self, linear: Linear) -> Float32:
        given: Float32 = self.rows @ _augmented(linear).astype(np.float32).swapaxes(1, 2)
        return given

    def _excused(self, linear: Linear) -> Float32:
        """Return what is wanted, or what is given where both are beyond the same bound."""
        if not (self.low > -np.inf or self.high < np.inf):
            return self.wanted
        given = self._given(linear)
        wanted = self.wanted
        offset = np.float32(0) if self.offset is None else self.offset
        if self.low > -np.inf:
            low = np.float32(self.low) - offset
            wanted = np.where(self.wanted <= low, np.minimum(given, low), wanted)
        if self.high < np.inf:
            high = np.float32(self.high) - offset
            wanted = np.where(self.wanted >= high, np.maximum(given, high), wanted)
        return wanted


def _cross(wanted: Float32, rows: Float32) -> Float64:
    """Return the mean over rows of y·uᵀ, ``[group][output][product + 1]``."""
    cross = np.zeros((*wanted.shape[::2], rows.shape[2]))
    for start in range(0, rows.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        cross += wanted[:, block].swapaxes(1, 2) @ rows[:, block]
    cross /= rows.shape[1]
    return cross


def _kept(count: int) -> int:
    """Return how many of some rows, the first ones, a ridge is not judged on."""
    return count - int(_HELD_OUT * count)


def _grams(rows: Float32) -> tuple[Float64, Float64]:
    """Return the mean over rows of u·uᵀ, and the part of it that comes from the rows that a ridge is judged on."""
    count = rows.shape[1]
    kept = _kept(count)
    last = _summed(rows[:, kept:]) / count
    return _summed(rows[:, :kept]) / count + last, last


def _summed(rows: Float32) -> Float64:
    gram = np.zeros((rows.shape[0], rows.shape[2], rows.shape[2]))
    for start in range(0, rows.shape[1], _BLOCK):
        block = rows[:, start : start + _BLOCK]
        gram += block.swapaxes(1, 2) @ block
    return gram


def aim_at(
    linear: Linear,
    inputs: Float32,
    *,
    output_shape: Shape,
    epilogue: Epilogue,
    targets: Float32 | None,
    addends: tuple[Float32, Float32] | None = None,
    limit: int = ROWS,
) -> Aim:
    """State what a layer ought to give on what it reads now.

    Args:
        linear: The layer.
        inputs: What it reads now, ``[image][...]``.
        output_shape: Shape of its anchor's output at batch 1.
        epilogue: What follows the anchor.
        targets: What the exact network's anchor gives at the sampled positions, ``[group][row][output]``; None where
            what the layer itself gives on its present inputs is wanted.
        addends: What the exact network adds to the anchor's output, and what is added now, ``[image][...]``: the sum
            is what has to be right.
        limit: How many positions to take at most.

    Returns:
        The aim, at the positions that `planner.linear.sample` chooses.
    """
    positions = sample(linear, output_shape, len(inputs), rows=limit)
    rows = np.empty((linear.groups, len(positions), linear.depth + 1), np.float32)
    start = 0
    for block in input_rows(linear, inputs, positions, output_shape):
        rows[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    wanted = output_rows(linear, inputs, positions, output_shape) if targets is None else targets
    offset = None
    if addends is not None:
        exact, present = addends
        offset = values_at(present, linear, positions)
        if targets is not None and exact is not present:
            wanted = wanted + (values_at(exact, linear, positions) - offset)
    gram, last = _grams(rows)
    return Aim(
        rows=rows,
        gram=gram,
        last=last,
        wanted=wanted,
        offset=offset,
        low=epilogue.low,
        high=epilogue.high,
        images=len(inputs),
    )
