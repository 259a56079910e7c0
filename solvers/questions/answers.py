"""Answers to one problem under many capacities, each of which helps with the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from solvers.check import values
from solvers.dual.bound import exact_bound
from solvers.fixing import Shrunk, too_dear
from solvers.problem import Problem
from solvers.questions.asking import Asking
from solvers.solution import Solution, Status

__all__ = ["Answers", "Capacities"]

Capacities = tuple[int | None, ...]
"""One for each row of the problem; None does not bind."""

_PRICES_KEPT = 8


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
        if wanted not in self.known:
            self.known[wanted] = self._reused(wanted) or self._found(wanted)
        return self.known[wanted]

    def taken(self, choices: tuple[int, ...]) -> tuple[int, ...]:
        """Return what each row costs under a choice."""
        if choices not in self.pool:
            self.pool[choices] = values(self.problem, choices)
        return self.pool[choices]

    def add(self, choices: tuple[int, ...]) -> None:
        """Let a choice be known, such as a plan from before; it need not keep any capacity."""
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
        problem = self.problem.with_capacities(wanted)
        best = self._incumbent(wanted)
        bound = self._bound(problem, wanted)
        if best is not None and bound is not None and bound >= best[0] and not problem.then:
            return Solution(status=Status.OPTIMAL, choices=best[1], objective=best[0], bound=best[0])
        shrunk = Shrunk.of(problem)
        if best is not None:
            # With further objectives to come, choices that are as good in the first are worth having too.
            worth = best[0] if problem.then else best[0] - 1
            for prices in self.prices:
                if shrunk.problem is not None:
                    shrunk = shrunk.without(too_dear(shrunk.problem, prices, worth))
        if shrunk.problem is None:
            found = Solution(status=Status.INFEASIBLE)
        else:
            self.asked += 1
            found = self.ask.solve(shrunk.problem, None if best is None else shrunk.project(best[1]))
        if found.prices is not None:
            self.prices = [*self.prices[1 - _PRICES_KEPT :], found.prices]
        if found.choices is not None:
            found = replace(found, choices=shrunk.restore(found.choices))
            self.taken(found.choices or ())
        return _joined(found, best, bound, is_last=not problem.then)

    def _incumbent(self, wanted: Capacities) -> tuple[int, tuple[int, ...]] | None:
        """Return the best choice known that keeps capacities, with its objective."""
        best: tuple[int, tuple[int, ...]] | None = None
        for choices, taken in self.pool.items():
            objective = taken[self.problem.objective]
            if best is not None and objective >= best[0]:
                continue
            if all(capacity is None or value <= capacity for value, capacity in zip(taken, wanted, strict=True)):
                best = (objective, choices)
        return best

    def _bound(self, problem: Problem, wanted: Capacities) -> int | None:
        """Return what is known to lie below every choice, by looser capacities and by prices."""
        bounds = [
            solution.bound
            for capacities, solution in self.known.items()
            if solution.bound is not None and _is_looser(capacities, wanted)
        ]
        bounds += [exact_bound(problem, prices) for prices in self.prices]
        return max(bounds, default=None)


def _joined(found: Solution, best: tuple[int, tuple[int, ...]] | None, bound: int | None, *, is_last: bool) -> Solution:
    """Put together what the solver found among what was worth having, and what was known before."""
    if best is None or (found.objective is not None and found.objective <= best[0]):
        if found.bound is None or bound is None or bound <= found.bound or found.objective is None:
            return found
        lifted = min(bound, found.objective)
        proven = is_last and lifted == found.objective
        return replace(found, bound=lifted, status=Status.OPTIMAL if proven else found.status)
    objective, choices = best
    if found.status is Status.INFEASIBLE:
        # Nothing better is left.
        return replace(found, status=Status.OPTIMAL, choices=choices, objective=objective, bound=objective)
    # What was left out cannot beat the best known either.
    lower = min(objective, max(-1 if found.bound is None else found.bound, -1 if bound is None else bound))
    status = Status.OPTIMAL if is_last and lower == objective else Status.FEASIBLE
    known = None if lower < 0 else lower
    return replace(found, status=status, choices=choices, objective=objective, bound=known)


def _is_looser(capacities: Capacities, wanted: Capacities) -> bool:
    """Tell whether whatever keeps the wanted capacities keeps these."""
    pairs = zip(capacities, wanted, strict=True)
    return all(have is None or (want is not None and want <= have) for have, want in pairs)
