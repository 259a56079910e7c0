"""What a solver answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["Solution", "Status"]


class Status(enum.StrEnum):
    """Say how far a solver came."""

    OPTIMAL = "optimal"
    """There is a choice, and proof that none is better."""
    FEASIBLE = "feasible"
    """There is a choice; a better one may exist."""
    INFEASIBLE = "infeasible"
    """There is proof that no choice keeps every capacity."""
    LIMIT = "limit"
    """The solver gave up before it found a choice; one may exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An answer, with the bound that always travels with it.

    Attributes:
        status: How far the solver came.
        choices: For each group, which of its options is chosen, from 0 within the group; None without one.
        objective: What the objective row costs, exactly; None without a choice.
        bound: No choice can cost less; None where nothing is known.
        seconds: Wall-clock time it took.
        solver: Who answered.
        bound_solver: Who gave the bound, where that is another.
        prices: For each row, what a unit of it costs in units of the objective, none negative, at which the
            Lagrangian function proves the bound, or most of it; None where there are none. Near this problem's
            capacities they say what the next unit is worth.
        versions: The versions of the packages that answered.
        note: How the answer was found, in words.

    >>> Solution(status=Status.OPTIMAL, choices=(1,), objective=7, bound=7).gap
    0.0
    """

    status: Status
    choices: tuple[int, ...] | None = None
    objective: int | None = None
    bound: int | None = None
    seconds: float = 0.0
    solver: str = ""
    bound_solver: str = ""
    prices: tuple[float, ...] | None = None
    versions: dict[str, str] = field(default_factory=dict, hash=False)
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse an answer that contradicts itself."""
        found = self.status in (Status.OPTIMAL, Status.FEASIBLE)
        if found != (self.choices is not None) or found != (self.objective is not None):
            raise ValueError(f"status {self.status} with choices {self.choices} and objective {self.objective}")
        if self.status is Status.OPTIMAL and self.bound != self.objective:
            raise ValueError(f"called optimal with objective {self.objective} and bound {self.bound}")
        if self.objective is not None and self.bound is not None and self.bound > self.objective:
            raise ValueError(f"the bound {self.bound} lies above the objective {self.objective}")
        if self.prices is not None and not all(0 <= price < float("inf") for price in self.prices):
            raise ValueError("a price is negative or not finite")

    @property
    def gap(self) -> float | None:
        """The share of the objective that might still be saved; None without a choice or a bound."""
        if self.objective is None or self.bound is None:
            return None
        return 0.0 if self.objective == self.bound else (self.objective - self.bound) / self.objective
