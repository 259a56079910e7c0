"""Weights stored as int4: a small whole multiplier for a group of inputs, a scale an output, and float32 arithmetic.

The bytes of the weights fall to between a seventh and an eighth. Numbers of 4 bits times their group's multiplier are
numbers of 8 bits, so that kernels of bytes can multiply them as they are: progressive group quantisation, Lin et al.,
*QServe: W4A8KV4 quantization and system co-design for efficient LLM serving* (2024), section 4.1. Multipliers
and scales are those of least squared error among many that clip the greatest weights: Banner, Nahshan and Soudry, *Post
training 4-bit quantization of convolutional networks* (NeurIPS 2019), section 2, searched for rather than derived from
a distribution. How numbers are rounded so that outputs change least is told in `planner.storage.rounding`.
"""

from __future__ import annotations

from functools import partial

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.storage.storing import as_codes, in_steps, reason_against

__all__ = ["BLOCK", "CHOICES", "INTEGER", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "storage"
CHOICES = ("int4w", "int4w@64", "int4w@128")
ON_REQUEST = True
INTEGER = True
"""Whether kernels of bytes read it."""
BLOCK = 32
"""Inputs that share a multiplier, where the choice does not say."""
_BITS = 4


def offer(view: LayerView) -> Offer:
    """Offer int4 weights for convolutions of one group and matrix products; larger groups where inputs fill more."""
    reason = reason_against(view.linear, view.op, "int4")
    if reason or view.linear is None:
        return Offer(reason=reason)
    inputs = view.linear.weight.shape[1]
    return Offer(choices=tuple(name for name in CHOICES if name == CHOICES[0] or inputs >= _block(name)))


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as int4, and correct the bias."""
    return as_codes(context, partial(in_steps, bits=_BITS, block=_block(choice)))


def _block(choice: str) -> int:
    return int(choice.partition("@")[2] or BLOCK)
