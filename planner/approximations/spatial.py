"""Spatial low rank: a k x k convolution as a column of k x 1 filters followed by a row of 1 x k filters.

Jaderberg, Vedaldi and Zisserman, *Speeding up convolutional neural networks with low rank expansions* (BMVC 2014),
scheme 2.  The factors are not those nearest to the weights but those nearest to the outputs: the error
tr(E·Cov(inputs)·Eᵀ) of E = W - W' is minimised by alternating least squares from the singular value decomposition,
after the data-aware fitting of the same paper's section 3.2, here in closed form and by conjugate gradients. Where an
activation follows, this goes by turns with a fit of the weights to what counts behind it (`planner.refit.Aim`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.linear import Linear, Moments

    Float64 = NDArray[np.float64]
    Factors = tuple[Float64, Float64, Float64]

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "factorise", "offer", "rank_of"]

KIND = "structure"
CHOICES = ("spatial@0.75", "spatial@0.5", "spatial@0.34", "spatial@0.25")
ON_REQUEST = ("spatial@0.75",)

_BLOCK = 16
_HALF = 8
_ROUNDS = 12
_MORE_ROUNDS = 1
_TURNS = 5
_STEPS = 8
_RIDGE = 1e-3


def rank_of(linear: Linear, share: float) -> int:
    """Return the largest rank that leaves at most a share of a convolution's products.

    A rank of two blocks of 16 or more is rounded down to whole blocks, one of half a block or more to halves: kernels
    write 16 channels at a time, so that a rank just above a block pays for most of the next.

    >>> from planner.linear import Linear
    >>> rank_of(Linear(weight=np.ones((64, 32, 5, 5), np.float32), bias=None), 0.5)
    48
    """
    outputs, inputs, height, width = linear.weight.shape
    each = inputs * height * linear.strides[1] + outputs * width
    rank = int(share * outputs * inputs * height * width / each)
    if rank >= 2 * _BLOCK:
        return rank // _BLOCK * _BLOCK
    return rank // _HALF * _HALF if rank >= _BLOCK else rank


def offer(view: LayerView) -> Offer:
    """Offer the shares whose ranks differ, for convolutions of more than one row and column."""
    linear = view.linear
    if linear is None or not linear.is_conv:
        return Offer(reason=f"{view.op} has no filters of rows and columns")
    if min(linear.weight.shape[2:]) < 2:
        return Offer(reason="its filters have a single row or column")
    if linear.groups != 1:
        return Offer(reason=f"it has {linear.groups} groups; each is thin already")
    if view.first:
        return Offer(reason="it is the first convolution, which costs much accuracy and little time")
    ranks: dict[int, str] = {}
    for name in sorted(CHOICES, key=ON_REQUEST.__contains__):  # of one rank, the name that need not be asked for
        ranks.setdefault(rank_of(linear, _share(name)), name)
    ranks.pop(0, None)
    if not ranks:
        return Offer(reason=f"filters of shape {linear.weight.shape} are too small")
    return Offer(choices=tuple(name for name in CHOICES if name in ranks.values()))


def factorise(linear: Linear, moments: Moments, rank: int, start: tuple[Float64, Float64] | None = None) -> Factors:
    """Factorise filters so that the outputs' mean squared error is least.

    Args:
        linear: The convolution, of one group.
        moments: Moments of its inputs.
        rank: Number of filters in the middle.
        start: Columns and rows to start from, which are then near; the singular value decomposition without.

    Returns:
        ``(column, row, bias)``: ``[rank][input][kernel row]``, ``[output][rank][kernel column]`` and ``[output]``.
    """
    outputs, width = linear.outputs, linear.weight.shape[3]
    weights = linear.weight.astype(np.float64)
    flat = weights.reshape(outputs, -1)
    covariance = moments.covariance[0]
    covariance = covariance + _RIDGE * np.mean(np.diag(covariance)) * np.eye(len(covariance))
    column, row = start or _decomposed(weights, rank)

    for _ in range(_MORE_ROUNDS if start else _ROUNDS):
        row = _best_row(column, flat, covariance, width)
        column = _better_column(column, row, flat, covariance)
    row = _best_row(column, flat, covariance, width)
    bias = np.zeros(outputs) if linear.bias is None else linear.bias.astype(np.float64)
    error = flat - _joined(column, row).reshape(outputs, -1)
    return column, row, bias + error @ moments.mean[0]


def _decomposed(weights: Float64, rank: int) -> tuple[Float64, Float64]:
    """Return the columns and rows nearest to the weights themselves."""
    outputs, inputs, height, width = weights.shape
    matrix = weights.transpose(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = min(rank, len(values))
    root = np.sqrt(values[:rank])
    column = (left[:, :rank] * root).T.reshape(rank, inputs, height)
    return column, (root[:, None] * right[:rank]).reshape(rank, outputs, width).transpose(1, 0, 2)


def _joined(column: Float64, row: Float64) -> Float64:
    """Return the filters that columns and rows amount to."""
    found: Float64 = np.einsum("orx,riy->oiyx", row, column, optimize=True)
    return found


def _fitted(context: Context, rank: int) -> Factors:
    """Factorise filters, by turns with a fit of the weights to what counts behind the activation."""
    found = factorise(context.linear, context.statistics(), rank)
    if not context.epilogue.bounded:
        return found
    aim, exact = context.aim(), context.biased
    for _ in range(_TURNS):
        column, row, bias = found
        now = replace(exact, weight=_joined(column, row).astype(np.float32), bias=bias.astype(np.float32))
        found = factorise(aim.step(exact, now), aim.moments, rank, (column, row))
    return found


def _best_row(column: Float64, flat: Float64, covariance: Float64, width: int) -> Float64:
    """Solve for the rows in closed form, the columns being given."""
    rank, inputs, height = column.shape
    basis = np.einsum("riy,xz->rxiyz", column, np.eye(width)).reshape(rank * width, inputs * height * width)
    seen = basis @ covariance
    gram = seen @ basis.T
    gram += 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram))
    solved: Float64 = np.linalg.solve(gram, seen @ flat.T)
    return solved.T.reshape(len(flat), rank, width)


def _better_column(column: Float64, row: Float64, flat: Float64, covariance: Float64) -> Float64:
    """Take some steps of conjugate gradients towards the best columns, the rows being given."""
    outputs, _, width = row.shape
    _, inputs, height = column.shape

    def adjoint(error: Float64) -> Float64:
        seen = (error @ covariance).reshape(outputs, inputs, height, width)
        found: Float64 = np.einsum("orx,oiyx->riy", row, seen, optimize=True)
        return found

    def forward(direction: Float64) -> Float64:
        found: Float64 = np.einsum("orx,riy->oiyx", row, direction, optimize=True)
        return found.reshape(outputs, -1)

    residual = adjoint(flat - forward(column))
    direction, square = residual, float(np.sum(residual**2))
    for _ in range(_STEPS):
        if square <= 0.0:
            break
        curved = adjoint(forward(direction))
        step = square / float(np.sum(direction * curved))
        column = column + step * direction
        residual = residual - step * curved
        fresh = float(np.sum(residual**2))
        direction, square = residual + fresh / square * direction, fresh
    return column


def apply(context: Context, choice: str) -> Replacement:
    """Replace the anchor by two convolutions, of the rank that leaves the named share of its work."""
    from onnx import helper

    anchor, linear, name = context.anchor, context.linear, context.view.name
    rank = rank_of(linear, _share(choice))
    column, row, bias = _fitted(context, rank)
    top, left, bottom, right = linear.pads
    height, width = linear.weight.shape[2:]
    middle = f"{name}.columns"
    first = helper.make_node(
        "Conv",
        [anchor.input[0], f"{name}.column.weight"],
        [middle],
        name=f"{name}.column",
        kernel_shape=[height, 1],
        strides=[linear.strides[0], 1],
        pads=[top, 0, bottom, 0],
        dilations=[linear.dilations[0], 1],
    )
    second = helper.make_node(
        "Conv",
        [middle, f"{name}.row.weight", f"{name}.row.bias"],
        [anchor.output[0]],
        name=f"{name}.row",
        kernel_shape=[1, width],
        strides=[1, linear.strides[1]],
        pads=[0, left, 0, right],
        dilations=[1, linear.dilations[1]],
    )
    return Replacement(
        nodes=(first, second),
        arrays={
            f"{name}.column.weight": np.ascontiguousarray(column[..., None], np.float32),
            f"{name}.row.weight": np.ascontiguousarray(row[:, :, None, :], np.float32),
            f"{name}.row.bias": bias.astype(np.float32),
        },
    )


def _share(choice: str) -> float:
    return float(choice.partition("@")[2])
