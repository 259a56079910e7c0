"""The best choice that a search without proof has found, and what is left of its limits."""

from __future__ import annotations

import time
from collections.abc import Sequence

from solvers.check import broken, floor, values
from solvers.problem import Problem
from solvers.solution import Solution, Status
from solvers.solver import Limits

__all__ = ["Incumbent"]


class Incumbent:
    """Keeps the best choice, and says when to stop.

    Attributes:
        objective: What the best choice costs; None without one.
        choices: That choice.
        work: What was done so far, in the unit of ``limits.work``.

    >>> from solvers.problem import Row
    >>> problem = Problem(start=[0, 2], rows=(Row(name="loss", options=[0, 1], costs=[5, 3]),))
    >>> best = Incumbent(problem, Limits())
    >>> best.offer(5, [0])
    >>> best.ended(), best.answer().objective, best.answer().bound
    (False, 5, 3)
    """

    def __init__(self, problem: Problem, limits: Limits) -> None:
        """Start the clock."""
        self.objective: int | None = None
        self.choices: tuple[int, ...] = ()
        self.work = 0
        self._problem = problem
        self._limits = limits
        self._floor = floor(problem)
        self._begin = time.perf_counter()

    def offer(self, objective: int, choices: Sequence[int]) -> None:
        """Keep a choice that breaks nothing, if it is the best so far."""
        if self.objective is None or objective < self.objective:
            self.objective, self.choices = objective, tuple(choices)
            if self._limits.watch is not None:
                self._limits.watch(time.perf_counter() - self._begin, objective, self._floor)

    def late(self) -> bool:
        """Return whether the time is over."""
        return time.perf_counter() - self._begin >= self._limits.time_s

    def ended(self) -> bool:
        """Return whether a limit is reached, or the best choice is good enough."""
        if self.objective is not None and self.objective - self._floor <= self._limits.gap * self.objective:
            return True
        return (self._limits.work is not None and self.work >= self._limits.work) or self.late()

    def answer(self) -> Solution:
        """Return the best choice, looked at once more by itself, with the bound that needs no solver."""
        if self.objective is None or broken(self._problem, self.choices):
            return Solution(status=Status.LIMIT, bound=self._floor)
        objective = values(self._problem, self.choices)[self._problem.objective]
        status = Status.OPTIMAL if objective == self._floor else Status.FEASIBLE
        return Solution(status=status, choices=self.choices, objective=objective, bound=self._floor)
