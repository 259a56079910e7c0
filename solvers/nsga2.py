"""A genetic algorithm, NSGA-II of pymoo: what researchers compare with; its answers are checked, and it proves little.

K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6(2) (2002), with its rule for constraints: what breaks less is better, and
what breaks nothing is better than what does. With one objective, its sorting is that by the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.moves.incumbent import Incumbent
from solvers.moves.many import evaluate
from solvers.moves.starts import cheapest, least_pressing
from solvers.moves.tables import Tables
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import Capabilities, Limits

__all__ = ["CAPABILITIES", "solve"]

Floats = npt.NDArray[np.float64]

CAPABILITIES = Capabilities(
    exact=False, bound=False, spreads=True, hints=True, deterministic=True, traces=True, needs=("pymoo",)
)
_POPULATION = 100
_CHANGED = 2.0
"""So many groups of a child change at random, on average."""
_ATTEMPTS = 5
"""So often are children that are there already bred again; small problems have no others."""
_PATIENCE = 200
"""It ends after so many generations, and one for each group, in which nothing got better."""


def solve(problem: Problem, limits: Limits, hint: Sequence[int] | None = None) -> Solution:
    """Breed choices by crossing them group by group, from random ones, the cheapest and those that press least.

    Args:
        problem: The problem.
        limits: How long it may take; ``work`` is the number of choices that are evaluated, and makes answers the same
            on every machine as long as the time suffices.
        hint: A choice that stands in the first generation.

    Returns:
        The best choice found with a simple bound, or ``limit``: it never proves that there is none.
    """
    best = Incumbent(problem, limits)
    algorithm = _algorithm(Tables.of(problem), best, limits.seed, hint)
    idle = 0
    while not best.work or (idle < _PATIENCE + problem.groups and not best.ended()):
        before, work = best.objective, best.work
        algorithm.next()
        if best.work == work:
            break  # all that crossing and changing give is there already
        idle = idle + 1 if best.objective == before else 0
    return best.answer()


def _evaluate(tables: Tables, best: Incumbent, places: Integers) -> tuple[Floats, Floats]:
    """Return the objective and the excess of choices, ``(choices,)`` each, and keep the best.

    Args:
        tables: The problem as accounts and blocks.
        best: The best choice so far.
        places: For each choice, which option each group takes, ``(choices, groups)``.
    """
    found = evaluate(tables, places.T)
    over = np.maximum(found - tables.capacity[:, None], 0)
    objective = found[tables.problem.objective]
    keeps = np.flatnonzero(~over.any(axis=0))
    if len(keeps):
        index = int(keeps[np.argmin(objective[keeps])])
        best.offer(int(objective[index]), places[index].tolist())
    best.work += len(places)
    return objective.astype(np.float64), (over / tables.unit[:, None]).sum(axis=0)


def _algorithm(tables: Tables, best: Incumbent, seed: int, hint: Sequence[int] | None) -> Any:
    """Set up pymoo's algorithm on choices: integers that are names and not sizes, so that none lies between others."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem as Task
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.termination import get_termination

    sizes = np.diff(tables.problem.start)
    rng = np.random.default_rng(seed)

    class Choices(Task):
        """The problem in pymoo's terms: one integer a group, one objective, one sum of excess."""

        def __init__(self) -> None:
            super().__init__(n_var=len(sizes), n_obj=1, n_ieq_constr=1, xl=0, xu=sizes - 1, vtype=int)

        def _evaluate(self, places: Integers, out: dict[str, Any], *_: object, **__: object) -> None:
            objective, excess = _evaluate(tables, best, np.asarray(places, np.int64))
            out["F"], out["G"] = objective[:, None], excess[:, None]

    class Change(Mutation):
        """Draw a few groups' options anew."""

        def _do(self, _: object, places: Integers, *__: object, **___: object) -> Integers:
            chance = min(0.5, _CHANGED / len(sizes))
            drawn = rng.integers(0, sizes, places.shape)
            return np.where(rng.random(places.shape) < chance, drawn, places)

    first = rng.integers(0, sizes, (_POPULATION, len(sizes)))
    known = [cheapest(tables), least_pressing(tables)] + ([] if hint is None else [np.asarray(hint, np.int64)])
    first[: len(known)] = known
    algorithm = NSGA2(pop_size=_POPULATION, sampling=first, crossover=UniformCrossover(), mutation=Change())
    algorithm.mating.n_max_iterations = _ATTEMPTS
    algorithm.setup(Choices(), termination=get_termination("n_gen", np.inf), seed=seed, verbose=False)
    return algorithm
