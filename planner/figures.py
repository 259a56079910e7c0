"""What a set of choices costs, recomputed from the table in exact arithmetic: never taken from a solver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from statistics import NormalDist

from costmodels import CostTable, ModelCosts
from planner.budget import Budget
from planner.errors import InputError

__all__ = ["Choices", "Figures", "exact_loss", "figures", "quantile_ns", "z_of"]

LOSS_PLACES = 12
_COARSE = 1e12
"""Losses from here on have no twelve places in a float."""

Choices = Mapping[str, Mapping[str, str]]
"""What runs: for each model and each of its layers, the name of the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a set of choices costs.

    Attributes:
        losses: The loss of each model, exact.
        latency_ns: Nanoseconds of each model, at the budget's quantile.
        weight_bytes: Bytes of weights of each model.
        arena_bytes: Bytes of activations: of all models if they share, else their sum.

    >>> Figures(losses={"m": Fraction(1, 100)}, latency_ns={"m": 5}, weight_bytes={"m": 7}, arena_bytes=3).memory_bytes
    10
    """

    losses: dict[str, Fraction]
    latency_ns: dict[str, int]
    weight_bytes: dict[str, int]
    arena_bytes: int

    @property
    def loss(self) -> Fraction:
        """Sum of the losses of all models, exact."""
        return sum(self.losses.values(), Fraction(0))

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and activations together."""
        return sum(self.weight_bytes.values()) + self.arena_bytes

    def broken(self, budget: Budget) -> tuple[str, ...]:
        """List the bounds of a budget that these figures break, in words."""
        found = []
        for model, taken in self.latency_ns.items():
            allowed = budget.latency_ns(model)
            if allowed is not None and taken > allowed:
                found.append(f"latency of {model}: {taken} ns, above the bound of {allowed} ns")
        if budget.memory_bytes is not None and self.memory_bytes > budget.memory_bytes:
            found.append(f"memory: {self.memory_bytes} bytes, above the bound of {budget.memory_bytes} bytes")
        if budget.loss_exact is not None and self.loss > Fraction(budget.loss_exact):
            found.append(f"loss: {float(self.loss):.9g}, above the bound of {budget.loss_exact}")
        return tuple(found)


def exact_loss(loss: float) -> Fraction:
    """Read a loss as the decimal that is written for it, to twelve places: 0.1 is a tenth.

    What is measured is uncertain in the third place; to twelve, sums are exact in the solvers' integers as
    well.

    >>> exact_loss(0.1)
    Fraction(1, 10)
    """
    return Fraction(round(Decimal(repr(loss)), LOSS_PLACES) if loss < _COARSE else Decimal(repr(loss)))


def z_of(quantile: float) -> float:
    """Return how many standard deviations above the mean a quantile of the normal distribution lies."""
    return NormalDist().inv_cdf(quantile)


def quantile_ns(mean_ns: int, variance: Fraction, quantile: float) -> int:
    """Return a quantile of the latency, nanoseconds, rounded up; the median is the mean.

    Args:
        mean_ns: Sum of the means.
        variance: Sum of the variances, ns²; layers are taken as independent.
        quantile: From 0.5 up to 1.
    """
    if quantile <= 0.5 or variance == 0:
        return mean_ns
    square = Fraction(z_of(quantile)) ** 2 * variance
    root = math.isqrt(math.ceil(square))
    return mean_ns + (root if root * root >= square else root + 1)


def figures(table: CostTable, choices: Choices, budget: Budget) -> Figures:
    """Add up what choices cost.

    Args:
        table: The costs.
        choices: What runs; every layer of every model in the table.
        budget: How activations share memory, and which quantile of the latency counts.

    Returns:
        The figures.

    Raises:
        InputError: A layer has no choice, one that does not exist, or one that its neighbours or ties forbid.
    """
    losses, latency, weights, arenas = {}, {}, {}, []
    for name in choices:
        table.model(name)
    for model in table.models:
        chosen = choices.get(model.name)
        if chosen is None:
            raise InputError(f"no choices for the model {model.name!r}")
        model_loss, mean, variance = _sum(model, chosen)
        losses[model.name] = model_loss
        latency[model.name] = quantile_ns(mean, variance, budget.latency_quantile)
        picked = [layer.choice(chosen[layer.name]) for layer in model.layers]
        weights[model.name] = model.fixed_bytes + sum(choice.weight_bytes for choice in picked)
        arenas.append(model.arena_bytes(chosen))
    arena = max(arenas) if budget.arena == "shared" else sum(arenas)
    return Figures(losses=losses, latency_ns=latency, weight_bytes=weights, arena_bytes=arena)


def _sum(model: ModelCosts, chosen: Mapping[str, str]) -> tuple[Fraction, int, Fraction]:
    """Return the loss, the mean latency and its variance of one model."""
    loss, mean, variance = Fraction(0), model.overhead_ns, Fraction(0)
    unknown = sorted(set(chosen) - {layer.name for layer in model.layers})
    lacking = [layer.name for layer in model.layers if layer.name not in chosen]
    if unknown or lacking:
        raise InputError(f"model {model.name!r}: unknown layers {unknown}, layers without a choice {lacking}")
    picked = {layer.name: layer.choice(chosen[layer.name]) for layer in model.layers}
    for choice in picked.values():
        loss += exact_loss(choice.loss)
        mean += model.scaled_ns(choice)
        variance += (Fraction(model.scale) * Fraction(choice.latency_std_ns or 0.0)) ** 2
    for edge in model.edges:
        source, target = picked[edge.source], picked[edge.target]
        cost = edge.cost(source.out_format, edge.read(target))
        if cost is None:
            raise InputError(f"model {model.name!r}: {edge}: {source.out_format} cannot meet {edge.read(target)}")
        loss += exact_loss(cost.loss)
        mean += cost.latency_ns
    for tie, layers in model.ties().items():
        names = {chosen[layer.name] for layer in layers}
        if len(names) > 1:
            raise InputError(f"model {model.name!r}: the tie {tie!r} takes several choices: {sorted(names)}")
    return loss, mean, variance
