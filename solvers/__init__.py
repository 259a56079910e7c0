"""Combinatorial optimisation on integers: groups of options, capacities, peaks, pairs; no networks."""

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
