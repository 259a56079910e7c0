"""What layers look like without some of their channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.masks.classes import masks_of

if TYPE_CHECKING:
    from planner.approximations.base import LayerView
    from planner.graph import LayerGraph
    from planner.linear import Linear

__all__ = ["left_of", "thinner"]

Indices = NDArray[np.int64]


def left_of(graph: LayerGraph, shares: Mapping[str, str]) -> dict[str, Indices]:
    """Return how much of each tensor is left, whichever channels are chosen.

    Args:
        graph: The network.
        shares: Shares by the names of classes; ``1`` or nothing for all channels.

    Returns:
        Positions on axis 1, for the tensors that lose some: those of the first channels of each family.
    """
    left: dict[str, Indices] = {}
    for found in masks_of(graph).classes:
        share = shares.get(found.name, "1")
        if share == "1" or found.reason:
            continue
        counts = zip(found.families, found.counts(share), strict=True)
        channels = np.concatenate([family[:count] for family, count in counts])
        left |= {name: np.flatnonzero(np.isin(places, channels)) for name, places in found.places.items()}
    return left


def thinner(view: LayerView, graph: LayerGraph, left: Mapping[str, Indices], linear: Linear | None = None) -> LayerView:
    """Show a layer without channels.

    Args:
        view: The layer.
        graph: Its network.
        left: Positions on axis 1 that are left, for the tensors that lose some.
        linear: Its weights without them; its own without the rows and columns if None.
    """
    first = graph.layer(view.name).nodes[0]
    anchor = next(node for node in graph.model.graph.node if node.name == first)
    reads, writes = left.get(anchor.input[0]), left.get(anchor.output[0])
    if linear is None and view.linear is not None:
        weight, bias, groups = view.linear.weight, view.linear.bias, view.linear.groups
        if writes is not None:
            weight, bias = weight[writes], None if bias is None else bias[writes]
            groups = len(writes) if groups > 1 else 1
        if reads is not None and groups == 1:
            weight = weight[:, reads]
        linear = replace(view.linear, weight=np.ascontiguousarray(weight), bias=bias, groups=groups)
    constants = {item.name for item in graph.model.graph.initializer}

    def shape(tensor: str) -> tuple[int, ...]:
        whole = tuple(graph.shapes[tensor])
        return (whole[0], len(left[tensor]), *whole[2:]) if tensor in left else whole

    return replace(
        view,
        linear=linear,
        input_shape=shape(anchor.input[0]),
        output_shape=shape(anchor.output[0]),
        input_shapes=tuple(shape(name) for name in anchor.input if name and name not in constants),
    )
