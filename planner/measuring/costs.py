"""From what was measured of a network to its part of a cost table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels import ChoiceCost, LayerCosts, ModelCosts
from planner.choices import EXACT, formats
from planner.masks.costs import loss_of
from planner.measuring.conversions import edge_costs

if TYPE_CHECKING:
    from planner.accuracy import LossCost
    from planner.measuring.builds import Builds
    from planner.model import Model

__all__ = ["model_costs"]


def model_costs(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    builds: Builds,
    losses: Mapping[tuple[str, str], LossCost],
    slack: int,
) -> tuple[ModelCosts, dict[str, Any]]:
    """Put samples together into costs."""
    fitted = builds.fit()
    layers = []
    for graph_layer in model.graph.layers:
        layer = graph_layer.name
        costs = []
        for name in choices[layer]:
            loss = loss_of(layer, name, losses)
            reads, writes = formats(model.graph, layer, name)
            costs.append(
                ChoiceCost(
                    name=name,
                    latency_ns=int(np.ceil(builds.layer_ns(layer, name, fitted))),
                    weight_bytes=builds.weight_bytes(layer, name),
                    activation_bytes=builds.live_bytes(layer, name) + slack,
                    latency_std_ns=fitted.factor * builds.spread_ns(layer, name),
                    loss=max(0.0, loss.loss_raw) if loss else 0.0,
                    loss_raw=loss.loss_raw if loss else 0.0,
                    loss_std=loss.loss_std if loss else 0.0,
                    top1_change=loss.top1_change if loss else 0.0,
                    top1_change_std=loss.top1_change_std if loss else 0.0,
                    in_format=reads,
                    out_format=writes,
                )
            )
        layers.append(LayerCosts(name=layer, op=graph_layer.op, choices=tuple(costs)))
    totals = builds.totals()
    cost = ModelCosts(
        name=model.name,
        layers=tuple(layers),
        edges=edge_costs(model.graph, choices, builds.observations(fitted), scale=fitted.reserve),
        overhead_ns=int(np.ceil(fitted.overhead_ns)),
        scale=fitted.reserve,
        exact_latency_ns=int(np.ceil(totals[EXACT]["median"])),
        reference_bytes=model.graph.parameter_bytes + builds.exact.program.footprint.arena_bytes,
    )
    notes = {
        "latency_model": {
            "dispatch_ns": fitted.dispatch_ns,
            "factor": fitted.factor,
            "overhead_ns": fitted.overhead_ns,
            "reserve": fitted.reserve,
            "worst_error": fitted.worst_error,
        },
        "whole_networks_ns": totals,
        "arena_slack_bytes": slack,
    }
    return cost, notes
