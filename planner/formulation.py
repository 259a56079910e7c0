"""A problem for solvers together with what its integers mean to the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from costmodels import ChoiceCost
from planner.figures import Choices
from solvers import Problem

__all__ = ["LOSS", "Arena", "Formulation", "Group", "Objective", "Side"]

Objective = Literal["loss", "worst", "latency", "memory"]
"""What is minimised: the losses of all models together, that of the model that loses most, time or bytes."""
Side = Literal["safe", "optimistic"]
"""How what is not whole is rounded: ``safe`` can only count too much cost, ``optimistic`` too little."""

Arena = Literal["most", "least"]
"""What is alive while a layer runs, where that depends on what the others take."""

LOSS = 0
"""Index of the row of losses; the rows of latencies follow, then that of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that take the choice of the same name: one layer, or those of one tie.

    Attributes:
        model: The model they belong to.
        layers: The layers.
        choices: The names of the choices that all of them offer.
        costs: For each of these choices, its cost in each of the layers.

    >>> Group(model="m", layers=("conv1",), choices=("exact",), costs=((),)).layers
    ('conv1',)
    """

    model: str
    layers: tuple[str, ...]
    choices: tuple[str, ...]
    costs: tuple[tuple[ChoiceCost, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulation:
    """A problem together with what its integers mean.

    Attributes:
        problem: The problem.
        groups: What each group of the problem is.
        models: The names of the models; model ``m`` has the latency row ``1 + m``.
        loss_scale: How many integers of the loss row make a loss of 1.
        loss_error: What rounding up may have added to any plan's loss, at most.
        worst: Index of the row that holds the loss of the model that loses most; None without one.

    >>> from planner.budget import Budget
    >>> from planner.formulate import formulate
    >>> from costmodels import ChoiceCost, CostTable, LayerCosts, ModelCosts
    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.25)
    >>> table = CostTable(models=(ModelCosts(name="m", layers=(LayerCosts(name="conv1", choices=(exact,)),)),))
    >>> formulation = formulate(table, Budget(latency_ms=1))
    >>> formulation.choices((0,)), formulation.loss_scale
    ({'m': {'conv1': 'exact'}}, Fraction(100, 1))
    """

    problem: Problem
    groups: tuple[Group, ...]
    models: tuple[str, ...]
    loss_scale: Fraction
    loss_error: Fraction
    worst: int | None = None

    @property
    def memory(self) -> int:
        """Index of the row of memory."""
        return 1 + len(self.models)

    def is_loss(self, row: int) -> bool:
        """Tell whether a row counts loss."""
        return row in (LOSS, self.worst)

    def choices(self, chosen: Sequence[int]) -> dict[str, dict[str, str]]:
        """Name what a solution chose, layer by layer."""
        found: dict[str, dict[str, str]] = {model: {} for model in self.models}
        for group, index in zip(self.groups, chosen, strict=True):
            for layer in group.layers:
                found[group.model][layer] = group.choices[index]
        return found

    def chosen(self, choices: Choices) -> tuple[int, ...] | None:
        """Number what is named, to start a solver from; None where it does not fit this table."""
        found = []
        for group in self.groups:
            name = choices.get(group.model, {}).get(group.layers[0])
            if name not in group.choices:
                return None
            found.append(group.choices.index(name))
        return tuple(found)

    def meaning(self, row: int, value: int) -> Fraction:
        """Turn a value of a row into the user's unit: loss, milliseconds or MiB."""
        if self.is_loss(row):
            return value / self.loss_scale
        return Fraction(value, 2**20) if row == self.memory else Fraction(value, 10**6)

    def describe(self, row: int) -> str:
        """Name a row for the user."""
        if row == LOSS:
            return "loss"
        if row == self.worst:
            return "loss of the worst model"
        if row == self.memory:
            return "memory"
        return f"latency of {self.models[row - 1]}" if row <= len(self.models) else "latency"
