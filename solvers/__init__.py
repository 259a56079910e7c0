"""Combinatorial optimisation on integers: groups of options, capacities, peaks, pairs; no networks."""

from solvers.check import WrongAnswerError
from solvers.problem import Pair, Peak, Problem, Row
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
    "Peak",
    "Problem",
    "RefusedError",
    "Row",
    "Solution",
    "Solver",
    "Status",
    "UnknownSolverError",
    "WrongAnswerError",
    "available",
    "get",
    "missing",
]
