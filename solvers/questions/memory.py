"""A solver that remembers: problems that differ in their capacities alone help each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from solvers.problem import Problem
from solvers.questions.answers import Answers
from solvers.questions.asking import Asking
from solvers.solution import Solution
from solvers.solver import Limits, Solver

__all__ = ["remembering"]


def remembering(solver: Solver) -> Solver:
    """Return a solver that answers alike, but uses what it found under other capacities.

    Args:
        solver: Who is asked where that does not settle it. One that is not exact is returned as it is: with a memory it
            would be another one.

    >>> from solvers import get
    >>> remembering(get("exhaustive")).name
    'exhaustive'
    """
    if not solver.capabilities.exact:
        return solver
    return replace(
        solver, capabilities=replace(solver.capabilities, spreads=True, hints=True), answer=_Memory(solver).answer
    )


class _Memory:
    """Answers to every problem seen so far, each under whatever capacities it was asked for."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self.of: dict[str, Answers] = {}

    def answer(self, problem: Problem, limits: Limits, hint: Sequence[int] | None) -> Solution:
        """Answer a problem without ties and forbidden options; ask where it is not known."""
        if limits.gap or limits.work is not None or limits.watch is not None:
            # What is remembered is exact, and silent: who wants something else gets it from the solver itself.
            return self.solver.solve(
                problem,
                time_limit_s=limits.time_s,
                seed=limits.seed,
                workers=limits.workers,
                hint=hint,
                gap=limits.gap,
                work=limits.work,
                watch=limits.watch,
            )
        key = problem.with_capacities([None] * len(problem.rows)).digest
        ask = Asking(problem, self.solver, time_limit_s=limits.time_s, seed=limits.seed, workers=limits.workers)
        answers = self.of.setdefault(key, Answers(ask))
        answers.ask = ask
        if hint is not None:
            answers.add(tuple(hint))
        return answers.at(ask.capacities)
