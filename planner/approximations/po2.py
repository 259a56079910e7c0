"""Filters stored as few powers of two times a small basis, decoded where they are read.

Zhao et al., *SmartExchange: trading higher-cost memory storage/access for lower-cost computation* (ISCA 2020). The
figure is the share of coefficients that are there; the others are zero, in whole rows of a filter. How they are found
is told in `planner.storage.powers`.
"""

from __future__ import annotations

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.linear import Linear, Moments
from planner.storage.power_weights import INPUTS, Powers
from planner.storage.powers import fitted
from planner.storage.rounding import Problem
from planner.storage.storing import as_codes, reason_against

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "storage"
CHOICES = ("po2@0.5", "po2@0.25")
ON_REQUEST = True


def offer(view: LayerView) -> Offer:
    """Offer powers of two for convolutions of one group whose filters have columns for a basis to join."""
    reason = reason_against(view.linear, view.op, "powers of two")
    if reason or view.linear is None:
        return Offer(reason=reason)
    shape = view.linear.weight.shape
    if not view.linear.is_conv or shape[3] == 1:
        return Offer(reason="its weights have a single column; a basis of one vector is a scale")
    if shape[1] % INPUTS:
        return Offer(reason=f"it reads {shape[1]} channels; expected a multiple of {INPUTS}")
    return Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Store the filters of whatever stands for the anchor with the share of coefficients that the choice says."""
    kept = round(INPUTS * float(choice.partition("@")[2]))

    def encode(linear: Linear, found: Moments, positions: int) -> Powers | None:
        shape = linear.weight.shape
        if not linear.is_conv or shape[3] == 1 or shape[1] % INPUTS:
            return None
        outputs, inputs, rows, columns = shape
        return fitted(Problem.of(linear.matrix, found), (outputs, inputs, rows, columns), kept)

    return as_codes(context, encode)
