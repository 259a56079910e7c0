"""From what was measured of a network to its part of a cost table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels import ChoiceCost, LayerCosts, ModelCosts
from costmodels.peaks import Peak, peaks
from planner.choices import EXACT, formats
from planner.masks.costs import loss_of, random_plan
from planner.measuring.conversions import edge_costs

if TYPE_CHECKING:
    from costmodels.scripts import ModelScripts
    from planner.accuracy import LossCost
    from planner.measuring.builds import Builds
    from planner.model import Model

__all__ = ["model_costs"]

_PLANS = 300
"""Random plans among which the least and the greatest live set of each choice are looked for."""


def model_costs(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    builds: Builds,
    losses: Mapping[tuple[str, str], LossCost],
    memory: ModelScripts | None,
) -> tuple[ModelCosts, dict[str, Any]]:
    """Put samples together into costs.

    Args:
        model: The network.
        choices: The choices of each layer.
        builds: Its builds, timed.
        losses: What each choice loses.
        memory: What layers become in memory; None for the live sets of the builds, and a slack.

    Returns:
        The costs, and what is worth noting beside them.
    """
    fitted = builds.fit()
    alive = _peaks(model, choices, builds, memory)
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
                    activation_bytes=alive[layer, name].most,
                    least_activation_bytes=alive[layer, name].least if memory is not None else None,
                    latency_std_ns=builds.spread_ns(layer, name),
                    loss=max(0.0, loss.loss_raw) if loss else 0.0,
                    loss_raw=loss.loss_raw if loss else 0.0,
                    loss_std=loss.loss_std if loss else 0.0,
                    top1_change=loss.top1_expected if loss else 0.0,
                    top1_change_std=loss.top1_expected_std if loss else 0.0,
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
            memory=memory,
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
        "arena_slack_bytes": builds.slack() if memory is None else memory.slack_bytes,
        "arenas_checked": 0 if memory is None else memory.checked,
    }
    return cost, notes


def _peaks(
    model: Model, choices: Mapping[str, Sequence[str]], builds: Builds, memory: ModelScripts | None
) -> dict[tuple[str, str], Peak]:
    """Say what is alive while layers run: from scripts, or without any as the builds showed it."""
    if memory is None:
        slack = builds.slack()
        live = {(layer, name): builds.live_bytes(layer, name) for layer, offered in choices.items() for name in offered}
        return {place: Peak(least=taken + slack, most=taken + slack) for place, taken in live.items()}
    random = np.random.default_rng(0)
    drawn = (random_plan(model.graph, choices, random) for _ in range(_PLANS))
    found = peaks(memory, (*(build.choices for build in builds.found.values()), *drawn))
    return {place: peak.with_slack(memory.slack_bytes) for place, peak in found.items()}
