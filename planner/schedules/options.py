"""What a user may ask of the code generation."""

from __future__ import annotations

from dataclasses import dataclass

WINOGRAD = "blinkplan.winograd"
"""Attribute of a Relax function: the layers (their numbers) that Winograd's algorithm is chosen for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Say what the kernels may do.

    Attributes:
        winograd: Whether 3x3 convolutions are computed by Winograd's algorithm where it is the faster. Its
            weights take 16/9 of the bytes, so it is off unless asked for. A function that carries the attribute
            ``blinkplan.winograd`` says it for each layer instead.

    >>> Options().winograd
    False
    """

    winograd: bool = False
