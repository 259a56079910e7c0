"""Filters as few powers of two times a small basis: how they are found.

Zhao et al., *SmartExchange: trading higher-cost memory storage/access for lower-cost computation* (ISCA 2020), section
III: a filter's rows, ``[input * row][column]``, are coefficients, zero or powers of two, times a basis of its own,
``[column][column]``; whole rows of coefficients are zero. Here a fixed number of each four neighbouring inputs keeps
its coefficients, so that a kernel finds them without a search, and all is fitted to the layer's outputs: coefficients
by coordinate descent, the basis by least squares, in turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.storage.power_weights import EXPONENTS, INPUTS, Powers

if TYPE_CHECKING:
    from planner.storage.rounding import Problem

__all__ = ["fitted"]

Float64 = NDArray[np.float64]

_ROUNDS = 4
_SWEEPS = 2
_STEPS = 30
_LARGEST = 127
_SIZES = 2.0 ** np.arange(EXPONENTS)
_LEVELS = np.concatenate([-_SIZES[::-1], [0.0], _SIZES])
_BETWEEN = (_LEVELS[1:] + _LEVELS[:-1]) / 2


def fitted(problem: Problem, shape: tuple[int, int, int, int], kept: int) -> Powers:
    """Find coefficients and bases.

    Args:
        problem: The filters, each a row.
        shape: ``[output][input][row][column]`` of the filters; inputs come in fours.
        kept: Of each four inputs, how many keep their coefficients in a row.
    """
    outputs, inputs, height, width = shape
    hessian = problem.hessian
    importance = (np.diagonal(hessian) * problem.weights**2).reshape(shape).sum(axis=3)
    fours = importance.reshape(outputs, inputs // INPUTS, INPUTS, height)
    places = np.sort(np.argsort(-fours, axis=2, kind="stable")[:, :, :kept], axis=2)
    mask = np.zeros(fours.shape, bool)
    np.put_along_axis(mask, places, values=True, axis=2)
    mask = mask.reshape(outputs, inputs, height)
    everywhere = np.repeat(mask[..., None], width, axis=3).reshape(outputs, -1)
    coefficients = _least_squares(problem, everywhere).reshape(shape)
    unit = np.abs(coefficients).max(axis=(1, 2, 3)) / _SIZES[-1]
    basis = np.where(unit > 0, unit, 1.0)[:, None, None] * np.eye(width)
    coefficients = _nearest(coefficients / np.where(unit > 0, unit, 1.0)[:, None, None, None]) * mask[..., None]
    for _ in range(_ROUNDS):
        basis = _best_basis(problem, coefficients, basis)
        whole, scale = _in_bytes(basis)
        basis = whole * scale[:, None, None]
        coefficients = _better(problem, coefficients, basis, mask)
    chosen = np.take_along_axis(
        coefficients.reshape(outputs, inputs // INPUTS, INPUTS, height, width), places[..., None], axis=2
    )
    return Powers(
        coefficients=chosen.reshape(outputs, -1, height, width).astype(np.int8),
        places=places.reshape(outputs, -1, height, 1).astype(np.uint8),
        kept=kept,
        basis=whole.astype(np.int8),
        scale=scale.astype(np.float32),
    )


def _nearest(values: Float64) -> Float64:
    return _LEVELS[np.searchsorted(_BETWEEN, values)]


def _least_squares(problem: Problem, mask: NDArray[np.bool_]) -> Float64:
    """Refit the weights that are kept to the outputs, by conjugate gradients."""
    values = problem.weights * mask
    residual = ((problem.weights - values) @ problem.hessian) * mask
    direction, square = residual, np.sum(residual**2, axis=1)
    for _ in range(_STEPS):
        curved = (direction @ problem.hessian) * mask
        along = np.einsum("oi,oi->o", direction, curved)
        step = np.where(along > 0, square / np.where(along > 0, along, 1.0), 0.0)[:, None]
        values = values + step * direction
        residual = residual - step * curved
        fresh = np.sum(residual**2, axis=1)
        direction = residual + (fresh / np.where(square > 0, square, 1.0))[:, None] * direction
        square = fresh
    return values


def _best_basis(problem: Problem, coefficients: Float64, basis: Float64) -> Float64:
    """Solve for the basis of each filter, its coefficients being given."""
    outputs, _, _, width = coefficients.shape
    result = basis.copy()
    for output in range(outputs):
        spread = np.einsum("pj,xz->pxjz", coefficients[output].reshape(-1, width), np.eye(width))
        design = spread.reshape(-1, width * width)
        seen = problem.hessian @ design
        gram = design.T @ seen
        if np.trace(gram) > 0:
            gram += 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
            result[output] = np.linalg.solve(gram, seen.T @ problem.weights[output]).reshape(width, width)
    return result


def _in_bytes(basis: Float64) -> tuple[Float64, Float64]:
    """Round bases to whole numbers of 8 bits times a scale an output."""
    largest = np.abs(basis).max(axis=(1, 2))
    scale = np.where(largest > 0, largest, 1.0) / _LARGEST
    scale = scale.astype(np.float32).astype(np.float64)
    return np.clip(np.rint(basis / scale[:, None, None]), -_LARGEST, _LARGEST), scale


def _better(problem: Problem, coefficients: Float64, basis: Float64, mask: NDArray[np.bool_]) -> Float64:
    """Move each coefficient to where it is best given all others, in a few sweeps."""
    coefficients = coefficients.copy()
    outputs, inputs, height, width = coefficients.shape
    hessian = problem.hessian
    joined = np.einsum("oiyj,ojx->oiyx", coefficients, basis).reshape(outputs, -1)
    pull = (problem.weights - joined) @ hessian
    for _ in range(_SWEEPS):
        for place in range(inputs * height):
            columns = slice(place * width, (place + 1) * width)
            inside = mask[:, place // height, place % height]
            near = hessian[columns, columns]
            for number in range(width):
                vector = basis[:, number]
                curved = np.einsum("ox,xz,oz->o", vector, near, vector)
                now = coefficients[:, place // height, place % height, number]
                wanted = now + np.einsum("ox,ox->o", vector, pull[:, columns]) / np.where(curved > 0, curved, 1.0)
                moved = np.where(inside & (curved > 0), _nearest(wanted) - now, 0.0)
                rows = np.flatnonzero(moved)
                if len(rows):
                    pull[rows] -= (moved[rows, None] * vector[rows]) @ hessian[columns]
                    coefficients[rows, place // height, place % height, number] += moved[rows]
    return coefficients
