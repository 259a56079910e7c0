"""What samples mean: cost tables and their statistics. Knows nothing of solvers, planners or compilers."""

from costmodels.costs import ChoiceCost, Conversion, EdgeCosts, Format, LayerCosts, ModelCosts
from costmodels.errors import TableError
from costmodels.files import write_aside
from costmodels.interactions import Alone, Interactions, Together, interactions
from costmodels.table import CostTable

__all__ = [
    "Alone",
    "ChoiceCost",
    "Conversion",
    "CostTable",
    "EdgeCosts",
    "Format",
    "Interactions",
    "LayerCosts",
    "ModelCosts",
    "TableError",
    "Together",
    "interactions",
    "write_aside",
]
