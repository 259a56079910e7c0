"""Names of choices with masks: which shares the inputs and outputs of a layer can keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from planner.approximations import prune
from planner.approximations.base import Offer
from planner.calibration import arrays_of, views_of
from planner.errors import InputError
from planner.masks.classes import masks_of
from planner.masks.thinning import left_of, thinner

if TYPE_CHECKING:
    from planner.approximations.base import LayerView
    from planner.graph import LayerGraph

__all__ = ["USUAL_MASKED", "alone", "everywhere", "mask_offers", "masked_names", "share_of", "with_masks"]

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


def masked_names(graph: LayerGraph, view: LayerView, bases: Sequence[str], shares: Sequence[str]) -> tuple[str, ...]:
    """Return the names of choices with masks on one side of a layer at least.

    Args:
        graph: The network.
        view: The layer.
        bases: Choices without masks.
        shares: Shares that a class can keep, beside all of it.

    Returns:
        For each choice its names with every two shares that the layer can read and write, where the choice is offered
        for what is then left of the layer.
    """
    from planner.choices import Choice, fits  # it lists choices with masks, and so reads this module

    masks = masks_of(graph)
    reads, writes = (side.get(view.name) for side in (masks.reads, masks.writes))
    sides = [[_WHOLE, *shares] if side and not side.reason else [_WHOLE] for side in (reads, writes)]
    names = []
    for base, (one, other) in product(bases, product(*sides)):
        if one == other == _WHOLE or (reads is writes and one != other):
            continue
        given = {found.name: share for found, share in ((reads, one), (writes, other)) if found is not None}
        if fits(thinner(view, graph, left_of(graph, given)), Choice.parse(base).parts):
            names.append(f"{base}:{one}>{other}")
    return tuple(names)


def everywhere(
    graph: LayerGraph, share: str, base: str | Mapping[str, str] = "exact", *, sums: bool = True
) -> dict[str, str]:
    """Return the choices under which every class that can lose channels keeps a share of them.

    Args:
        graph: The network.
        share: The share, such as ``0.75``.
        base: What computes each layer, without masks: one choice for all that are offered it, or one for each.
        sums: Whether classes whose channels are sums of several layers' keep it too.  Each of their channels is read
            by more layers, and made by more: removing them costs several times the accuracy.

    Returns:
        A choice for every layer.
    """
    chosen = {item.name: share for item in masks_of(graph).prunable if sums or not item.is_sum}
    return with_masks(graph, chosen, base)


def with_masks(graph: LayerGraph, shares: Mapping[str, str], base: str | Mapping[str, str] = "exact") -> dict[str, str]:
    """Return the choices under which some classes keep a share of their channels.

    Args:
        graph: The network.
        shares: Shares by the names of classes; ``1`` or nothing for all channels.
        base: What computes each layer, without masks: one choice for all that are offered it, or one for each.

    Returns:
        A choice for every layer.

    Raises:
        InputError: There is no such class.
    """
    masks = masks_of(graph)
    unknown = set(shares) - {item.name for item in masks.classes}
    if unknown:
        existing = ", ".join(item.name for item in masks.classes)
        raise InputError(f"model {graph.name!r} has no class {min(unknown)!r}; it has: {existing}")
    if isinstance(base, str):
        base = _where_offered(graph, base, shares)
    chosen = {}
    for layer in graph.layers:
        sides = [side[layer.name].name if layer.name in side else "" for side in (masks.reads, masks.writes)]
        reads, writes = (shares.get(name, "1") for name in sides)
        what = base.get(layer.name, "exact")
        chosen[layer.name] = what if reads == writes == "1" else f"{what}:{reads}>{writes}"
    return chosen


def _where_offered(graph: LayerGraph, base: str, shares: Mapping[str, str]) -> dict[str, str]:
    """Return a choice for the layers that are offered all its parts, without the channels that are gone."""
    from planner.choices import Choice, fits  # it lists choices with masks, and so reads this module

    left = left_of(graph, shares)
    views = [thinner(view, graph, left) for view in views_of(graph, arrays_of(graph.model))]
    return {view.name: base for view in views if fits(view, Choice.parse(base).parts)}


def alone(graph: LayerGraph, layer: str, choice: str) -> dict[str, str]:
    """Return the choices under which one thing is changed alone.

    Args:
        graph: The network.
        layer: A layer, or a class by its name.
        choice: A choice of the layer, or ``prune@`` and a share of the class.
    """
    if choice in prune.CHOICES:
        return with_masks(graph, {layer: share_of(choice)})
    return {layer: choice}
