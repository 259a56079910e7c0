"""What single moves change: the part that solvers share which walk from choice to choice."""

from solvers.moves.many import evaluate
from solvers.moves.tables import Tables
from solvers.moves.walk import Walk

__all__ = ["Tables", "Walk", "evaluate"]
