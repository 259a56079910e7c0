"""What a solver is, and how one is found: every module of this folder that declares what it can do."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from solvers.check import values, verify
from solvers.problem import Problem
from solvers.reduction import reduce
from solvers.solution import Solution, Status

__all__ = [
    "Answer",
    "Capabilities",
    "Limits",
    "RefusedError",
    "Solver",
    "UnknownSolverError",
    "Watch",
    "available",
    "get",
    "in_turn",
    "missing",
]

Watch = Callable[[float, int | None, int | None], None]
"""Is told the seconds so far, the best objective and the bound; None where there is none yet."""


class UnknownSolverError(ValueError):
    """Say that there is no solver of that name, or that what it needs is not installed."""


class RefusedError(ValueError):
    """Say that a problem is beyond what a solver takes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Declare what a solver can do.

    Ties, forbidden options and several objectives in turn are no matter of solvers: problems are reduced to ones
    without before any solver sees them, and solved one objective after the other.

    Attributes:
        exact: Given time, it proves the best choice or that there is none.
        bound: It says what no choice can undercut, beyond what is seen without solving.
        pairs: It takes problems with pairs.
        peaks: It takes problems with peaks as they are; others are handed problems without, one after the other, where
            every peak is that of a single option.
        spreads: It takes rows with a spread as they are; others are handed problems without, one after the other,
            between which the answer lies.
        any_rows: It takes any number of bound rows that concern any options.
        hints: It makes use of a choice handed to it as a start.
        deterministic: It knows a limit of work, under which it answers alike on every machine.
        traces: It tells of every improvement while it solves.
        needs: The packages it imports when it solves.

    >>> Capabilities(exact=True).needs
    ()
    """

    exact: bool
    bound: bool = True
    pairs: bool = True
    peaks: bool = True
    spreads: bool = False
    any_rows: bool = True
    hints: bool = False
    deterministic: bool = False
    traces: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Say how long a solver may take and on what.

    Attributes:
        time_s: Wall-clock seconds; the best answer so far is returned after them.
        seed: Seed of whatever is random in it.
        workers: Threads; None takes those the machine has.
        gap: The share of the objective that may be left unproven: with it reached, the solver stops.
        work: How much it may do, in a unit of its own that does not depend on the machine; None for no such limit.
        watch: Is told the seconds so far, the best objective and the bound, each time one of them gets better.

    >>> Limits(time_s=10.0).seed
    0
    """

    time_s: float = 30.0
    seed: int = 0
    workers: int | None = None
    gap: float = 0.0
    work: float | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing."""
        if not self.time_s > 0 or self.time_s == float("inf"):
            raise ValueError(f"the time limit is {self.time_s} s; expected a positive, finite number")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"the seed is {self.seed}; expected 0 or more, below 2^31")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected 1 or more")
        if not 0 <= self.gap < float("inf"):
            raise ValueError(f"the gap is {self.gap}; expected 0 or more, as a share of the objective")
        if self.work is not None and not 0 < self.work < float("inf"):
            raise ValueError(f"the limit of work is {self.work}; expected a positive, finite number")

    @property
    def threads(self) -> int:
        """The threads that are asked for, or else those that this process may use at once."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Answer(Protocol):
    """Solves a problem without ties, forbidden options and further objectives."""

    def __call__(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
        """Solve.

        Args:
            problem: The problem.
            limits: How long it may take and on what.
            hint: A choice to start from; it need not keep the capacities.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A solver under its name; its answers are checked before anyone sees them.

    >>> get("exhaustive").capabilities.exact
    True
    """

    name: str
    capabilities: Capabilities
    answer: Answer

    def solve(
        self,
        problem: Problem,
        *,
        time_limit_s: float = 30.0,
        seed: int = 0,
        workers: int | None = None,
        hint: Sequence[int] | None = None,
        gap: float = 0.0,
        work: float | None = None,
        watch: Watch | None = None,
    ) -> Solution:
        """Solve a problem.

        Args:
            problem: The problem.
            time_limit_s: Wall-clock seconds after which the best answer so far is returned.
            seed: Seed of whatever is random.
            workers: Threads; None takes those the machine has.
            hint: A choice to start from, one option for each group; it need not keep the capacities.
            gap: The share of the objective that may be left unproven.
            work: A limit of work in the solver's own unit; None for none.
            watch: Is told of every improvement, by solvers that can.

        Returns:
            The answer, checked in exact arithmetic.

        Raises:
            RefusedError: The problem is beyond what this solver takes on.
            WrongAnswerError: The answer is not what the solver claims.
        """
        begin = time.perf_counter()
        limits = Limits(time_s=time_limit_s, seed=seed, workers=workers, gap=gap, work=work, watch=watch)
        self._refuse(problem)
        reduction = reduce(problem)
        if reduction.problem is None:
            solution = Solution(status=Status.INFEASIBLE)
        else:
            start = None if hint is None else reduction.project(hint)
            solution = in_turn(reduction.problem, self._answer, limits, start)
        if solution.choices is not None:
            solution = replace(solution, choices=reduction.restore(solution.choices))
        solution = replace(solution, seconds=time.perf_counter() - begin, solver=self.name, versions=self._versions())
        verify(problem, solution)
        return solution

    def _answer(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
        """Answer for one objective."""
        if self.capabilities.spreads or not any(row.spread is not None for row in problem.rows):
            return self._without_spreads(problem, limits, hint)
        from solvers import robust

        return robust.solve(problem, self._without_spreads, limits, hint)

    def _without_spreads(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
        if self.capabilities.peaks or not problem.peaks:
            return self.answer(problem, limits, hint)
        from solvers import thresholds

        return thresholds.solve(problem, self.answer, limits, hint)

    def _refuse(self, problem: Problem) -> None:
        if problem.pairs and not self.capabilities.pairs:
            raise RefusedError(f"{self.name} takes no problems with pairs; this one has {len(problem.pairs)}")
        if not self.capabilities.peaks and not all(peak.of_groups for peak in problem.peaks):
            raise RefusedError(f"{self.name} takes no problems with peaks of which several options make one step")

    def _versions(self) -> dict[str, str]:
        return {name: _version(name) for name in ("blinkplan", *self.capabilities.needs)}


def in_turn(problem: Problem, answer: Answer, limits: Limits, hint: Sequence[int] | None) -> Solution:
    """Minimise one row after the other, each while all before it keep their least.

    Args:
        problem: The problem; ``objective`` is minimised first, then the rows of ``then``.
        answer: Solves for one objective.
        limits: How long all of it may take.
        hint: A choice to start from.

    Returns:
        The answer, its objective and bound those of the first row; optimal where every row was proven at its least.
    """
    if not problem.then:
        return answer(problem, limits, hint)
    begin = time.perf_counter()
    solution = answer(replace(problem, then=()), limits, hint)
    best, proven = solution, solution.status is Status.OPTIMAL
    for before, row in itertools.pairwise((problem.objective, *problem.then)):
        if best.choices is None or best.objective is None:
            break
        left = limits.time_s - (time.perf_counter() - begin)
        if left <= 0:
            proven = False
            break
        capacities = [entry.capacity for entry in problem.rows]
        capacities[before] = best.objective
        problem = problem.with_capacities(capacities)
        following = replace(limits, time_s=left, watch=None)
        found = answer(replace(problem, objective=row, then=()), following, best.choices)
        proven = proven and found.status is Status.OPTIMAL
        if found.choices is None:
            value = values(problem, best.choices)[row]
            best = Solution(status=Status.FEASIBLE, choices=best.choices, objective=value)
        else:
            best = found
    if solution.choices is None or best.choices is None:
        return solution
    objective = values(problem, best.choices)[problem.objective]
    return replace(
        solution,
        status=Status.OPTIMAL if proven else Status.FEASIBLE,
        choices=best.choices,
        objective=objective,
        bound=None if solution.bound is None else min(solution.bound, objective),
    )


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
        if entry.ispkg:
            continue
        capabilities = getattr(importlib.import_module(f"solvers.{entry.name}"), "CAPABILITIES", None)
        if capabilities is not None:
            found[entry.name] = tuple(n for n in capabilities.needs if importlib.util.find_spec(n) is None)
    return found


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
