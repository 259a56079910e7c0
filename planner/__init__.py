"""Deploy neural networks within bounds: measure, plan, build, and verify what was promised.

Examples:
    >>> import planner
    >>> table = planner.CostTable.read(planner.shipped("tables/quick.json"))
    >>> plan = planner.plan(table, planner.Budget(memory_mib=0.5))
    >>> plan.status
    'optimal'
"""

from costmodels import CostTable, TableError
from planner.alternatives import Alternatives, alternatives
from planner.budget import Budget
from planner.build import Build, build, rebuild
from planner.compare import compare_solvers, generate, relative_budget
from planner.dataset import Dataset, shipped
from planner.deploy import Deployment, calibrated, deploy
from planner.errors import InfeasibleError, InputError, LimitError
from planner.graph import LayerGraph
from planner.measure import measure
from planner.model import Model, load
from planner.plan import Plan
from planner.planning import plan
from planner.verify import Report, verify
from planner.whatif import Frontier, diff, price, sweep

__all__ = [
    "Alternatives",
    "Budget",
    "Build",
    "CostTable",
    "Dataset",
    "Deployment",
    "Frontier",
    "InfeasibleError",
    "InputError",
    "LayerGraph",
    "LimitError",
    "Model",
    "Plan",
    "Report",
    "TableError",
    "alternatives",
    "build",
    "calibrated",
    "compare_solvers",
    "deploy",
    "diff",
    "generate",
    "load",
    "measure",
    "plan",
    "price",
    "rebuild",
    "relative_budget",
    "shipped",
    "sweep",
    "verify",
]
