"""What is uncertain in a row: mean + z sigma, the variance additive over what is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from solvers.arrays import Integers, check_terms, integers

__all__ = ["Spread"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """What a row takes beyond its mean: ``z`` times the root of the summed variances, rounded up.

    Attributes:
        options: The options that have a variance, ``(terms,)``, ascending; all others are certain.
        variances: Their variances, ``(terms,)``, in squares of the row's unit, none negative. A coarser unit fits
            variances of any size into 64 bits: with a unit of 1024, variances count in 1024², and ``z`` is
            multiplied by 1024.
        z: How many standard deviations are kept in hand, as a fraction.

    >>> Spread(options=[0, 1], variances=[9, 16], z=Fraction(2)).value(9 + 16)
    10
    """

    options: Integers
    variances: Integers
    z: Fraction

    def __post_init__(self) -> None:
        """Hold read-only integers and a fraction."""
        object.__setattr__(self, "options", integers("spread.options", self.options))
        object.__setattr__(self, "variances", integers("spread.variances", self.variances, len(self.options)))
        check_terms("spread", self.options, self.variances)
        object.__setattr__(self, "z", Fraction(self.z))
        if self.z < 0:
            raise ValueError(f"z is {self.z}; expected 0 or more")

    def value(self, variance: int) -> int:
        """Return the least whole number that is no less than ``z`` times the root of a variance, exactly."""
        square = self.z * self.z * variance
        root = math.isqrt(square.numerator // square.denominator)
        return root if Fraction(root * root) == square else root + 1
