"""Answers to one problem under many capacities, each of which helps with the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from solvers import core
from solvers.check import broken, values, verify
from solvers.dual.bound import exact_bound
from solvers.fixing import Shrunk, too_dear
from solvers.problem import Problem
from solvers.questions.asking import Asking
from solvers.solution import Solution, Status
from solvers.solver import Limits, in_turn

__all__ = ["Answers", "Capacities"]

Capacities = tuple[int | None, ...]
"""One for each row of the problem; None does not bind."""

_PRICES_KEPT = 8
_MOST_LISTED = 200_000
"""Figures, options times rows, up to which listing is tried before the solver is asked."""
_LISTED_S = 0.25
"""Seconds that this may take."""


class Answers:
    """What was asked of a problem under some capacities, and what follows for others.

    A choice that is best under looser capacities and keeps tighter ones is best under these too, and where nothing
    keeps looser ones nothing keeps tighter ones (M. Özlen, B. Burton and C. MacRae, Multi-objective integer
    programming: an improved recursive algorithm, Journal of Optimization Theory and Applications 160, 2014). Otherwise
    bounds under looser capacities and prices found under any prove a bound, choices found under any are to be beaten,
    and options with which they cannot be are left out before the solver sees the problem.
    """

    def __init__(self, ask: Asking) -> None:
        """Know nothing yet.

        Args:
            ask: The problem, without ties and forbidden options, and who is asked about it.
        """
        self.ask = ask
        self.problem = ask.problem
        self.known: dict[Capacities, Solution] = {}
        self.pool: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.prices: list[tuple[float, ...]] = []
        self.asked = 0

    def at(self, capacities: Sequence[int | None]) -> Solution:
        """Minimise the problem's objectives within capacities, one for each row."""
        wanted = tuple(capacities)
        known = self.known.get(wanted)
        if known is None or known.status not in (Status.OPTIMAL, Status.INFEASIBLE):
            self.known[wanted] = self._reused(wanted) or self._found(wanted)
        return self.known[wanted]

    def taken(self, choices: tuple[int, ...]) -> tuple[int, ...]:
        """Return what each row costs under a choice."""
        if choices not in self.pool:
            self.pool[choices] = values(self.problem, choices)
        return self.pool[choices]

    def add(self, choices: tuple[int, ...]) -> None:
        """Let a choice be known, such as a plan from before; it need not keep any capacity."""
        if not broken(self.problem.with_capacities([None] * len(self.problem.rows)), choices):
            self.taken(choices)

    def _reused(self, wanted: Capacities) -> Solution | None:
        """Return an answer to looser capacities that answers these as well."""
        for capacities, solution in self.known.items():
            if not _is_looser(capacities, wanted):
                continue
            if solution.status is Status.INFEASIBLE:
                return solution
            if solution.status is Status.OPTIMAL and solution.choices is not None:
                taken = self.taken(solution.choices)
                if all(capacity is None or value <= capacity for value, capacity in zip(taken, wanted, strict=True)):
                    return solution
        return None

    def _found(self, wanted: Capacities) -> Solution:
        left = self.ask.left_s
        if left <= 0:
            return Solution(status=Status.LIMIT)
        limits = Limits(time_s=left, seed=self.ask.seed, workers=self.ask.workers)
        problem = self.problem.with_capacities(wanted)
        solution = in_turn(problem, self._answer, limits, None)
        verify(problem, solution)
        return solution

    def _answer(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
        """Answer for one objective, within the capacities of the problem."""
        best = self._incumbent(problem)
        bound = self._bound(problem)
        if best is None or bound is None or bound < best[0]:
            solution = _joined(self._listed(problem, limits, best), best, bound)
            if solution.status not in (Status.OPTIMAL, Status.INFEASIBLE):
                best = self._incumbent(problem)
                bound = max(-1 if solution.bound is None else solution.bound, -1 if bound is None else bound)
                solution = _joined(self._solved(problem, best), best, None if bound < 0 else bound)
            return solution
        return Solution(status=Status.OPTIMAL, choices=best[1], objective=best[0], bound=best[0])

    def _listed(self, problem: Problem, limits: Limits, best: tuple[int, tuple[int, ...]] | None) -> Solution:
        """Look whether listing what prices leave in doubt settles it, in a moment."""
        plain = not problem.pairs and not any(row.peaks or row.spread is not None for row in problem.rows)
        if not plain or problem.options * (1 + len(problem.bound_rows)) > _MOST_LISTED:
            return Solution(status=Status.LIMIT)
        shortly = replace(limits, time_s=min(limits.time_s, _LISTED_S))
        return self._noted(problem, core.solve(problem, shortly, None if best is None else best[1]), Shrunk.of(problem))

    def _solved(self, problem: Problem, best: tuple[int, tuple[int, ...]] | None) -> Solution:
        """Ask the solver for something better than the best that is known."""
        shrunk = Shrunk.of(problem)
        if best is not None and problem.objective == self.problem.objective:
            for prices in self.prices:
                if shrunk.problem is not None:
                    shrunk = shrunk.without(too_dear(shrunk.problem, prices, best[0] - 1))
        if shrunk.problem is None:
            return Solution(status=Status.INFEASIBLE)
        self.asked += 1
        hint = None if best is None else shrunk.project(best[1])
        return self._noted(problem, self.ask.solve(shrunk.problem, hint), shrunk)

    def _noted(self, problem: Problem, found: Solution, shrunk: Shrunk) -> Solution:
        """Remember prices and choice of an answer, and tell it in the options of the whole problem."""
        if found.prices is not None and problem.objective == self.problem.objective:
            self.prices = [*self.prices[1 - _PRICES_KEPT :], found.prices]
        if found.choices is None:
            return found
        choices = shrunk.restore(found.choices)
        self.taken(choices)
        return replace(found, choices=choices)

    def _incumbent(self, problem: Problem) -> tuple[int, tuple[int, ...]] | None:
        """Return the best choice known that keeps the capacities, with its objective."""
        best: tuple[int, tuple[int, ...]] | None = None
        for choices, taken in self.pool.items():
            objective = taken[problem.objective]
            if best is not None and objective >= best[0]:
                continue
            pairs = zip(taken, problem.rows, strict=True)
            if all(row.capacity is None or value <= row.capacity for value, row in pairs):
                best = (objective, choices)
        return best

    def _bound(self, problem: Problem) -> int | None:
        """Return what is known to lie below every choice, by looser capacities and by prices."""
        if problem.objective != self.problem.objective:
            return None
        wanted = tuple(row.capacity for row in problem.rows)
        bounds = [
            solution.bound
            for capacities, solution in self.known.items()
            if solution.bound is not None and _is_looser(capacities, wanted)
        ]
        bounds += [exact_bound(problem, prices) for prices in self.prices]
        return max(bounds, default=None)


def _joined(found: Solution, best: tuple[int, tuple[int, ...]] | None, bound: int | None) -> Solution:
    """Put together what was found among what is worth having, and what was known before.

    Args:
        found: An answer about the choices better than the best known, or about all.
        best: The best known, with its objective.
        bound: What is known to lie below every choice.
    """
    if best is not None and (found.objective is None or found.objective > best[0]):
        # Where nothing better is left, the best known is the best.
        lower = best[0] if found.status is Status.INFEASIBLE else found.bound
        found = replace(found, status=Status.FEASIBLE, choices=best[1], objective=best[0], bound=lower)
    lower = max(-1 if found.bound is None else found.bound, -1 if bound is None else bound)
    if found.objective is None:
        return found if lower < 0 else replace(found, bound=lower)
    lower = min(lower, found.objective)
    status = Status.OPTIMAL if lower == found.objective else Status.FEASIBLE
    return replace(found, status=status, bound=None if lower < 0 else lower)


def _is_looser(capacities: Capacities, wanted: Capacities) -> bool:
    """Tell whether whatever keeps the wanted capacities keeps these."""
    pairs = zip(capacities, wanted, strict=True)
    return all(have is None or (want is not None and want <= have) for have, want in pairs)
