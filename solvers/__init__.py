"""Combinatorial optimisation on integers: groups of options, capacities, peaks, pairs; no networks.

What a problem and an answer are: ``problem``, ``pairs``, ``spread``, ``arrays``, ``solution``; who looks at answers:
``check``, ``proof``, ``certificate`` (written by ``aside``); how a solver is called, and what stands between a
problem and it: ``solver``, ``reduction``, ``thresholds``, ``robust``, ``roots``. A module that declares
``CAPABILITIES`` is a solver. What several of them share: ``linear``, ``floating``, ``mathopt``, ``relaxation``,
``quiet`` and ``start`` for those that want a matrix, ``simplify``, ``fixing`` and ``neighbourhood`` for ``auto``; and
the folders ``dual`` (prices, blocks), ``labels`` (lists), ``moves`` (steps from one choice to the next),
``questions`` (asked of any solver) and ``instances`` (where problems come from).
"""

from solvers.check import WrongAnswerError
from solvers.problem import Pair, Pairs, Peak, Problem, Row, Spread
from solvers.solution import Solution, Status
from solvers.solver import (
    Capabilities,
    Limits,
    RefusedError,
    Solver,
    UnknownSolverError,
    available,
    get,
    missing,
)

__all__ = [
    "Capabilities",
    "Limits",
    "Pair",
    "Pairs",
    "Peak",
    "Problem",
    "RefusedError",
    "Row",
    "Solution",
    "Solver",
    "Spread",
    "Status",
    "UnknownSolverError",
    "WrongAnswerError",
    "available",
    "get",
    "missing",
]
