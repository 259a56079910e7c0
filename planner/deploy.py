"""From a cost table to a build that keeps its promise: plan, build, measure, and correct until it holds."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodels import CostTable, ModelCosts
from planner.budget import Budget
from planner.build import Build, build
from planner.model import Model
from planner.plan import Plan
from planner.planning import plan
from planner.verify import Report, verify

if TYPE_CHECKING:
    from planner.dataset import Dataset

__all__ = ["Deployment", "calibrated", "deploy"]

logger = logging.getLogger(__name__)

ROUNDS = 5
"""Times that a broken promise is corrected before the last build is handed over as it is, marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What came of a deployment.

    Attributes:
        plan: The last plan.
        build: Its build.
        report: How it measures; ``report.ok`` says whether every bound is kept.
        table: The cost table, as corrected by what was measured.
        rounds: Plans that were built.
    """

    plan: Plan
    build: Build
    report: Report
    table: CostTable
    rounds: int


def deploy(
    table: CostTable,
    budget: Budget,
    models: Sequence[Model],
    *,
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | Dataset | None = None,
    solver: str = "auto",
    threads: int = 1,
    rounds: int = ROUNDS,
) -> Deployment:
    """Plan, build and verify; where a promise is broken, correct the table by what was measured and plan again.

    Args:
        table: What choices cost, measured on this device.
        budget: What may be spent.
        models: The networks, each with data.
        out: Folder of the build.
        data: Data whose test images the build is verified on; the first model's own if None.
        solver: Name of the solver.
        threads: Threads that the table was measured with.
        rounds: Builds at most.

    Returns:
        The last build, with its report.

    Raises:
        InfeasibleError: No plan keeps the bounds, perhaps only once the table is corrected.
        LimitError: The solver's limit came before any plan.
        InputError: Something handed in is wrong.
    """
    for number in range(1, rounds + 1):
        found = plan(table, budget, solver)
        made = build(found, models, out=out, threads=threads)
        report = verify(out, data=data if data is not None else models[0].data())
        if report.ok or number == rounds:
            break
        logger.info("round %d: a bound is broken; planning again on a corrected table", number)
        table = calibrated(table, report)
    return Deployment(plan=found, build=made, report=report, table=table, rounds=number)


def calibrated(table: CostTable, report: Report) -> CostTable:
    """Correct a table by what a build was measured at.

    Layer times of a model that ran slower than predicted are scaled up by as much; bytes that were missing are added
    to the model's fixed bytes.

    Args:
        table: The table that the plan was made from.
        report: What its build measured.

    Returns:
        A table by which the same plan would have been predicted as it was measured.
    """
    promised = {promise.what: promise for promise in report.promises}
    memory = promised["memory"]
    missing = max(0, math.ceil(memory.measured) - memory.predicted)
    models = []
    for index, model in enumerate(table.models):
        promise = promised.get(f"latency of {model.name}")
        corrected = _slower(model, promise.predicted, promise.measured) if promise else model
        if index == 0 and missing:
            corrected = dataclasses.replace(corrected, fixed_bytes=corrected.fixed_bytes + missing)
        models.append(corrected)
    return dataclasses.replace(table, models=tuple(models))


def _slower(model: ModelCosts, predicted: int, measured: float) -> ModelCosts:
    layers = predicted - model.overhead_ns
    if measured <= predicted or layers <= 0:
        return model
    return dataclasses.replace(model, scale=model.scale * (measured - model.overhead_ns) / layers)
