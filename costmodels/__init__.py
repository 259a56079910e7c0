"""What samples mean: cost tables and their statistics. Knows nothing of solvers, planners or compilers."""

from costmodels.costs import ChoiceCost, Conversion, EdgeCosts, Format, LayerCosts, ModelCosts
from costmodels.errors import TableError
from costmodels.files import write_aside
from costmodels.table import CostTable

__all__ = [
    "ChoiceCost",
    "Conversion",
    "CostTable",
    "EdgeCosts",
    "Format",
    "LayerCosts",
    "ModelCosts",
    "TableError",
    "write_aside",
]
