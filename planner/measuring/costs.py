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
                    latency_std_ns=builds.spread_ns(layer, name),
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
    seen = builds.observations(fitted)

    def with_reserve(reserve: float) -> ModelCosts:
        return ModelCosts(
            name=model.name,
            layers=tuple(layers),
            edges=edge_costs(model.graph, choices, seen, scale=reserve),
            overhead_ns=int(np.ceil(fitted.overhead_ns)),
            reserve=reserve,
            exact_latency_ns=int(np.ceil(totals[EXACT]["median"])),
            reference_bytes=model.graph.parameter_bytes + builds.exact.program.footprint.arena_bytes,
        )

    bare = with_reserve(1.0)
    expected = {name: bare.expected_latency_ns(build.choices) for name, build in builds.found.items()}
    # No network that was built is promised to be faster than it was, neither by itself nor by a fit to the others.
    overhead = bare.overhead_ns
    short = [(totals[name]["median"] - overhead) / max(ns - overhead, 1.0) for name, ns in expected.items()]
    cost = with_reserve(max(fitted.reserve, *short))
    errors = np.array([abs(ns / totals[name]["median"] - 1.0) for name, ns in expected.items()])
    notes = {
        "latency_model": {
            "dispatch_ns": fitted.dispatch_ns,
            "factor": fitted.factor,
            "overhead_ns": fitted.overhead_ns,
            "reserve": cost.reserve,
            "left_out_median_error": fitted.median_error,
            "left_out_worst_error": fitted.worst_error,
            "median_error": float(np.median(errors)),
            "worst_error": float(np.max(errors)),
            "control_ns": builds.control_ns,
        },
        "whole_networks_ns": totals,
        "arena_slack_bytes": slack,
    }
    return cost, notes
