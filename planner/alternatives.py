"""Plans that are as good as the best, or nearly so."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction

import solvers
from costmodels import CostTable
from planner.budget import Budget
from planner.errors import InfeasibleError, InputError, LimitError
from planner.fitting import Found
from planner.formulate import formulate
from planner.formulation import Objective
from planner.plan import Plan
from planner.planning import find_solver, planned
from planner.whatif import diff
from solvers.questions.near import near

__all__ = ["Alternatives", "alternatives"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """Plans that are nearly as good as the best, the best first.

    Attributes:
        plans: The plans.
        complete: Whether it is proven that there is no other plan that is as good as was asked for.
        ranked: Whether it is proven that no plan that is left out is better than one that is there.

    >>> print(Alternatives(plans=(), complete=True, ranked=True))
    no plans
    """

    plans: tuple[Plan, ...]
    complete: bool
    ranked: bool

    def __str__(self) -> str:
        """Write one line a plan: what it costs, and where it differs from the first."""
        if not self.plans:
            return "no plans"
        lines = []
        for number, found in enumerate(self.plans, start=1):
            latencies = "".join(f", {model} {ms:.6g} ms" for model, ms in found.latency_ms.items())
            changed = [f"{model}/{layer}: {new}" for model, layer, _, new in diff(self.plans[0], found).changed]
            costs = f"{number}. loss {found.loss:.6g}{latencies}, {found.memory_mib:.6g} MiB"
            lines.append(f"{costs}; {', '.join(changed)}" if changed else costs)
        if not self.complete:
            lines.append("there may be more" if self.ranked else "there may be more, and better ones")
        return "\n".join(lines)


def alternatives(
    table: CostTable,
    budget: Budget,
    within: float = 0.0,
    most: int = 20,
    *,
    share: float = 0.0,
    solver: str = "auto",
    objective: Objective = "loss",
    time_limit_s: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
) -> Alternatives:
    """List the plans whose objective is no more than a little above the least, those that are equal among them.

    Choices that others of their layer beat in everything count too: a plan may take them and be as good. What is alive
    counts at the most that it can come to, so that a plan whose layers fit together better than that may be missing.

    Args:
        table: What choices cost.
        budget: What may be spent.
        within: How far above the least, in the objective's unit: loss, milliseconds or MiB.
        most: How many plans to return at most, the best of them.
        share: The same as a share of the least; the larger of the two counts.
        solver: Name of an exact solver.
        objective: What is minimised.
        time_limit_s: Wall-clock seconds.
        seed: Seed of the solver.
        workers: Threads; None takes those the machine has.

    Returns:
        The plans.

    Raises:
        InfeasibleError: No plan keeps every bound.
        LimitError: The limit came before any plan.
        InputError: A number or the solver's name is wrong, or the solver is not exact.
    """
    begin = time.perf_counter()
    chosen = find_solver(solver)
    if not chosen.capabilities.exact:
        raise InputError(f"the solver {solver!r} proves nothing, so that others may be better; expected an exact one")
    formulation = formulate(table, budget, objective)
    unit = formulation.meaning(formulation.problem.objective, 1)
    try:
        found = near(
            formulation.problem,
            chosen,
            within=int(Fraction(within) / unit),
            share=Fraction(share),
            most=most,
            time_limit_s=time_limit_s,
            seed=seed,
            workers=workers,
        )
    except solvers.RefusedError as error:
        raise InputError(f"the solver {solver!r} refuses: {error}") from None
    except (ValueError, OverflowError) as error:
        raise InputError(str(error)) from None
    if not found.choices:
        if found.complete:
            raise InfeasibleError(f"no plan keeps the bounds: {budget}")
        raise LimitError(f"the time limit came before {solver} found any plan; there may be one: allow more time")
    seconds = time.perf_counter() - begin
    least = formulation.meaning(formulation.problem.objective, found.objectives[0]) if found.ranked else None
    plans = [
        planned(
            table,
            budget,
            Found(
                choices=formulation.choices(choices),
                bound=None if least is None else max(Fraction(0), least - formulation.loss_error),
                proven=found.ranked and value == found.objectives[0],
            ),
            objective=objective,
            solver=chosen.name,
            seconds=seconds,
        )
        for choices, value in zip(found.choices, found.objectives, strict=True)
    ]
    return Alternatives(plans=tuple(plans), complete=found.complete, ranked=found.ranked)
