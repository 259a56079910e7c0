"""Lines in place of a root: chords below it, tangents above it, all in exact fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from solvers.arrays import Integers
from solvers.spread import Spread

__all__ = ["Line", "chord", "tangent", "times"]

_ROOT_BITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A linear stand-in for the spread of a row: ``slope * V + intercept``.

    Attributes:
        slope: What a unit of variance costs.
        intercept: What is paid without any.

    >>> Line(slope=Fraction(1, 2), intercept=Fraction(3)).slope
    Fraction(1, 2)
    """

    slope: Fraction
    intercept: Fraction


def chord(spread: Spread, low: int, high: int) -> Line:
    """Return a line below the spread on an interval of variances: nearly its chord, exact in a point."""
    if low == high:
        return Line(slope=Fraction(0), intercept=Fraction(spread.value(low)))
    first, last = _root_below(spread.z, low), _root_below(spread.z, high)
    slope = (last - first) / (high - low)
    if low > 0:
        slope = min(slope, first / low)
    return Line(slope=slope, intercept=first - slope * low)


def tangent(spread: Spread, variance: int) -> Line:
    """Return the line ``z V / (2 s) + z s / 2``, which is above the spread everywhere, for s near a variance's root."""
    s = max(_root_below(Fraction(1), variance), Fraction(1, 2))
    return Line(slope=spread.z / (2 * s), intercept=spread.z * s / 2)


def _root_below(z: Fraction, variance: int) -> Fraction:
    """Return ``z`` times the root of a variance, rounded down to a multiple of a power of two."""
    square = z * z * variance * 4**_ROOT_BITS
    return Fraction(math.isqrt(square.numerator // square.denominator), 2**_ROOT_BITS)


def times(numbers: Integers, factor: Fraction, most: int, *, up: bool) -> Integers:
    """Multiply whole numbers by a fraction, exactly, and round up or down; what is above the most becomes that."""
    top, bottom = factor.numerator, factor.denominator
    products = [-(-number * top // bottom) if up else number * top // bottom for number in numbers.tolist()]
    return np.array([min(product, most) for product in products], np.int64)
