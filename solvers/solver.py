"""What a solver is, and how one is found: every module of this folder that declares what it can do."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from solvers.check import verify
from solvers.problem import Problem
from solvers.solution import Solution

__all__ = [
    "Capabilities",
    "Limits",
    "RefusedError",
    "Solver",
    "UnknownSolverError",
    "available",
    "get",
    "missing",
]


class UnknownSolverError(ValueError):
    """Say that there is no solver of that name, or that what it needs is not installed."""


class RefusedError(ValueError):
    """Say that a problem is beyond what a solver takes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Declare what a solver can do.

    Attributes:
        exact: Given time, it proves the best choice or that there is none.
        hints: It makes use of a choice handed to it as a start.
        needs: The packages it imports when it solves.

    >>> Capabilities(exact=True).needs
    ()
    """

    exact: bool
    hints: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Say how long a solver may take and on what.

    Attributes:
        time_s: Wall-clock seconds; the best answer so far is returned after them.
        seed: Seed of whatever is random in it.
        workers: Threads; None takes those the machine has.

    >>> Limits(time_s=10.0).seed
    0
    """

    time_s: float = 30.0
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing."""
        if not self.time_s > 0 or self.time_s == float("inf"):
            raise ValueError(f"the time limit is {self.time_s} s; expected a positive, finite number")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"the seed is {self.seed}; expected 0 or more, below 2^31")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected 1 or more")


class _Answer(Protocol):
    def __call__(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A solver under its name; its answers are checked before anyone sees them.

    >>> get("exhaustive").capabilities.exact
    True
    """

    name: str
    capabilities: Capabilities
    answer: _Answer

    def solve(
        self,
        problem: Problem,
        *,
        time_limit_s: float = 30.0,
        seed: int = 0,
        workers: int | None = None,
        hint: Sequence[int] | None = None,
    ) -> Solution:
        """Solve a problem.

        Args:
            problem: The problem.
            time_limit_s: Wall-clock seconds after which the best answer so far is returned.
            seed: Seed of whatever is random.
            workers: Threads; None takes those the machine has.
            hint: A choice to start from, one option for each group; it need not keep the capacities.

        Returns:
            The answer, checked in exact arithmetic.

        Raises:
            RefusedError: The problem is beyond what this solver takes on.
            WrongAnswerError: The answer is not what the solver claims.
        """
        begin = time.perf_counter()
        limits = Limits(time_s=time_limit_s, seed=seed, workers=workers)
        solution = self.answer(problem, limits, None if hint is None else tuple(hint))
        solution = replace(solution, seconds=time.perf_counter() - begin, solver=self.name)
        verify(problem, solution)
        return solution


def available() -> tuple[str, ...]:
    """List the solvers whose packages are installed, in alphabetical order.

    >>> "cpsat" in available()
    True
    """
    return tuple(name for name, lacking in _all().items() if not lacking)


def missing() -> dict[str, tuple[str, ...]]:
    """Map each solver that cannot run to the packages it lacks."""
    return {name: lacking for name, lacking in _all().items() if lacking}


def get(name: str) -> Solver:
    """Return the solver of that name.

    Raises:
        UnknownSolverError: There is none, or its package is missing; the message lists those that exist.
    """
    known = _all()
    if name not in known:
        raise UnknownSolverError(f"unknown solver {name!r}; there are: {', '.join(available())}")
    if known[name]:
        needed = ", ".join(known[name])
        raise UnknownSolverError(f"solver {name!r} needs {needed}; there are: {', '.join(available())}")
    module = importlib.import_module(f"solvers.{name}")
    return Solver(name=name, capabilities=module.CAPABILITIES, answer=module.solve)


def _all() -> dict[str, tuple[str, ...]]:
    """Map each solver to the packages it lacks; a module is a solver where it declares CAPABILITIES."""
    found = {}
    for entry in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda entry: entry.name):
        capabilities = getattr(importlib.import_module(f"solvers.{entry.name}"), "CAPABILITIES", None)
        if capabilities is not None:
            found[entry.name] = tuple(n for n in capabilities.needs if importlib.util.find_spec(n) is None)
    return found
