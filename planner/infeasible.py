"""Say why there is no plan: which bounds conflict, and the least by which they would have to give way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context
from fractions import Fraction

from planner.formulation import LOSS, Formulation
from solvers import Solution, Solver, Status
from solvers.check import values

__all__ = ["Explanation", "Relaxation", "explain"]

_RESOLUTION = 1e-4
_LEAST_CALL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """State what one bound would have to be.

    Attributes:
        name: What is bound: ``latency of quick``, ``memory`` or ``loss``.
        unit: ``ms``, ``MiB`` or nothing.
        bound: What is allowed.
        alone: The least there is if nothing else were bound; None where the time ended first.
        given_others: The least there is if all other bounds are kept; None where there is none, or the time
            ended.
        settled: Whether ``given_others`` is known: with None, that loosening this bound alone does not help.

    >>> print(Relaxation(name="memory", unit="MiB", bound=0.5, alone=0.25, given_others=0.75, settled=True))
    memory: 0.5 MiB allowed; at least 0.25 MiB alone, 0.75 MiB if the other bounds stay
    """

    name: str
    unit: str
    bound: float
    alone: float | None
    given_others: float | None
    settled: bool

    def __str__(self) -> str:
        """Write it as one line."""
        unit = f" {self.unit}" if self.unit else ""
        alone = "not settled in the time" if self.alone is None else f"at least {_up(self.alone)}{unit} alone"
        if self.given_others is not None:
            given = f"{_up(self.given_others)}{unit} if the other bounds stay"
        else:
            given = "loosening it alone does not help" if self.settled else "what it needs was not settled in the time"
        return f"{self.name}: {self.bound:.9g}{unit} allowed; {alone}, {given}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Say why there is no plan.

    Attributes:
        conflict: Bounds that cannot be kept together, and could be if any one of them were dropped.
        minimal: Whether that last part is proven.
        relaxations: For each bound, the least it would have to be.
        uniform: The factor by which all bounds would have to grow, to one in ten thousand; None if not found.
        least_latency_ms: The least latency of each model alone.
        least_memory_mib: The least memory of all models together alone.

    >>> print(
    ...     Explanation(
    ...         conflict=("memory",),
    ...         minimal=True,
    ...         relaxations=(),
    ...         uniform=1.25,
    ...         least_latency_ms={},
    ...         least_memory_mib=None,
    ...     )
    ... )
    no plan keeps these bounds together: memory
    all bounds multiplied by 1.25 can be kept
    """

    conflict: tuple[str, ...]
    minimal: bool
    relaxations: tuple[Relaxation, ...]
    uniform: float | None
    least_latency_ms: dict[str, float] = field(hash=False)
    least_memory_mib: float | None

    def __str__(self) -> str:
        """Write the conflict, then what each bound would have to be."""
        if not self.conflict:
            return "no plan exists, whatever is allowed: the formats of the layers' choices exclude each other"
        together = (
            "no plan keeps these bounds together"
            if len(self.conflict) > 1 or self.relaxations == ()
            else "no plan keeps this bound"
        )
        lines = [f"{together}: {', '.join(self.conflict)}"]
        lines += [str(relaxation) for relaxation in self.relaxations]
        bounded = {relaxation.name for relaxation in self.relaxations}
        lines += [
            f"latency of {model}: not bound; at least {_up(least)} ms alone"
            for model, least in self.least_latency_ms.items()
            if f"latency of {model}" not in bounded
        ]
        if self.least_memory_mib is not None and "memory" not in bounded:
            lines.append(f"memory: not bound; at least {_up(self.least_memory_mib)} MiB alone")
        if self.uniform is not None:
            lines.append(f"all bounds multiplied by {_up(self.uniform, 6)} can be kept")
        return "\n".join(lines)


def explain(
    formulation: Formulation,
    solver: Solver,
    *,
    time_limit_s: float = 10.0,
    seed: int = 0,
    workers: int | None = None,
) -> Explanation:
    """Find out why a problem that is proven infeasible is so.

    The conflict is found by leaving out one bound after another and keeping it left out while there is still
    no plan (deletion filter: J. Chinneck and E. Dravnieks, Locating minimal infeasible constraint sets,
    ORSA J. Computing 3, 1991).

    Args:
        formulation: The infeasible problem and what it means.
        solver: An exact solver.
        time_limit_s: Seconds for all of it; what is not settled by then says so.
        seed: Seed of the solver.
        workers: Threads.

    Returns:
        The explanation.
    """
    ask = _Questions(formulation, solver, time_limit_s, seed, workers)
    bound_rows = list(formulation.problem.bound_rows)
    alone = {row: ask.least(row, kept=()) for row in range(1, formulation.memory + 1)}
    if LOSS in bound_rows:
        alone[LOSS] = ask.least(LOSS, kept=())
    conflict, minimal = list(bound_rows), True
    for row in bound_rows:
        rest = [other for other in conflict if other != row]
        status = ask.feasible(rest)
        if status is Status.INFEASIBLE:
            conflict = rest
        minimal = minimal and status is not Status.LIMIT
    relaxations, achieved = [], {}
    for row in bound_rows:
        given = ask.answer(row, kept=[other for other in bound_rows if other != row])
        if given.choices is not None:
            achieved[row] = given
        least = given.objective if given.status is Status.OPTIMAL else None
        relaxations.append(
            Relaxation(
                name=formulation.describe(row),
                unit=_unit(formulation, row),
                bound=ask.meaning(row, formulation.problem.rows[row].capacity),
                alone=None if alone[row] is None else ask.meaning(row, alone[row]),
                given_others=None if least is None else ask.meaning(row, least),
                settled=given.status in (Status.OPTIMAL, Status.INFEASIBLE),
            )
        )
    return Explanation(
        conflict=tuple(formulation.describe(row) for row in conflict),
        minimal=minimal,
        relaxations=tuple(relaxations),
        uniform=ask.uniform(bound_rows, achieved) if conflict else None,
        least_latency_ms={
            model: ask.meaning(1 + index, alone[1 + index])
            for index, model in enumerate(formulation.models)
            if alone[1 + index] is not None
        },
        least_memory_mib=None
        if alone[formulation.memory] is None
        else ask.meaning(formulation.memory, alone[formulation.memory]),
    )


class _Questions:
    """Questions about one problem with other capacities, all within one time."""

    def __init__(
        self, formulation: Formulation, solver: Solver, time_limit_s: float, seed: int, workers: int | None
    ) -> None:
        self.formulation = formulation
        self.problem = formulation.problem
        self.solver = solver
        self.deadline = time.perf_counter() + time_limit_s
        self.seed = seed
        self.workers = workers

    def meaning(self, row: int, value: int | None) -> float:
        """Turn a value of a row into the user's unit."""
        return float(self.formulation.meaning(row, value or 0))

    def answer(self, row: int, kept: list[int] | tuple[int, ...], factor: Fraction | None = None) -> Solution:
        """Minimise one row while the capacities of others are kept, perhaps multiplied by a factor."""
        left = self.deadline - time.perf_counter()
        if left < _LEAST_CALL_S:
            return Solution(status=Status.LIMIT)
        capacities: list[int | None] = [None] * len(self.problem.rows)
        for index in kept:
            capacity = self.problem.rows[index].capacity
            if capacity is not None:
                capacities[index] = capacity if factor is None else int(capacity * factor)
        problem = self.problem.with_capacities(capacities, objective=row)
        return self.solver.solve(problem, time_limit_s=left, seed=self.seed, workers=self.workers)

    def least(self, row: int, kept: tuple[int, ...]) -> int | None:
        """Return the least value of a row, or None where it was not proven in time."""
        solution = self.answer(row, kept)
        return solution.objective if solution.status is Status.OPTIMAL else None

    def feasible(self, kept: list[int]) -> Status:
        """Tell whether these capacities can be kept together."""
        return self.answer(kept[0] if kept else LOSS, kept).status

    def uniform(self, bound_rows: list[int], achieved: dict[int, Solution]) -> float | None:
        """Return the least factor by which all capacities together must grow, by halving."""
        factors = [self._factor(solution.choices, bound_rows) for solution in achieved.values()]
        high = min((factor for factor in factors if factor is not None), default=None)
        low, trial = Fraction(1), Fraction(2)
        while high is None and trial < 2**20:
            solution = self.answer(bound_rows[0], bound_rows, trial)
            if solution.status is Status.LIMIT:
                return None
            low = trial if solution.choices is None else low
            high = self._factor(solution.choices, bound_rows)
            trial *= 4
        while high is not None and high > low * Fraction(1 + _RESOLUTION):
            middle = (low + high) / 2
            solution = self.answer(bound_rows[0], bound_rows, middle)
            if solution.status is Status.LIMIT:
                break
            if solution.choices is None:
                low = middle
            else:
                high = min(high, self._factor(solution.choices, bound_rows) or high)
        return None if high is None else float(high)

    def _factor(self, choices: tuple[int, ...] | None, bound_rows: list[int]) -> Fraction | None:
        """Return by what the capacities must be multiplied so that these choices keep them."""
        if choices is None:
            return None
        taken = values(self.problem, choices)
        ratios = []
        for row in bound_rows:
            capacity = self.problem.rows[row].capacity or 0
            if capacity <= 0:
                return None
            ratios.append(Fraction(taken[row], capacity))
        return max(ratios)


def _unit(formulation: Formulation, row: int) -> str:
    if row == LOSS:
        return ""
    return "MiB" if row == formulation.memory else "ms"


def _up(value: float, digits: int = 9) -> str:
    """Write a number with few digits, rounded up: a bound that is copied from a message must be enough."""
    return format(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value)).normalize(), "f")
