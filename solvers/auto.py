"""Every means in turn, each on what the ones before left over: bounds alone, prices, lists, fixing, exact solvers.

A problem is first looked at without solving it; few capacities and no pairs are listed to the end by `solvers.core`;
everything else gets prices and a first choice from `solvers.lagrangian`, loses the options that these rule out, and is
handed to CP-SAT and HiGHS with the best choice as a start. The answer is the best that any of them saw, its bound the
highest that any of them proved.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from solvers import core, cpsat, fixing, highs, lagrangian, thresholds
from solvers.check import broken, values
from solvers.dual import chains
from solvers.dual.bound import reduced_costs
from solvers.neighbourhood import Search
from solvers.problem import Problem
from solvers.simplify import Verdict, cheapest, plain
from solvers.solution import Solution, Status
from solvers.solver import Answer, Capabilities, Limits, RefusedError

__all__ = ["CAPABILITIES", "solve"]

Floats = npt.NDArray[np.float64]

CAPABILITIES = Capabilities(exact=True, hints=True, traces=True, needs=("ortools",))
_ONE_MODEL = 2
"""So many capacities bind one model: its latency and its memory."""
_LISTED_ROWS = 4
_LISTED_FIGURES = 200_000
"""Up to so many capacities and figures a problem without pairs is listed first; or where all capacities are dense."""
_SMALL = 600
"""Problems of so many options are solved whole; around choices of larger ones a search is worth its time."""
_MEDIUM = 2000
"""The same, where groups do not meet."""
_EACH_S = 2.0
"""How long the search may take over one neighbourhood."""
_TURNS: tuple[tuple[str, Answer, float, float], ...] = (
    ("cpsat", cpsat.solve, 0.05, 0.2),
    ("highs", highs.solve, 0.35, 0.35),
    ("cpsat", cpsat.solve, 0.6, 0.6),
    ("highs", highs.solve, 1.0, 1.0),
)
"""Which exact solver is asked for which share of the time that is left, without pairs and with: what one settles in a
moment may take the other minutes, and nothing tells which beforehand."""
_LARGEST = 40_000
"""Problems of more options than that are no matter for exact solvers."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Solve with whatever suits the problem.

    Args:
        problem: The problem.
        limits: How long all of it may take; the seed and the threads are handed on.
        hint: A choice to start from; left out where it breaks a capacity.

    Returns:
        The best choice seen and the best bound proven; its note says whose they are.
    """
    run = _Run(problem, limits)
    if hint is not None and not broken(problem, hint):
        run.offer(hint, "the hint")
    seen = plain(problem)
    if seen.verdict is Verdict.IMPOSSIBLE:
        return Solution(status=Status.INFEASIBLE, note=f"{problem.rows[seen.row].name} alone cannot be kept")
    if seen.verdict is Verdict.FREE:
        run.offer(cheapest(problem), "bounds alone")
        run.prove(run.best, "bounds alone")
        return run.answer()
    run.go(seen.problem)
    return run.answer()


def _list(problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
    """List what prices leave in doubt, below one threshold of the peaks after the other where there are any."""
    if problem.peaks:
        return thresholds.solve(problem, core.solve, limits, hint)
    return core.solve(problem, limits, hint)


def _few(problem: Problem) -> bool:
    """Say whether there are few capacities, or whether nearly every option takes of every one."""
    terms = [len(problem.rows[index].options) for index in problem.bound_rows]
    return len(terms) <= _LISTED_ROWS or min(terms) > problem.options // 2


class _Run:
    """The best choice and the best bound so far, who gave them, and the time that is left."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.begin = time.perf_counter()
        self.best: int | None = None
        self.choices: tuple[int, ...] | None = None
        self.bound: int | None = None
        self.prices: tuple[float, ...] | None = None
        self.infeasible = False
        self.who = self.who_bound = ""
        self.heard: tuple[int | None, int | None] = (None, None)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.limits.time_s - (time.perf_counter() - self.begin)

    @property
    def done(self) -> bool:
        """Whether the gap or the limit is reached."""
        if self.infeasible or self.left <= 0:
            return True
        if self.best is None or self.bound is None:
            return False
        return self.best - self.bound <= self.limits.gap * self.best

    def offer(self, choices: Sequence[int], who: str) -> None:
        """Take a choice that keeps all capacities, if it is better than the best."""
        objective = values(self.problem, choices)[self.problem.objective]
        if self.best is None or objective < self.best:
            self.best, self.choices, self.who = objective, tuple(choices), who
            self.tell(None, None)

    def prove(self, bound: int | None, who: str) -> None:
        """Take a bound, if it is higher than the highest."""
        if bound is not None and (self.bound is None or bound > self.bound):
            self.bound, self.who_bound = bound, who
            self.tell(None, None)

    def tell(self, objective: int | None, bound: int | None) -> None:
        """Tell whoever watches what is best, with what a solver at work reports, where that is news."""
        objectives = [value for value in (self.best, objective, self.heard[0]) if value is not None]
        bounds = [value for value in (self.bound, bound, self.heard[1]) if value is not None]
        best = min(objectives, default=None)
        highest = max(bounds, default=None)
        if best is not None and highest is not None:
            highest = min(best, highest)
        if self.limits.watch is not None and (best, highest) != self.heard:
            self.heard = (best, highest)
            self.limits.watch(time.perf_counter() - self.begin, best, highest)

    def ask(self, name: str, solver: Answer, shrunk: fixing.Shrunk, seconds: float) -> Solution | None:
        """Have a solver solve what is left of the problem, and take what it finds; None where it refuses."""
        if shrunk.problem is None or seconds <= 0:
            return None

        def watch(_: float, objective: int | None, bound: int | None) -> None:
            # What is left holds every choice below the best, and perhaps no other.
            self.tell(objective, bound if bound is None or self.best is None else min(bound, self.best))

        limits = replace(self.limits, time_s=seconds, work=None, watch=None if self.limits.watch is None else watch)
        start = shrunk.project(self.choices)
        try:
            found = solver(shrunk.problem, limits, start)
        except RefusedError:
            return None
        self.take(name, found, shrunk)
        return found

    def take(self, name: str, found: Solution, shrunk: fixing.Shrunk) -> None:
        """Take what a solver found in what is left of the problem: in what is gone nothing is better than the best."""
        if found.choices is not None:
            self.offer(shrunk.restore(found.choices), name)
        if found.status is Status.INFEASIBLE:
            if self.best is None:
                self.infeasible = True
            self.prove(self.best, name)
        elif found.bound is not None:
            self.prove(found.bound if self.best is None else min(found.bound, self.best), name)
        if self.prices is None:
            self.prices = found.prices

    def go(self, problem: Problem) -> None:
        """Ask one solver after the other until the gap or the limit is reached."""
        shrunk, doubt = fixing.Shrunk.of(problem), None
        separable = not problem.pairs and not any(row.peaks for row in problem.rows)
        figures = problem.groups * int(np.diff(problem.start).max()) * (1 + len(problem.bound_rows))
        listed = not problem.pairs and thresholds.applies(problem) and _few(problem)
        if listed and figures <= _LISTED_FIGURES:
            found = self.ask("core", _list, shrunk, self._listing_s(len(problem.bound_rows)))
            shrunk, doubt = self.fixed(shrunk, found)
        elif separable or problem.options > _SMALL:
            if not separable and self.at_once(shrunk):
                return
            found = self.ask("lagrangian", lagrangian.solve, shrunk, self.left)
            shrunk, doubt = self.fixed(shrunk, found)
        if self.done or shrunk.problem is None or shrunk.problem.options > _LARGEST:
            return
        if shrunk.problem.options > (_MEDIUM if separable else _SMALL) and self.choices is not None:
            self.around(shrunk, doubt)
        shrunk = shrunk.without(fixing.dominated(shrunk.problem))
        self.turns(shrunk)

    def at_once(self, shrunk: fixing.Shrunk) -> bool:
        """Solve one model whose layers meet before prices are sought, which take as long; tell whether it was."""
        problem = shrunk.problem
        if problem is None or len(problem.bound_rows) > _ONE_MODEL or problem.options > _MEDIUM:
            return False
        self.ask("cpsat", cpsat.solve, shrunk.without(fixing.dominated(problem)), 0.2 * self.left)
        return self.done

    def turns(self, shrunk: fixing.Shrunk) -> None:
        """Ask exact solvers in turn."""
        for name, solver, alone, met in _TURNS:
            if self.done or shrunk.problem is None:
                return
            self.ask(name, solver, shrunk, (met if shrunk.problem.pairs else alone) * self.left)

    def _listing_s(self, rows: int) -> float:
        """Return how long lists may take: a moment where models share capacities, for those soon have too many."""
        if rows <= _ONE_MODEL:
            return max(0.1, 0.5 * self.left)
        # Where capacities are many and dense, lists in depth go further than any other way.
        return max(0.1, 0.85 * self.left) if rows > _LISTED_ROWS else min(0.1, self.left)

    def around(self, shrunk: fixing.Shrunk, doubt: Floats | None) -> None:
        """Search around the best choice, until nothing better is found or most of the time is over."""
        problem, start = shrunk.problem, shrunk.project(self.choices)
        if problem is None or start is None:
            return
        until = time.perf_counter() + 0.8 * self.left
        Search(problem, start, (cpsat.solve,), self.limits.seed, doubt).run(
            self.limits,
            lambda: 0.0 if self.done else until - time.perf_counter(),
            _EACH_S,
            lambda choices: self.offer(shrunk.restore(choices), "neighbourhoods"),
        )

    def fixed(self, shrunk: fixing.Shrunk, found: Solution | None) -> tuple[fixing.Shrunk, Floats | None]:
        """Leave out what the prices of an answer rule out; returns also how much dearer the other options are."""
        if self.done or found is None or found.prices is None or self.best is None or shrunk.problem is None:
            return shrunk, None
        problem = shrunk.problem
        if problem.pairs or problem.peaks:
            marginals = chains.min_marginals(problem, found.prices, min(0.3, 0.1 * self.left), found.choices)
            excess = (marginals - marginals.min()).astype(np.float64)
            gone = fixing.beyond(marginals, self.best)
        else:
            excess = reduced_costs(problem, found.prices)
            gone = fixing.too_dear(problem, found.prices, self.best)
        return shrunk.without(gone), np.delete(excess, gone)

    def answer(self) -> Solution:
        """Return the best choice with the highest bound."""
        if self.infeasible:
            return Solution(status=Status.INFEASIBLE, bound_solver=self.who_bound)
        if self.best is None:
            return Solution(status=Status.LIMIT, bound=self.bound, bound_solver=self.who_bound, prices=self.prices)
        bound = None if self.bound is None else min(self.bound, self.best)
        return Solution(
            status=Status.OPTIMAL if bound == self.best else Status.FEASIBLE,
            choices=self.choices,
            objective=self.best,
            bound=bound,
            bound_solver=self.who_bound,
            prices=self.prices,
            note=f"choice by {self.who}, bound by {self.who_bound or 'nobody'}",
        )
