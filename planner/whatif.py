"""Ask what if: plans over many bounds, what the next millisecond or MiB buys, and how two plans differ."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from costmodels import CostTable
from planner.budget import Budget, Number
from planner.domination import undominated
from planner.errors import InfeasibleError, InputError, LimitError
from planner.formulate import formulate
from planner.formulation import LOSS, Objective
from planner.frontier import Frontier, Point
from planner.plan import Plan
from planner.planning import find_solver, plan
from solvers import Solver
from solvers.questions.memory import remembering
from solvers.questions.prices import prices

__all__ = ["Difference", "Frontier", "Point", "Price", "diff", "price", "sweep"]

Latency = Number | Mapping[str, Number | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a little more, or less, of one bound changes; true near this budget only.

    Attributes:
        bound: What is bound, ``latency of quick`` or ``memory``.
        unit: ``ms`` or ``MiB``.
        step: How much more, and less, was tried.
        loss: Loss of the plan within the budget.
        loss_more: Loss with a step more.
        loss_less: Loss with a step less; None where there is no such plan.
        same_from: The least bound within which the loss is still what it is; None where that was not settled.
        next_at: The least bound within which the loss is lower; None where none is, or where that was not settled.
        next_loss: The loss there.
        marginal: What a unit more saves where plans may be mixed, which smooths their steps; None under a quantile.
        marginal_from: The least bound at which a unit is worth that.
        marginal_to: The greatest; None where it is worth that ever after.

    >>> Price(bound="memory", unit="MiB", step=0.5, loss=0.3, loss_more=0.2, loss_less=None).saves_per_unit
    0.2
    """

    bound: str
    unit: str
    step: float
    loss: float
    loss_more: float
    loss_less: float | None
    same_from: float | None = None
    next_at: float | None = None
    next_loss: float | None = None
    marginal: float | None = None
    marginal_from: float | None = None
    marginal_to: float | None = None

    @property
    def saves_per_unit(self) -> float:
        """How much less loss the next unit buys, by the difference over one step."""
        return round((self.loss - self.loss_more) / self.step, 15)

    def __str__(self) -> str:
        """Write it as one line, and a second one for the steps where they are known."""
        less = "no plan" if self.loss_less is None else f"loss {self.loss_less:.6g}"
        tried = (
            f"{self.bound}: {self.step:g} {self.unit} more gives loss {self.loss_more:.6g} instead of "
            f"{self.loss:.6g} ({self.saves_per_unit:.4g} less for each {self.unit}, near this budget); "
            f"as much less gives {less}"
        )
        steps = []
        if self.same_from is not None:
            steps.append(f"the same loss from {self.same_from:.9g} {self.unit} on")
        if self.next_at is not None and self.next_loss is not None:
            steps.append(f"the next lower one, {self.next_loss:.6g}, from {self.next_at:.9g} {self.unit} on")
        if self.marginal is not None and self.marginal_from is not None:
            to = "on" if self.marginal_to is None else f"to {self.marginal_to:.6g} {self.unit}"
            steps.append(f"{self.marginal:.4g} for each {self.unit} between steps, from {self.marginal_from:.6g} {to}")
        return f"{tried}\n  near this budget: {'; '.join(steps)}" if steps else tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a second plan differs from a first.

    Attributes:
        changed: Model, layer, the first plan's choice and the second's; None where a plan lacks the layer.
        loss: Loss of the second less that of the first.
        latency_ms: For each model in both, milliseconds of the second less those of the first.
        memory_mib: MiB of the second less those of the first.

    >>> print(Difference(changed=(("m", "conv1", "exact", "int8"),), loss=0.01, latency_ms={"m": -1.0}, memory_mib=0.0))
    m/conv1: exact -> int8
    loss +0.01, latency of m -1 ms, memory +0 MiB
    """

    changed: tuple[tuple[str, str, str | None, str | None], ...]
    loss: float
    latency_ms: dict[str, float]
    memory_mib: float

    def __str__(self) -> str:
        """Write one line for each layer that changes, then the figures."""
        lines = [f"{model}/{layer}: {first} -> {second}" for model, layer, first, second in self.changed]
        latencies = "".join(f", latency of {model} {change:+.6g} ms" for model, change in self.latency_ms.items())
        return "\n".join([*lines, f"loss {self.loss:+.6g}{latencies}, memory {self.memory_mib:+.6g} MiB"])


def sweep(
    table: CostTable,
    budget: Budget,
    *,
    latency_ms: Sequence[Latency] | None = None,
    memory_mib: Sequence[Number | None] | None = None,
    solver: str = "auto",
    objective: Objective = "loss",
    time_limit_s: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Frontier:
    """Plan over many bounds, each combination of those given.

    Args:
        table: What choices cost.
        budget: What is not swept.
        latency_ms: Bounds on the latency, numbers or maps from model to number; None leaves the budget's.
        memory_mib: Bounds on the memory; None leaves the budget's.
        solver: Name of the solver.
        objective: What is minimised.
        time_limit_s: Seconds for each point.
        seed: Seed of the solver.
        workers: Threads of the solver; None for all, or for one where an executor has points planned side by side.
        executor: Has the points planned, here or on a cluster; one after the other in this process without one.

    Returns:
        One point for each combination, in the order given.  One after the other, each starts from the plan before it,
        and an exact solver remembers what it found within other bounds; side by side each starts afresh, which takes
        longer and proves the same.

    Raises:
        InputError: A bound is wrong, or there are none.
    """
    latencies = [budget.latency_ms] if latency_ms is None else list(latency_ms)
    memories = [budget.memory_mib] if memory_mib is None else list(memory_mib)
    if not latencies or not memories:
        raise InputError("there are no bounds to sweep over; expected at least one")
    budgets = [replace(budget, latency_ms=ms, memory_mib=mib) for mib, ms in itertools.product(memories, latencies)]
    settings: dict[str, Any] = {"objective": objective, "time_limit_s": time_limit_s, "seed": seed}
    if executor is not None:
        find = partial(_point, table, solver=solver, workers=workers or 1, **settings)
        return Frontier(points=tuple(executor.map(find, budgets)))
    points: list[Point] = []
    hint = None
    known = remembering(find_solver(solver))
    for wanted in budgets:
        found = _point(table, wanted, solver=known, workers=workers, hint=hint, **settings)
        points.append(found)
        hint = found.plan.choices if found.plan is not None else hint
    return Frontier(points=tuple(points))


def _point(table: CostTable, budget: Budget, *, solver: str | Solver, **settings: Any) -> Point:
    """Plan within one budget, in whatever process this is."""
    try:
        found = plan(table, budget, solver, explains=False, **settings)
    except InfeasibleError as error:
        return Point(budget=budget, plan=None, status="infeasible", reason=str(error))
    except LimitError as error:
        return Point(budget=budget, plan=None, status="limit", reason=str(error))
    return Point(budget=budget, plan=found, status=found.status)


def price(
    table: CostTable,
    budget: Budget,
    *,
    step: float = 0.05,
    solver: str = "auto",
    time_limit_s: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[Price, ...]:
    """Find out what the next millisecond of each model and the next MiB buy, by planning a step around.

    Args:
        table: What choices cost.
        budget: The budget around which to look.
        step: How far to step, as a share of each bound.
        solver: Name of the solver.
        time_limit_s: Seconds for each plan.
        seed: Seed of the solver.
        workers: Threads.

    Returns:
        One price for each bound on a latency or on the memory, with the exact steps of the loss on either side where
        the solver is exact and the time suffices. They hold near this budget only: plans change in steps. In the
        steps of the memory, what is alive counts at the most that it can come to.

    Raises:
        InfeasibleError: There is no plan within the budget itself.
        InputError: The step is not between 0 and 1, or nothing is bound.
    """
    if not 0 < step < 1:
        raise InputError(f"step is {step}; expected a share between 0 and 1")
    share = Decimal(repr(float(step)))

    def loss(wanted: Budget) -> float | None:
        points = sweep(table, wanted, solver=solver, time_limit_s=time_limit_s, seed=seed, workers=workers).points
        return None if points[0].plan is None else points[0].plan.loss

    here = plan(table, budget, solver, time_limit_s=time_limit_s, seed=seed, workers=workers).loss
    steps = _steps(table, budget, solver, time_limit_s=time_limit_s, seed=seed, workers=workers)
    found = []
    for name, unit, bound, change in _bounds(table, budget):
        amount = bound * share
        more = loss(change(bound + amount))
        if more is None:
            raise LimitError(f"no plan was found in time with {amount} {unit} more for the {name}")
        less = loss(change(bound - amount))
        found.append(
            Price(
                bound=name,
                unit=unit,
                step=float(amount),
                loss=here,
                loss_more=more,
                loss_less=less,
                **steps.get(name, {}),
            )
        )
    if not found:
        raise InputError("neither latency nor memory is bound; expected a bound to put a price on")
    return tuple(found)


def _steps(table: CostTable, budget: Budget, solver: str, **limits: Any) -> dict[str, dict[str, float | None]]:
    """Return, for each bound by its name, the figures of a price that steps and stretches give."""
    chosen = find_solver(solver)
    if not chosen.capabilities.exact:
        return {}
    formulation = formulate(undominated(table, spread=budget.latency_quantile > 0.5)[0], budget)
    rows = [row for row in formulation.problem.bound_rows if row != LOSS]
    found = {}
    for priced in prices(formulation.problem, chosen, rows=rows, **limits):
        unit = formulation.meaning(priced.row, 1)

        def meant(value: float | None, unit: Fraction = unit) -> float | None:
            return None if value is None else float(Fraction(value) * unit)

        figures = {"same_from": meant(priced.holds_from), "next_at": meant(priced.improves_at)}
        if priced.improved is not None:
            figures["next_loss"] = float(formulation.meaning(LOSS, priced.improved))
        if priced.relaxed is not None:
            figures["marginal"] = float(Fraction(priced.relaxed.price) / formulation.loss_scale / unit)
            figures["marginal_from"] = meant(priced.relaxed.low)
            figures["marginal_to"] = meant(priced.relaxed.high)
        found[formulation.describe(priced.row)] = figures
    return found


def diff(first: Plan, second: Plan) -> Difference:
    """Compare two plans, layer by layer.

    Args:
        first: The plan to start from.
        second: The plan to compare with it.

    Returns:
        What changes from the first to the second.
    """
    old, new = first.choices, second.choices
    places = dict.fromkeys((layer.model, layer.layer) for layer in (*first.layers, *second.layers))
    pairs = ((m, la, old.get(m, {}).get(la), new.get(m, {}).get(la)) for m, la in places)
    changed = [pair for pair in pairs if pair[2] != pair[3]]
    return Difference(
        changed=tuple(changed),
        loss=second.loss - first.loss,
        latency_ms={m: ms - first.latency_ms[m] for m, ms in second.latency_ms.items() if m in first.latency_ms},
        memory_mib=second.memory_mib - first.memory_mib,
    )


def _bounds(table: CostTable, budget: Budget) -> list[tuple[str, str, Decimal, Any]]:
    """List name, unit and value of each bound, with the function that changes it."""
    found: list[tuple[str, str, Decimal, Any]] = []
    models = [model.name for model in table.models]
    allowed = {model: budget.latency_ns(model) for model in models}
    bounded = {model: Decimal(ns) / 10**6 for model, ns in allowed.items() if ns is not None}

    def latency(model: str) -> Any:
        return lambda value: replace(budget, latency_ms={**dict.fromkeys(models), **bounded, model: value})

    found += [(f"latency of {model}", "ms", value, latency(model)) for model, value in bounded.items()]
    if budget.memory_bytes is not None:
        value = Decimal(budget.memory_bytes) / 2**20
        found.append(("memory", "MiB", value, lambda more: replace(budget, memory_mib=more)))
    return found
