"""Say why there is no plan: which bounds conflict, and the least by which they would have to give way."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context

from planner.formulation import LOSS, Formulation
from solvers import Solver
from solvers.questions.conflict import conflict

__all__ = ["Explanation", "Relaxation", "explain"]

_NAMED = 6
"""How many layers a message names; all of them stand in the explanation."""


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
        layers: Model and name of layers that by themselves cannot keep the bounds in conflict, even if all other layers
            cost nothing.
        layers_minimal: Whether it is proven that without any one of these layers the bounds could be kept.
        of_layers: How many layers there are.

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
    layers: tuple[tuple[str, str], ...] = ()
    layers_minimal: bool = False
    of_layers: int = 0

    def __str__(self) -> str:
        """Write the conflict, then what each bound would have to be."""
        if not self.conflict:
            return "\n".join(
                [
                    "no plan exists, whatever is allowed: the formats of the layers' choices exclude each other",
                    *self._forced(),
                ]
            )
        together = (
            "no plan keeps these bounds together"
            if len(self.conflict) > 1 or self.relaxations == ()
            else "no plan keeps this bound"
        )
        lines = [f"{together}: {', '.join(self.conflict)}", *self._forced()]
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

    def _forced(self) -> list[str]:
        """Name the layers that force it, in one line; none where it takes all of them."""
        if not self.layers or len(self.layers) >= self.of_layers:
            return []
        several = max(len(self.least_latency_ms), len({model for model, _ in self.layers})) > 1
        names = [f"{model}/{layer}" if several else layer for model, layer in self.layers]
        named = ", ".join(names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        layers = "layer" if len(names) == 1 else "layers"
        return [f"forced by {layers} {named}{more}, even if the other layers cost nothing"]


def explain(
    formulation: Formulation,
    solver: Solver,
    *,
    time_limit_s: float = 10.0,
    seed: int = 0,
    workers: int | None = None,
) -> Explanation:
    """Find out why a problem that is proven infeasible is so.

    Args:
        formulation: The infeasible problem and what it means.
        solver: An exact solver.
        time_limit_s: Seconds for all of it; what is not settled by then says so.
        seed: Seed of the solver.
        workers: Threads.

    Returns:
        The explanation.
    """
    found = conflict(
        formulation.problem,
        solver,
        also=range(1, formulation.memory + 1),
        time_limit_s=time_limit_s,
        seed=seed,
        workers=workers,
    )

    def meaning(row: int, value: int | None) -> float | None:
        return None if value is None else float(formulation.meaning(row, value))

    least = {row: float(formulation.meaning(row, value)) for row, value in found.least.items()}
    return Explanation(
        conflict=tuple(formulation.describe(row) for row in found.rows),
        minimal=found.minimal,
        relaxations=tuple(
            Relaxation(
                name=formulation.describe(need.row),
                unit=_unit(formulation, need.row),
                bound=float(formulation.meaning(need.row, need.capacity)),
                alone=meaning(need.row, need.alone),
                given_others=meaning(need.row, need.given_others),
                settled=need.settled,
            )
            for need in found.needs
        ),
        uniform=None if found.uniform is None else float(found.uniform),
        least_latency_ms={
            model: least[1 + index] for index, model in enumerate(formulation.models) if 1 + index in least
        },
        least_memory_mib=least.get(formulation.memory),
        layers=tuple(
            (formulation.groups[group].model, layer)
            for group in found.groups
            for layer in formulation.groups[group].layers
        ),
        layers_minimal=found.groups_minimal,
        of_layers=sum(len(group.layers) for group in formulation.groups),
    )


def _unit(formulation: Formulation, row: int) -> str:
    if row == LOSS:
        return ""
    return "MiB" if row == formulation.memory else "ms"


def _up(value: float, digits: int = 9) -> str:
    """Write a number with few digits, rounded up: a bound that is copied from a message must be enough."""
    return format(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value)).normalize(), "f")
