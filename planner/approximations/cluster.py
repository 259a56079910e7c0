"""Weight sharing: all weights of a layer are entries of one small table, times a scale for each output.

Han, Mao and Dally, *Deep compression: compressing deep neural networks with pruning, trained quantization and Huffman
coding* (ICLR 2016), section 3, without training: k-means weighted by what each weight does to the outputs, after Choi,
El-Khamy and Lee, *Towards the limit of network quantization* (ICLR 2017), section 3, and codes chosen so that
outputs change least (`planner.storage.rounding`). With 16, 8 or 4 entries a weight takes 4, 3 or 2 bits.
"""

from __future__ import annotations

from functools import partial

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.storage.storing import as_codes, clustered, reason_against

__all__ = ["CHOICES", "INTEGER", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "storage"
CHOICES = ("cluster@16", "cluster@8", "cluster@4")
ON_REQUEST = True
INTEGER = True
"""Whether kernels of bytes read it."""


def offer(view: LayerView) -> Offer:
    """Offer tables for convolutions of one group and matrix products of enough inputs."""
    reason = reason_against(view.linear, view.op, "entries of a table")
    return Offer(reason=reason) if reason else Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Store the weights of whatever stands for the anchor as entries of tables of the size that the choice says."""
    entries = int(choice.partition("@")[2])
    return as_codes(context, partial(clustered, bits=entries.bit_length() - 1))
