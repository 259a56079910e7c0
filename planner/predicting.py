"""What a whole plan is expected to lose, with what its choices lose together: beside the sum that is planned with.

The sum of what the choices lose alone is what solvers minimise and prove bounds for.  It is too low where losses are
large; what two choices lose together is known without further measurements (`costmodels.interactions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from costmodels import CostTable, ModelCosts
from planner.choices import Choice

__all__ = ["Predicted", "entries_of", "predicted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """State what one model is expected to lose under a plan.

    Attributes:
        model: Name of the model.
        loss: Loss of all its choices together: the mean cross-entropy added, or what the table was measured by.
        loss_std: Its standard error.
        added: How much of it they lose together beyond the sum of what each loses alone.
        top1_change: Change of the top-1 accuracy, points; negative is worse.
        top1_std: Its standard error.

    >>> print(Predicted(model="m", loss=0.031, loss_std=0.01, added=0.004, top1_change=-0.8, top1_std=0.21))
    m: expected to lose 0.031 +- 0.01 in all, top-1 -0.80 +- 0.21 points
    """

    model: str
    loss: float
    loss_std: float
    added: float
    top1_change: float
    top1_std: float

    def __str__(self) -> str:
        """Show the figures with their errors."""
        return (
            f"{self.model}: expected to lose {self.loss:.3g} +- {self.loss_std:.2g} in all, "
            f"top-1 {self.top1_change:+.2f} +- {self.top1_std:.2f} points"
        )


def entries_of(layer: str, choice: str) -> tuple[tuple[str, str], ...]:
    """Return what was measured of a choice: without its masks, and the class that it writes, if it makes it first.

    >>> entries_of("conv1", "int8:1>0.5")
    (('conv1', 'int8'), ('conv1', 'prune@0.5'))
    """
    read = Choice.parse(choice)
    plain = (layer, str(replace(read, reads="", writes="")))
    return (plain, (layer, f"prune@{read.writes}")) if read.writes else (plain,)


def predicted(table: CostTable, choices: Mapping[str, Mapping[str, str]]) -> tuple[Predicted, ...]:
    """Predict what models lose under the choices of their layers.

    Args:
        table: The costs.
        choices: For each model, the choice of each layer.

    Returns:
        The prediction for each model whose interactions the table holds, in the table's order.
    """
    found = (_of(model, choices[model.name]) for model in table.models if model.name in choices)
    return tuple(item for item in found if item is not None)


def _of(model: ModelCosts, chosen: Mapping[str, str]) -> Predicted | None:
    if model.interactions is None:
        return None
    together = model.interactions.together(
        entry for layer, choice in chosen.items() for entry in entries_of(layer, choice)
    )
    return Predicted(
        model=model.name,
        loss=together.loss,
        loss_std=together.loss_std,
        added=together.added,
        top1_change=together.top1_change,
        top1_std=together.top1_std,
    )
