"""Weights stored in 3 bits: whole numbers from -4 to 3, a multiplier for each group of 32 inputs, a scale an output.

The bytes of the weights fall to a tenth. Everything but the bits is as in `planner.approximations.int4w`.
"""

from __future__ import annotations

from functools import partial

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.approximations.int4w import BLOCK
from planner.storage.storing import as_codes, in_steps, reason_against

__all__ = ["CHOICES", "INTEGER", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "storage"
CHOICES = ("intw@3",)
ON_REQUEST = True
INTEGER = True
"""Whether kernels of bytes read it."""


def offer(view: LayerView) -> Offer:
    """Offer whole numbers of 3 bits for convolutions of one group and matrix products of enough inputs."""
    reason = reason_against(view.linear, view.op, "numbers of 3 bits")
    return Offer(reason=reason) if reason else Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor in as many bits as the choice says."""
    return as_codes(context, partial(in_steps, bits=int(choice.partition("@")[2]), block=BLOCK))
