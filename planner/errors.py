"""The ways to end without a plan, one exception for each exit status of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.infeasible import Explanation

__all__ = ["InfeasibleError", "InputError", "LimitError"]


class InputError(ValueError):
    """Say that something handed in is wrong: what was got, expected, and what exists (exit status 2)."""


class InfeasibleError(Exception):
    """Say that no plan keeps every bound, and why (exit status 3).

    Attributes:
        explanation: The bounds in conflict and the least relaxations, or None where only the fact is known.
    """

    def __init__(self, message: str, explanation: Explanation | None = None) -> None:
        """Keep the message and the explanation behind it."""
        super().__init__(message)
        self.explanation = explanation


class LimitError(Exception):
    """Say that the solver's time ended before it found any plan; there may be one (exit status 4)."""
