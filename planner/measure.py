"""Measuring: what every choice of every layer costs in time, bytes and accuracy.

Bytes and times come from networks built with one choice wherever it applies, so that a handful of builds covers all
layers in their real surroundings (see :mod:`planner.measured_builds`); losses come from networks with a single layer
approximated and the ones behind it refitted.  Whole networks are timed beside their layers, and what the sum of
layers misses is fitted and kept with the table (see :mod:`costmodels.latency`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels import ChoiceCost, CostTable, LayerCosts, ModelCosts
from planner.choices import EXACT, applicable, formats
from planner.conversions import edge_costs
from planner.devices import Device, open_device
from planner.errors import InputError
from planner.journal import Journal
from planner.masks.costs import loss_of, pairs_to_measure
from planner.measured_builds import Builds
from planner.model import Model

if TYPE_CHECKING:
    from planner.accuracy import LossCost
    from planner.calibration import Calibration

__all__ = ["Progress", "measure"]

logger = logging.getLogger(__name__)

ROUNDS = 25
"""Rounds in which all builds are timed in turn."""
MIXES = 24
"""Random plans whose storage is planned, to see how far the arena can exceed the live set."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def measure(
    models: Sequence[Model],
    *,
    device: str | Device = "tvm",
    approximations: str | Sequence[str] = "default",
    threads: int = 1,
    refit: bool = True,
    rounds: int = ROUNDS,
    seed: int = 0,
    journal: str | Path | None = None,
    progress: Progress | None = None,
) -> CostTable:
    """Measure networks into a cost table.

    Args:
        models: The networks, each with data.
        device: A device or its name, ``name`` or ``name:address``.
        approximations: ``"default"`` for all there are, or names of approximations or choices.
        threads: Threads that a network may use.
        refit: Whether layers behind an approximated one are refitted; plans made from the table are built so.
        rounds: Rounds of timing; every build is timed once in each.
        seed: Seed of the random plans whose storage is looked at.
        journal: A file that keeps finished losses, so that a run that was stopped goes on where it was.
        progress: Is told how far the work is.

    Returns:
        The table, with where its figures come from.

    Raises:
        InputError: Two models share a name, one has no data, or a device or an approximation does not exist.
    """
    if not models:
        raise InputError("no models to measure; expected at least one")
    names = [model.name for model in models]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"two models are called {twice!r}; expected names of their own")
    if rounds < 1:
        raise InputError(f"rounds is {rounds}; expected at least 1")
    opened = open_device(device, threads=threads) if isinstance(device, str) else device
    choices = {model.name: applicable(model.graph, approximations) for model in models}
    tell = progress or (lambda *_: None)
    kept = Journal(journal)
    costs = [
        _measure_one(model, choices[model.name], opened, kept, refit=refit, rounds=rounds, seed=seed, tell=tell)
        for model in models
    ]
    provenance = {
        **opened.describe(),
        "blinkplan": version("blinkplan"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "onnxruntime": version("onnxruntime"),
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "seed": seed,
        "models": {
            model.name: {
                "source_sha256": model.graph.source_digest,
                "data": model.data().name,
                "data_sha256": model.data().digest,
                "calibration_images": len(model.data().calibration),
                "validation_images": len(model.data().validation),
                **notes,
            }
            for model, (_, notes) in zip(models, costs, strict=True)
        },
    }
    return CostTable(models=tuple(cost for cost, _ in costs), provenance=provenance, refit=refit)


def _measure_one(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    device: Device,
    journal: Journal,
    *,
    refit: bool,
    rounds: int,
    seed: int,
    tell: Progress,
) -> tuple[ModelCosts, dict[str, Any]]:
    """Measure one network; give its costs and what is worth noting beside them."""
    from planner.calibration import Calibration

    data = model.data()
    calibration = Calibration.of(model.graph, data)
    losses = _losses(model, choices, calibration, journal, refit=refit, tell=tell)
    builds = Builds(model, choices, calibration, device)
    builds.compile(tell)
    slack = builds.slack(MIXES, seed, tell)
    builds.time(rounds, tell)
    return _costs(model, choices, builds, losses, slack)


def _losses(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    calibration: Calibration,
    journal: Journal,
    *,
    refit: bool,
    tell: Progress,
) -> dict[tuple[str, str], LossCost]:
    """Measure the loss of every choice alone, those that a journal has left aside."""
    from planner.accuracy import LossCost, measure_losses

    data = model.data()
    pairs = pairs_to_measure(model.graph, choices)
    about = {
        "what": "loss",
        "model": model.graph.source_digest,
        "data": data.digest,
        "refit": refit,
        "blinkplan": version("blinkplan"),
    }
    found: dict[tuple[str, str], LossCost] = {}
    for layer, choice in pairs:
        known = journal.get({**about, "layer": layer, "choice": choice})
        if known is not None:
            found[layer, choice] = LossCost(**known)
    if found:
        logger.info("%s: %d of %d losses are in the journal", model.name, len(found), len(pairs))
    missing: dict[str, list[str]] = {}
    for layer, choice in pairs:
        if (layer, choice) not in found:
            missing.setdefault(layer, []).append(choice)

    def keep(layer: str, choice: str, cost: LossCost) -> None:
        journal.put({**about, "layer": layer, "choice": choice}, dataclasses.asdict(cost))
        found[layer, choice] = cost
        tell(f"{model.name}: losses", len(found), len(pairs))

    measure_losses(model.graph, data, missing, refit=refit, progress=keep, calibration=calibration)
    return found


def _costs(
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
