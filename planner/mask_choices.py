"""Names of choices with masks: which shares the inputs and outputs of a layer can keep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from planner.approximations import prune
from planner.approximations.base import Offer
from planner.masks import masks_of

if TYPE_CHECKING:
    from planner.graph import LayerGraph

__all__ = ["USUAL_MASKED", "mask_offers", "masked_names", "share_of"]

USUAL_MASKED = ("exact", "int8")
"""Choices that are offered with masks where nothing is asked for: those that run fastest and lose least."""
_WHOLE = "1"


def share_of(choice: str) -> str:
    """Return the share that the name of an approximation's choice asks for.

    >>> share_of("prune@0.75")
    '0.75'
    """
    return choice.partition("@")[2]


def mask_offers(graph: LayerGraph) -> dict[str, Offer]:
    """Return which shares of its channels each layer can read or write, or why it has to keep all."""
    masks = masks_of(graph)
    found = {}
    for layer in graph.layers:
        classes = [side[layer.name] for side in (masks.reads, masks.writes) if layer.name in side]
        if all(item.reason for item in classes):
            reason = "; ".join(
                dict.fromkeys(f"class {item.name!r} keeps its channels: {item.reason}" for item in classes)
            )
            found[layer.name] = Offer(reason=reason)
        else:
            found[layer.name] = Offer(choices=prune.CHOICES)
    return found


def masked_names(graph: LayerGraph, layer: str, bases: Sequence[str], shares: Sequence[str]) -> tuple[str, ...]:
    """Return the names of choices with masks on one side of a layer at least.

    Args:
        graph: The network.
        layer: The layer.
        bases: Choices without masks.
        shares: Shares that a class can keep, beside all of it.

    Returns:
        For each choice its names with every two shares that the layer can read and write.
    """
    masks = masks_of(graph)
    reads, writes = (side.get(layer) for side in (masks.reads, masks.writes))
    sides = [[_WHOLE, *shares] if side and not side.reason else [_WHOLE] for side in (reads, writes)]
    pairs = [(one, other) for one, other in product(*sides) if reads is not writes or one == other]
    return tuple(
        f"{base}:{one}>{other}" for base in bases if ":" not in base for one, other in pairs if {one, other} != {_WHOLE}
    )
