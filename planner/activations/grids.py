"""Grids that real numbers are rounded to: what the bytes of a quantised tensor stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

__all__ = ["LEVELS", "Grid", "rounded_weights", "spanning", "whole_weights"]

LEVELS = {"int8": 256, "uint7": 128}
"""How many values a tensor of each quantised format can have."""

_MOST = 127
_CUTS = np.linspace(1.0, 0.8, 9)
"""Shares of an output's greatest weight that 127 may stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Say that byte q stands for ``(q - zero) * scale``, q from 0 to ``levels - 1``.

    Attributes:
        scale: Distance of two neighbours; rounded to float32.
        zero: The byte that stands for 0.
        levels: How many bytes are used: 256, or 128.

    >>> Grid(scale=0.5, zero=10, levels=128).greatest
    58.5
    """

    scale: float
    zero: int
    levels: int

    def __post_init__(self) -> None:
        """Round the scale to float32, and refuse what is no grid."""
        object.__setattr__(self, "scale", float(np.float32(self.scale)))
        if not (np.isfinite(self.scale) and self.scale > 0 and 0 <= self.zero < self.levels <= 256):
            raise InputError(f"a grid of scale {self.scale}, zero {self.zero} and {self.levels} levels")

    @property
    def least(self) -> float:
        """The least number on the grid."""
        return -self.zero * self.scale

    @property
    def greatest(self) -> float:
        """The greatest number on the grid."""
        return (self.levels - 1 - self.zero) * self.scale

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numbers of the grid next to some values, as quantising and dequantising them gives."""
        whole = np.clip(np.rint(values / np.float32(self.scale)) + self.zero, 0, self.levels - 1)
        rounded: NDArray[np.float32] = ((whole - self.zero) * np.float32(self.scale)).astype(np.float32)
        return rounded


def spanning(least: float, greatest: float, levels: int) -> Grid:
    """Return the finest grid that reaches from one number to another, 0 being on it exactly.

    >>> spanning(0.0, 51.0, 256)
    Grid(scale=0.20000000298023224, zero=0, levels=256)
    """
    least, greatest = min(least, 0.0), max(greatest, 0.0)
    scale = max((greatest - least) / (levels - 1), float(np.finfo(np.float32).tiny))
    zero = int(np.clip(np.rint(-least / scale), 0, levels - 1))
    return Grid(scale=scale, zero=zero, levels=levels)


def whole_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to 8 bits with a scale for each output, that of the least squared error.

    The greatest weight need not be 127: cutting it makes all others finer.

    Args:
        weight: float32 ``[output]...``.

    Returns:
        Whole numbers from -127 to 127 of the same shape, and the scales ``[output]``.

    >>> whole_weights(np.array([[1.27, -0.5], [0.0, 0.0]], np.float32))[0].tolist()
    [[127, -50], [0, 0]]
    """
    rows = weight.reshape(len(weight), -1)
    most = np.abs(rows).max(axis=1, initial=0.0)
    widest = (np.where(most > 0, most, 1.0) / _MOST).astype(np.float32)
    best, least = widest, np.full(len(rows), np.inf)
    for cut in _CUTS:
        scale = (widest * np.float32(cut)).astype(np.float32)
        error = np.square(_rounded_rows(rows, scale) * scale[:, None] - rows).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return _rounded_rows(rows, best).astype(np.int8).reshape(weight.shape), best


def _rounded_rows(rows: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    whole: NDArray[np.float32] = np.clip(np.rint(rows / scale[:, None]), -_MOST, _MOST)
    return whole


def rounded_weights(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what `whole_weights` stand for."""
    whole, scale = whole_weights(weight)
    rounded: NDArray[np.float32] = whole * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return rounded.astype(np.float32)
