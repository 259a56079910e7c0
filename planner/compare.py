"""Put solvers side by side: on the same tables and budgets, every answer checked again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import solvers as all_solvers
from costmodels import ChoiceCost, CostTable, LayerCosts, ModelCosts, write_aside
from planner.budget import Budget
from planner.curves import Curve
from planner.errors import InfeasibleError, InputError, LimitError
from planner.figures import figures
from planner.plan import Plan, check
from planner.planning import find_solver, plan
from solvers import RefusedError, Solver
from solvers.instances import generate as made_up

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Comparison",
    "Run",
    "compare_solvers",
    "contradictions",
    "generate",
    "relative_budget",
    "warmed",
    "written_versions",
]


_SAME_LOSS = 1e-9
"""Losses of tables are no integers: bounds on them, rounded, may lie this share above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one solver made of one instance.

    Attributes:
        solver: Its name.
        instance: The instance's name.
        status: ``optimal``, ``feasible``, ``infeasible``, ``limit`` or ``refused``; ``wrong`` where an answer is none.
        loss: Loss of the plan, of a formulated table rounded up; None without one, and where the instance is no table.
        bound: Nothing costs less, by this solver, in the unit of the objective; None where it says nothing.
        gap: ``(objective - bound) / objective``.
        seconds: Wall-clock seconds; for tables, formulation included.
        checked: Whether the answer was found right by exact arithmetic; None without one.
        note: The reason why there is no answer, what was found wrong, or how it was found.
        objective: What was minimised: the loss of a table's plan, or the integers of a problem.
        proven: What of the bound stands without the solver's word, by its prices or the least costs; None where that
            was not looked at.
        bound_solver: Who gave the bound, where that is another solver.
        seed: The seed.
        time_limit_s: Seconds that were allowed.
        workers: Threads; None for those the machine has.
        work: The limit of work, in the solver's own unit; None without one.
        curve: How the solver's answers over time were had: ``traced`` or ``reruns``; empty where they were not.
        versions: The versions of the packages that answered.

    >>> Run(solver="greedy", instance="a", status="limit", seconds=0.1).loss is None
    True
    """

    solver: str
    instance: str
    status: str
    loss: float | None = None
    bound: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    checked: bool | None = None
    note: str = ""
    objective: float | int | None = None
    proven: int | None = None
    bound_solver: str = ""
    seed: int = 0
    time_limit_s: float | None = None
    workers: int | None = None
    work: float | None = None
    curve: str = ""
    versions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All runs of a comparison.

    Attributes:
        runs: One for each instance and solver.
        curves: How answers got better over time, where that was asked for.

    >>> run = Run(solver="greedy", instance="a", status="limit", seconds=0.1)
    >>> Comparison(runs=(run,)).runs[0].solver
    'greedy'
    """

    runs: tuple[Run, ...]
    curves: tuple[Curve, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row a run."""
        import pandas as pd

        frame = pd.DataFrame([asdict(run) for run in self.runs], columns=[field.name for field in fields(Run)])
        if any(isinstance(run.objective, int) for run in self.runs):
            # Integers of up to 2^62 stay exact only where the column is not turned into floating point.
            for name in ("objective", "bound", "proven"):
                frame[name] = pd.Series([getattr(run, name) for run in self.runs], dtype=object)
        return frame

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one line a run as CSV; readers never see half a file.

        Raises:
            InputError: The file cannot be written.
        """
        try:
            write_aside(path, self.to_frame().to_csv(index=False))
        except OSError as error:
            raise InputError(f"{path}: the comparison cannot be written: {error.strerror or error}") from None

    def __str__(self) -> str:
        """Show one line a run."""
        frame = self.to_frame()
        shown = ["solver", "instance", "status", "objective", "bound", "gap", "seconds", "checked"]
        if not any(isinstance(run.objective, int) for run in self.runs):
            shown[3] = "loss"
        return str(frame[shown].to_string(index=False, na_rep="-"))


def compare_solvers(
    tables: Mapping[str, CostTable] | Sequence[CostTable],
    budgets: Budget | Mapping[str, Budget] | Sequence[Budget],
    solvers: Sequence[str] | None = None,
    *,
    time_limit_s: float = 10.0,
    seed: int = 0,
    workers: int | None = None,
    tell: Callable[[Run], None] | None = None,
) -> Comparison:
    """Let several solvers plan the same instances.

    Args:
        tables: The tables, by name or in order.
        budgets: The budget of each table, likewise, or one for all.
        solvers: Names of the solvers; None takes all that are installed.
        time_limit_s: Seconds for each run.
        seed: Seed of the solvers.
        workers: Threads.
        tell: Is told of each run when it is over.

    Returns:
        One run for each instance and solver; every plan is checked in exact arithmetic.

    Raises:
        InputError: A solver does not exist, or tables and budgets do not go together.
    """
    instances = _instances(tables, budgets)
    names = tuple(all_solvers.available() if solvers is None else solvers)
    warmed(names)

    limits: dict[str, Any] = {"time_limit_s": time_limit_s, "seed": seed, "workers": workers}

    def answer(name: str, table: CostTable, budget: Budget) -> Plan:
        return plan(table, budget, name, **limits, explains=False)

    runs = []
    for instance, (table, budget) in instances.items():
        for name in names:
            run = _run(name, instance, table, partial(answer, name, table, budget))
            runs.append(replace(run, **limits))
            if tell is not None:
                tell(runs[-1])
    return Comparison(runs=tuple(runs))


def warmed(names: Sequence[str]) -> list[Solver]:
    """Let solvers solve trifles of all that they take, so that what it takes to import them is not measured.

    Args:
        names: Names of the solvers.

    Returns:
        The solvers.

    Raises:
        InputError: A solver does not exist.
    """
    chosen = [find_solver(name) for name in names]
    for solver in chosen:
        can = solver.capabilities
        for pairs, peaks in dict.fromkeys([(False, False), (False, can.peaks), (can.pairs, can.peaks)]):
            trifle = made_up.generate(0, layers=6, options=4, pairs=pairs, peaks=peaks)
            # Heuristics use all the time there is; oracles refuse what is too large.
            with suppress(RefusedError):
                solver.solve(trifle, time_limit_s=0.7, workers=1)
    return chosen


def contradictions(runs: Sequence[Run]) -> tuple[str, ...]:
    """List where one solver's proof is refuted by another's checked answer to the same instance.

    Args:
        runs: Runs; those of tables are compared up to what floating point makes of their losses.

    Returns:
        One sentence for each bound that lies above an objective, and each instance that is called infeasible and is
        not; empty where all agree.

    >>> better = Run(solver="a", instance="p", status="feasible", objective=5, checked=True)
    >>> contradictions([better, Run(solver="b", instance="p", status="optimal", objective=7, bound=7, checked=True)])
    ('p: b says that nothing lies below 7; a found 5',)
    """
    best: dict[str, Run] = {}
    for run in runs:
        if run.checked and run.objective is not None:
            known = best.get(run.instance)
            if known is None or known.objective is None or run.objective < known.objective:
                best[run.instance] = run
    found = []
    for run in runs:
        known = best.get(run.instance)
        if known is None or known.objective is None:
            continue
        exact = isinstance(known.objective, int)
        if run.bound is not None and run.bound > known.objective * (1 if exact else 1 + _SAME_LOSS):
            bound = f"{run.solver} says that nothing lies below {run.bound}"
            found.append(f"{run.instance}: {bound}; {known.solver} found {known.objective}")
        if run.status == "infeasible":
            found.append(f"{run.instance}: {run.solver} calls it infeasible; {known.solver} found {known.objective}")
    return tuple(found)


def generate(seed: int, models: int = 1, layers: int = 50, choices: int = 8) -> CostTable:
    """Make up a table whose costs hang together as measured ones do.

    The sizes of layers are log-normal, so is how much the loss feels them; a choice that is faster or
    smaller than another tends to lose more; part of every layer is bound by memory traffic, which fewer
    operations do not shorten.

    Args:
        seed: Seed; the same seed gives the same table.
        models: Number of models.
        layers: Layers of each model.
        choices: Choices of each layer, the first of them ``exact``.

    Returns:
        The table, said to be generated in its provenance.

    Raises:
        InputError: A number is less than 1.
    """
    if min(models, layers, choices) < 1 or seed < 0:
        raise InputError(f"got seed {seed}, {models} models, {layers} layers, {choices} choices; expected 1 or more")
    rng = np.random.default_rng(seed)
    # The share of operations and of bytes that each choice leaves, from mild to severe, and how severe it is.
    strength = np.sort(rng.uniform(0.0, 1.0, choices - 1))
    work = np.concatenate([[1.0], np.exp(-1.6 * strength * rng.uniform(0.5, 1.3, choices - 1))])
    size = np.concatenate([[1.0], np.exp(-2.2 * strength * rng.uniform(0.3, 1.3, choices - 1))])
    severity = np.concatenate([[0.0], 0.02 + 2.0 * strength**2])
    names = ("exact", *(f"made@{left:.3f}-{index}" for index, left in enumerate(work[1:], start=1)))
    catalogue = tuple(zip(names, work.tolist(), size.tolist(), severity.tolist(), strict=True))
    made = [
        ModelCosts(name=f"model{m}", layers=tuple(_made_layer(f"layer{i}", rng, catalogue) for i in range(layers)))
        for m in range(models)
    ]
    origin = {"source": "generated", "seed": seed, "models": models, "layers": layers, "choices": choices}
    return CostTable(models=tuple(made), provenance=origin)


def relative_budget(table: CostTable, latency: float = 0.6, memory: float = 0.5) -> Budget:
    """Allow shares of what the exact build takes.

    Where the table does not say that, as foreign ones do not, it is what the first choice of every layer costs, which
    is ``exact`` where there is one.

    Args:
        table: The costs.
        latency: Share of each model's latency.
        memory: Share of the memory of all models together.

    Returns:
        The budget.
    """
    chosen = {
        m.name: {
            layer.name: next((c.name for c in layer.choices if c.name == "exact"), layer.choices[0].name)
            for layer in m.layers
        }
        for m in table.models
    }
    exact = figures(table, chosen, Budget())
    whole = exact.latency_ns | {m.name: m.exact_latency_ns for m in table.models if m.exact_latency_ns is not None}
    known = [m.reference_bytes for m in table.models if m.reference_bytes is not None]
    size = sum(known) if len(known) == len(table.models) else exact.memory_bytes
    latencies = {model: f"{ns * latency / 1e6:.6f}" for model, ns in whole.items()}
    return Budget(latency_ms=latencies, memory_mib=size * memory / 2**20)


def _made_layer(
    name: str, rng: np.random.Generator, catalogue: Sequence[tuple[str, float, float, float]]
) -> LayerCosts:
    """Make up one layer: its own size and sensitivity, times what each choice of the catalogue leaves."""
    operations_ns, weight_bytes, activation_bytes, feels = np.exp(
        rng.normal([11.0, 11.5, 11.0, -6.0], [1.0, 1.3, 0.8, 1.5])
    ).tolist()
    traffic = float(rng.uniform(0.0, 0.5))
    made = []
    for choice, work, size, severity in catalogue:
        slower, larger, worse = np.exp(rng.normal(0.0, [0.08, 0.02, 0.5])).tolist()
        made.append(
            ChoiceCost(
                name=choice,
                latency_ns=round(operations_ns * (traffic + (1 - traffic) * work) * slower) + 1500,
                weight_bytes=round(weight_bytes * size * larger),
                loss=round(feels * severity * worse, 9),
                activation_bytes=round(activation_bytes),
            )
        )
    return LayerCosts(name=name, choices=tuple(made))


def _instances(
    tables: Mapping[str, CostTable] | Sequence[CostTable],
    budgets: Budget | Mapping[str, Budget] | Sequence[Budget],
) -> dict[str, tuple[CostTable, Budget]]:
    named = dict(tables) if isinstance(tables, Mapping) else {f"table{i}": t for i, t in enumerate(tables)}
    if not named:
        raise InputError("there are no tables to compare solvers on; expected at least one")
    if isinstance(budgets, Budget):
        return {name: (table, budgets) for name, table in named.items()}
    if isinstance(budgets, Mapping):
        lacking = [name for name in named if name not in budgets]
        if lacking:
            raise InputError(f"no budgets for the tables {lacking}; there are: {', '.join(budgets)}")
        return {name: (table, budgets[name]) for name, table in named.items()}
    if len(budgets) != len(named):
        raise InputError(f"{len(budgets)} budgets for {len(named)} tables; expected one for each")
    return {name: (table, budget) for (name, table), budget in zip(named.items(), budgets, strict=True)}


def _run(name: str, instance: str, table: CostTable, answer: Callable[[], Plan]) -> Run:
    begin = time.perf_counter()

    def without(status: str, error: Exception) -> Run:
        seconds = time.perf_counter() - begin
        return Run(solver=name, instance=instance, status=status, seconds=seconds, note=str(error))

    try:
        found = answer()
    except InfeasibleError as error:
        return without("infeasible", error)
    except LimitError as error:
        return without("limit", error)
    except InputError as error:
        if "refuses" not in str(error):
            raise
        return without("refused", error)
    wrong = check(found, table)
    return Run(
        solver=name,
        instance=instance,
        status=found.status,
        loss=found.loss,
        bound=found.bound,
        gap=found.gap,
        seconds=time.perf_counter() - begin,
        checked=not wrong,
        note="; ".join(wrong),
        objective=found.loss,
        versions=written_versions(found.versions),
    )


def written_versions(versions: Mapping[str, str]) -> str:
    """Write versions on one line.

    >>> written_versions({"ortools": "9.15", "numpy": "2.1"})
    'ortools 9.15, numpy 2.1'
    """
    return ", ".join(f"{name} {version}" for name, version in versions.items())
