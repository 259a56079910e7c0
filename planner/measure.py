"""Measuring: what every choice of every layer costs in time, bytes and accuracy.

Bytes and times come from networks built with one choice wherever it applies, so that a handful of builds covers all
layers in their real surroundings (see :mod:`planner.measuring.builds`); losses come from networks with a single layer
approximated and the ones behind it refitted.  Whole networks are timed beside their layers, and what the sum of
layers misses is fitted and kept with the table (see :mod:`costmodels.latency`).
"""

from __future__ import annotations

import datetime as dt
import logging
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from costmodels import CostTable, ModelCosts
from planner.choices import applicable
from planner.devices import Device, close, notes, open_device
from planner.errors import InputError
from planner.judging import Metric
from planner.masks.costs import pairs_to_measure
from planner.measuring.builds import Builds
from planner.measuring.costs import model_costs
from planner.measuring.energy import Meter, UnreadableError, measures_here, open_meter, with_energy
from planner.measuring.losses import Losses, choice_losses, pool
from planner.measuring.progress import Outlook, Progress
from planner.measuring.store import Store
from planner.model import Model

__all__ = ["Progress", "measure"]

logger = logging.getLogger(__name__)

ROUNDS = 25
"""Rounds in which all builds are timed in turn."""
MIXES = 16
"""Random plans whose arena is put together from scripts and then planned, to see that both agree."""


def measure(
    models: Sequence[Model],
    *,
    device: str | Device = "tvm",
    approximations: str | Sequence[str] = "default",
    threads: int = 1,
    refit: bool = True,
    rounds: int = ROUNDS,
    seed: int = 0,
    store: str | Path | Store | None = None,
    metric: Metric | None = None,
    jobs: int = 1,
    executor: Executor | None = None,
    energy: bool = False,
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
        store: Where every sample is kept, or its file, so that a run that was stopped goes on where it was, and another
            model or table costs only what is new.  None keeps nothing.
        metric: A loss of the user's own: given class scores ``[image][class]`` and labels ``[image]`` (-1 where they
            are not known), it returns a finite figure for each image, of which less is better.  None for the
            cross-entropy, or for the divergence from the exact network's answers where the data have no labels.
        jobs: Processes that losses are measured in at a time; times are measured alone.
        executor: What measures the losses in place of such processes: here, or on a cluster.
        energy: Whether to measure what the builds draw, where this machine's counters can be read; without them the
            table has no energy, and says why.
        progress: Is told how far the work is.

    Returns:
        The table, with where its figures come from.

    Raises:
        InputError: Two models share a name, one has no data, or a device or an approximation does not exist.
    """
    from threadpoolctl import threadpool_limits

    if not models:
        raise InputError("no models to measure; expected at least one")
    names = [model.name for model in models]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"two models are called {twice!r}; expected names of their own")
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; expected at least 1")
    if rounds < 1:
        raise InputError(f"rounds is {rounds}; expected at least 1")
    for model in models:
        model.data()
    opened = open_device(device, threads=threads) if isinstance(device, str) else device
    choices = {model.name: applicable(model.graph, approximations) for model in models}
    surroundings = {
        **opened.describe(),
        "blinkplan": version("blinkplan"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "onnxruntime": version("onnxruntime"),
    }
    with ExitStack() as stack:
        # Many small matrices: threads that wait for one another take longer than one alone, and sums would depend on
        # how many there are.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        if isinstance(device, str):
            stack.callback(close, opened)
        kept = store if isinstance(store, Store) else stack.enter_context(Store(store))
        stack.enter_context(kept.running({**surroundings, "models": names, "rounds": rounds, "refit": refit}))
        outlook = Outlook(kept, _expected(models, choices, rounds), progress or (lambda *_: None))
        found = executor or stack.enter_context(pool(jobs))
        meter, unread = _meter(opened) if energy else (None, "")
        measured = [
            _measure_one(
                model,
                choices[model.name],
                opened,
                kept,
                refit=refit,
                metric=metric,
                executor=found,
                waits=executor is None and found is not None,
                rounds=rounds,
                seed=seed,
                meter=meter,
                tell=outlook,
            )
            for model in models
        ]
        outlook.end()
        for what, reason in notes(opened):
            kept.note("retried", what, reason)
        summary = {**kept.summary(), "seconds": outlook.seconds()}
    provenance = {
        **surroundings,
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "seed": seed,
        "summary": summary,
        **({"energy": unread} if unread else {}),
        "models": {
            model.name: {
                "source_sha256": model.graph.source_digest,
                "data": model.data().name,
                "data_sha256": model.data().digest,
                "calibration_images": len(model.data().calibration),
                "validation_images": len(model.data().validation),
                "loss": losses.loss,
                "hopeless": losses.stopped,
                **noted,
            }
            for model, (_, losses, noted) in zip(models, measured, strict=True)
        },
    }
    return CostTable(models=tuple(cost for cost, *_ in measured), provenance=provenance, refit=refit)


def _meter(device: Device) -> tuple[Meter | None, str]:
    """Find the energy counters that a device's work shows in, or say why there are none."""
    reason = f"device {device.name} does not run on this machine"
    if measures_here(device):
        try:
            return open_meter(), ""
        except UnreadableError as error:
            reason = str(error)
    logger.warning("energy is left out: %s", reason)
    return None, f"left out: {reason}"


def _expected(
    models: Sequence[Model], choices: Mapping[str, Mapping[str, Sequence[str]]], rounds: int
) -> dict[tuple[str, str], int]:
    """Say how many parts each phase of each model may have, for the time that is left before the phases come."""
    found: dict[tuple[str, str], int] = {}
    for model in models:
        offered = choices[model.name]
        names = {name for names in offered.values() for name in names}
        found[model.name, "losses"] = len(pairs_to_measure(model.graph, offered))
        found[model.name, "building"] = 2 * len(names)
        found[model.name, "planning memory"] = MIXES
        found[model.name, "timing builds"] = rounds
    return found


def _measure_one(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    device: Device,
    store: Store,
    *,
    refit: bool,
    metric: Metric | None,
    executor: Executor | None,
    waits: bool,
    rounds: int,
    seed: int,
    meter: Meter | None,
    tell: Progress,
) -> tuple[ModelCosts, Losses, dict[str, Any]]:
    """Measure one network; give its costs, what choices lose, and what is worth noting beside them."""
    from planner.calibration import Calibration

    builds = Builds(model, choices, Calibration.of(model.graph, model.data()), device, store)

    def judged() -> Losses:
        return choice_losses(model, choices, store, refit=refit, tell=tell, metric=metric, executor=executor)

    if not waits:
        losses = judged()
        builds.compile(tell)
    else:
        # While processes of its own measure losses this one would only wait.  What builds take is timed after both.
        with ThreadPoolExecutor(1) as beside:
            compiling = beside.submit(builds.compile, lambda *_: None)
            losses = judged()
            compiling.result()
    memory = builds.memory(MIXES, seed, tell)
    builds.time(rounds, tell)
    costs, noted = model_costs(model, choices, builds, losses.costs, memory)
    if meter is not None:

        def told(done: int, of: int) -> None:
            tell(f"{model.name}: measuring energy", done, of)

        costs, noted["energy"] = with_energy(costs, builds.found, meter, told)
    return replace(costs, interactions=losses.interactions()), losses, noted
