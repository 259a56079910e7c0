"""Make a plan: formulate, solve, look again at what the solver says, and explain where there is no plan."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NoReturn

import solvers
from costmodels import CostTable
from planner.budget import Budget
from planner.domination import Dominated, instead, undominated
from planner.errors import InfeasibleError, InputError, LimitError
from planner.figures import Choices, Figures, figures
from planner.fitting import Found, fitted
from planner.formulate import formulate
from planner.formulation import Arena, Formulation, Objective
from planner.infeasible import explain
from planner.plan import Plan, PlannedLayer, expected_ns
from planner.predicting import predicted
from solvers import Solution, Solver, Status

__all__ = ["find_solver", "plan", "planned"]

_EXPLAIN_S = 10.0


def plan(
    table: CostTable,
    budget: Budget,
    solver: str | Solver = "auto",
    *,
    objective: Objective = "loss",
    time_limit_s: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
    hint: Choices | None = None,
    explains: bool = True,
) -> Plan:
    """Pick one choice for every layer of every model, so that the objective is least and every bound is kept.

    Args:
        table: What choices cost.
        budget: What may be spent.
        solver: Name of the solver, or a solver.
        objective: What is minimised: ``loss`` (of all models together), ``worst`` (the loss of the model that loses
            most), ``latency`` (of all models together) or ``memory``. Among plans that are equal in the last three,
            the one of least loss that is found.
        time_limit_s: Wall-clock seconds for solving; where there is no plan, up to 10 s more for the reason.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.
        hint: Choices to start from, such as another plan's.
        explains: Whether to look for the reason where there is no plan.

    Returns:
        The plan.

    Raises:
        InfeasibleError: No plan keeps every bound; the explanation says which bounds conflict.
        LimitError: The limit came before any plan.
        InputError: The budget, the solver's name or the limits are wrong.
    """
    begin = time.perf_counter()
    chosen_solver = find_solver(solver)
    try:
        solvers.Limits(time_s=time_limit_s, seed=seed, workers=workers)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    less, dropped = undominated(table, spread=budget.latency_quantile > 0.5)
    search = _Search(
        table=less,
        budget=budget,
        objective=objective,
        solver=chosen_solver,
        deadline=begin + time_limit_s,
        seed=seed,
        workers=workers,
        explains=explains,
    )
    try:
        start = None if hint is None else instead(hint, dropped)
        found = fitted(less, budget, objective, search.seek, search.value, start)
    except solvers.RefusedError as error:
        raise InputError(f"the solver {chosen_solver.name!r} refuses: {error}") from None
    return planned(
        table,
        budget,
        found,
        objective=objective,
        solver=chosen_solver.name,
        seconds=time.perf_counter() - begin,
        dropped=dropped,
    )


def find_solver(name: str | Solver) -> Solver:
    """Return the solver of that name, or raise InputError listing those that exist; a solver is returned as it is."""
    if isinstance(name, Solver):
        return name
    try:
        return solvers.get(name)
    except solvers.UnknownSolverError as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What is sought, in which time."""

    table: CostTable
    budget: Budget
    objective: Objective
    solver: Solver
    deadline: float
    seed: int
    workers: int | None
    explains: bool
    arena: Arena = "most"

    def seek(self, table: CostTable, arena: Arena, hint: Choices | None, *, explains: bool) -> Found:
        """Solve with another table or another view of what is alive."""
        search = replace(self, table=table, arena=arena, explains=self.explains and explains)
        return search.robust(hint) if search.is_robust else search.plain(hint)

    @property
    def is_robust(self) -> bool:
        """Whether a quantile above the median is to be kept, and the table has spreads."""
        spread = any(c.latency_std_ns for m in self.table.models for la in m.layers for c in la.choices)
        return self.budget.latency_quantile > 0.5 and spread

    def formulate(self, **more: object) -> Formulation:
        """Formulate what is sought."""
        return formulate(self.table, self.budget, self.objective, arena=self.arena, **more)  # type: ignore[arg-type]

    def solve(self, formulation: Formulation, hint: Choices | None) -> Solution:
        """Solve in the time that is left."""
        return self.solver.solve(
            formulation.problem,
            time_limit_s=max(0.05, self.deadline - time.perf_counter()),
            seed=self.seed,
            workers=self.workers,
            hint=None if hint is None else formulation.chosen(hint),
        )

    def plain(self, hint: Choices | None) -> Found:
        """Solve once; where rounding narrows the bound on the loss, a second time for a bound that holds."""
        formulation = self.formulate()
        rounded = self.budget.loss is not None and formulation.loss_error > 0
        solution = self.solve(formulation, hint)
        bound, proven = self._bound(formulation, solution)
        if rounded:
            # Rounding up loses plans that just keep the bound on the loss: what is proven, and that
            # there is no plan, is asked of the problem whose losses are rounded down.
            twin = self.formulate(side="optimistic")
            relaxed = self.solve(twin, hint)
            bound, _ = self._bound(twin, relaxed)
            proven = proven and bound is not None and solution.objective is not None
            proven = proven and self._same(formulation, solution, twin, relaxed)
            if solution.choices is None:
                self._give_up(twin, relaxed)
        if solution.choices is None:
            self._give_up(formulation, solution)
        chosen = formulation.choices(solution.choices or ())
        return Found(choices=chosen, bound=bound, proven=proven, how=solution.note)

    def _same(self, safe: Formulation, solution: Solution, twin: Formulation, relaxed: Solution) -> bool:
        """Tell whether the relaxed problem proves the solution: nothing lies below it but rounding."""
        if relaxed.bound is None or solution.objective is None:
            return False
        row = safe.problem.objective
        value = safe.meaning(row, solution.objective)
        return value - twin.meaning(row, relaxed.bound) <= (safe.loss_error if safe.is_loss(row) else 0)

    def robust(self, hint: Choices | None) -> Found:
        """Keep a quantile: rounded down, variances prove what holds; rounded up, they give what keeps it.

        Nearly always what the first finds keeps the quantile as it is.
        """
        twin = self.formulate(side="optimistic")
        relaxed = self.solve(twin, hint)
        if relaxed.status is Status.INFEASIBLE:
            self._give_up(twin, relaxed)
        bound, _ = self._bound(twin, relaxed)
        safe = self.formulate()
        kept = [] if relaxed.choices is None else [twin.choices(relaxed.choices)]
        kept = [choices for choices in kept if not figures(self.table, choices, self.budget).broken(self.budget)]
        if not kept:
            solution = self.solve(safe, hint)
            if solution.choices is None:
                if solution.status is Status.INFEASIBLE and relaxed.choices is not None:
                    raise LimitError("a plan keeps the bounds but for rounding, and none was found that keeps them")
                self._give_up(safe, replace(solution, status=Status.LIMIT))
            kept = [safe.choices(solution.choices)]
        value = self.value(figures(self.table, kept[0], self.budget))
        error = safe.loss_error if safe.is_loss(safe.problem.objective) else Fraction(0)
        return Found(choices=kept[0], bound=bound, proven=bound is not None and value - bound <= error)

    def value(self, figure: Figures) -> Fraction:
        """Return the objective in the user's unit."""
        return _value(self.objective, figure)

    def _bound(self, formulation: Formulation, solution: Solution) -> tuple[Fraction | None, bool]:
        """Return a bound on the objective of the table as it is: less what rounding up may have added."""
        if solution.bound is None:
            return None, False
        row = formulation.problem.objective
        bound = formulation.meaning(row, solution.bound)
        if formulation.is_loss(row):
            bound -= formulation.loss_error
        return max(Fraction(0), bound), solution.status is Status.OPTIMAL

    def _give_up(self, formulation: Formulation, solution: Solution) -> NoReturn:
        """Say why there is no plan: proven, or not settled in time."""
        if solution.status is Status.INFEASIBLE and not self.explains:
            raise InfeasibleError(f"no plan keeps the bounds: {self.budget}")
        if solution.status is Status.INFEASIBLE:
            explanation = explain(
                formulation, self.solver, time_limit_s=_EXPLAIN_S, seed=self.seed, workers=self.workers
            )
            raise InfeasibleError(str(explanation), explanation)
        if not self.solver.capabilities.exact:
            raise LimitError(
                f"{self.solver.name} found no plan and cannot tell whether there is one; exact solvers can: "
                + ", ".join(name for name in solvers.available() if solvers.get(name).capabilities.exact)
            )
        raise LimitError(
            f"the time limit came before {self.solver.name} found any plan; there may be one: allow more time"
        )


def _value(objective: Objective, figure: Figures) -> Fraction:
    if objective == "loss":
        return figure.loss
    if objective == "worst":
        return max(figure.losses.values())
    if objective == "memory":
        return Fraction(figure.memory_bytes, 2**20)
    return Fraction(sum(figure.latency_ns.values()), 10**6)


def planned(
    table: CostTable,
    budget: Budget,
    found: Found,
    *,
    objective: Objective,
    solver: str,
    seconds: float,
    dropped: tuple[Dominated, ...] = (),
) -> Plan:
    """Make a plan of choices; its figures are recomputed from the table.

    Args:
        table: What choices cost.
        budget: What may be spent.
        found: The choices, and what is proven of them.
        objective: What was minimised.
        solver: The name of the solver that found them.
        seconds: How long it took.
        dropped: Choices that were left out before.

    Raises:
        RuntimeError: The choices do not keep the budget.
    """
    exact = figures(table, found.choices, budget)
    wrong = exact.broken(budget)
    if wrong:
        raise RuntimeError(f"the choices of {solver} break the budget when added up: {'; '.join(wrong)}")
    value = _value(objective, exact)
    bound = None if found.bound is None else min(found.bound, value)
    gap = None if bound is None else (value - bound) / value if value != bound else Fraction(0)
    layers = []
    for model in table.models:
        for layer in model.layers:
            cost = layer.choice(found.choices[model.name][layer.name])
            layers.append(
                PlannedLayer(
                    model=model.name,
                    layer=layer.name,
                    choice=cost.name,
                    latency_ns=model.scaled_ns(cost),
                    weight_bytes=cost.weight_bytes,
                    activation_bytes=cost.activation_bytes,
                    loss=cost.loss,
                )
            )
    return Plan(
        layers=tuple(layers),
        loss=float(exact.loss),
        bound=None if bound is None else float(bound),
        gap=None if gap is None else float(gap),
        status="optimal" if found.proven or gap == 0 else "feasible",
        objective=objective,
        latency_ns=exact.latency_ns,
        weight_bytes=exact.weight_bytes,
        arena_bytes=exact.arena_bytes,
        budget=budget,
        table_digest=table.digest,
        solver=solver,
        how=found.how,
        seconds=seconds,
        versions=_versions(),
        refit=table.refit,
        exact_latency_ns={m.name: m.exact_latency_ns for m in table.models if m.exact_latency_ns is not None},
        sources=_sources(table),
        dropped=dropped,
        predicted=predicted(table, found.choices),
        expected_ns=expected_ns(table, found.choices),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("blinkplan", "ortools", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _sources(table: CostTable) -> dict[str, str]:
    """Find in a table's provenance which file each model was read from; foreign tables do not say."""
    noted = table.provenance.get("models")
    if not isinstance(noted, Mapping):
        return {}
    found = {name: about.get("source_sha256") for name, about in noted.items() if isinstance(about, Mapping)}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}
