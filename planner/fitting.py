"""Finding a plan whose arena, put together exactly, keeps the bound on memory.

How much memory a plan's activations need depends on how its layers meet, which the solver's problem only bounds: of
each choice it knows what is alive at least and at most.  With the least, the problem has every plan that there is, and
its bound and its proofs hold; what comes out is put together and looked at.  Where it needs more than is allowed, the
layers that are to blame are given what they were seen to need, and the problem is solved again.  With the most, what
comes out keeps the bound as a rule, and is looked at too.  Of all that keep every bound the best is taken, and made
better layer by layer while it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol

from costmodels import ChoiceCost, CostTable, ModelCosts
from costmodels.peaks import peaks
from planner.budget import Budget
from planner.errors import InfeasibleError, InputError, LimitError
from planner.figures import Choices, Figures, figures
from planner.formulation import Arena, Objective

__all__ = ["Found", "fitted"]

_ROUNDS = 12
"""Times that a problem is solved again with what a plan's layers were seen to need."""
_POLISH_S = 2.0
"""Seconds for looking at plans that differ in one layer from the best one found, where that is not proven best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Choices, the bound on the objective in the user's unit, whether that is proven the best, and how it was found.

    >>> Found(choices={"m": {"conv1": "exact"}}, bound=None, proven=False).proven
    False
    """

    choices: Choices
    bound: Fraction | None
    proven: bool
    how: str = ""


class Seek(Protocol):
    """Solves a problem."""

    def __call__(self, table: CostTable, arena: Arena, hint: Choices | None, *, explains: bool) -> Found:
        """Solve.

        Args:
            table: What choices cost.
            arena: Whether what is alive is counted at most or at least.
            hint: Choices to start from.
            explains: Whether to look for the reason where there is no plan.
        """


def fitted(
    table: CostTable,
    budget: Budget,
    objective: Objective,
    seek: Seek,
    value: Callable[[Figures], Fraction],
    hint: Choices | None = None,
) -> Found:
    """Find the best plan that keeps every bound, its arena put together exactly.

    Args:
        table: What choices cost.
        budget: What may be spent.
        objective: What is minimised.
        seek: Solves a problem.
        value: The objective of a plan's figures.
        hint: Choices to start from.

    Returns:
        The best plan found, with a bound that holds for every plan.

    Raises:
        InfeasibleError: There is no plan, not even by the least that its layers can need.
        LimitError: No plan was found that keeps the bound on memory, and no proof that there is none.
    """
    if not _varies(table):
        found = seek(table, "most", hint, explains=True)
        if not figures(table, found.choices, budget).broken(budget):
            return found
    first = seek(table, "least", hint, explains=True)
    kept = _raised(table, budget, objective, seek, value, first)
    least = value(figures(table, first.choices, budget)) if objective != "memory" else first.bound
    if not kept or least is None or min(kept).value > least:
        kept += _safe(table, budget, seek, value, kept[0].choices if kept else first.choices)
    if not kept:
        raise LimitError(
            "no plan was found whose activations, put together exactly, keep the bound on memory, and no proof that "
            "there is none: allow a little more memory"
        )
    best = min(kept)
    if least is None or best.value > least:
        best = _polished(table, budget, value, best)
    as_first = first.proven and objective != "memory" and least is not None and best.value <= least
    reached = first.bound is not None and best.value <= first.bound
    how = first.how if best.choices == first.choices else f"the bound: {first.how}; the plan: fitted to the memory"
    return Found(choices=best.choices, bound=first.bound, proven=as_first or reached, how=how if first.how else "")


@dataclass(frozen=True, slots=True, order=True)
class _Kept:
    """A plan that keeps every bound."""

    value: Fraction
    choices: Choices = field(compare=False)


def _varies(table: CostTable) -> bool:
    """Tell whether the table says less of some choice at least than at most."""
    choices = (choice for model in table.models for layer in model.layers for choice in layer.choices)
    return any(choice.least_arena < choice.activation_bytes for choice in choices)


def _raised(
    table: CostTable,
    budget: Budget,
    objective: Objective,
    seek: Seek,
    value: Callable[[Figures], Fraction],
    first: Found,
) -> list[_Kept]:
    """Solve again with what the plans that come out were seen to need, until one keeps every bound.

    Where memory is the aim, the search goes on until nothing is learnt any more.
    """
    kept: list[_Kept] = []
    known, latest = table, first.choices
    for _ in range(_ROUNDS):
        exact = figures(table, latest, budget)
        if not exact.broken(budget):
            kept.append(_Kept(value(exact), latest))
            if objective != "memory":
                break
        raised = _with_needs(known, latest, exact, budget)
        if raised is None:
            break
        known = raised
        try:
            latest = seek(known, "least", latest, explains=False).choices
        except (InfeasibleError, LimitError):
            break
    return kept


def _safe(
    table: CostTable, budget: Budget, seek: Seek, value: Callable[[Figures], Fraction], hint: Choices
) -> list[_Kept]:
    """Solve with what is alive at most; return what comes out if it keeps every bound."""
    try:
        found = seek(table, "most", hint, explains=False)
    except (InfeasibleError, LimitError):
        return []
    exact = figures(table, found.choices, budget)
    return [] if exact.broken(budget) else [_Kept(value(exact), found.choices)]


def _polished(table: CostTable, budget: Budget, value: Callable[[Figures], Fraction], kept: _Kept) -> _Kept:
    """Let single layers, or those of a tie, take other choices while that makes a plan better and keeps every bound."""
    end = time.perf_counter() + _POLISH_S
    better = True
    while better and time.perf_counter() < end:
        better = False
        for model, layers, choice in _moves(table):
            moved = {**kept.choices, model: {**kept.choices[model], **dict.fromkeys(layers, choice)}}
            try:
                exact = figures(table, moved, budget)
            except InputError:
                continue  # its channels do not meet those of its neighbours
            if value(exact) < kept.value and not exact.broken(budget):
                kept, better = _Kept(value(exact), moved), True
            if time.perf_counter() > end:
                break
    return kept


def _moves(table: CostTable) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield models, layers that choose together, and what they may choose."""
    for model in table.models:
        alone = ((layer,) for layer in model.layers if layer.tie is None)
        for layers in (*alone, *model.ties().values()):
            for choice in ModelCosts.common_choices(layers):
                yield model.name, tuple(layer.name for layer in layers), choice


def _with_needs(table: CostTable, choices: Choices, exact: Figures, budget: Budget) -> CostTable | None:
    """Give the choices that are to blame for a plan's arena what they were seen to need; None if that is known."""
    allowed = None
    if budget.memory_bytes is not None and budget.arena == "shared" and exact.memory_bytes > budget.memory_bytes:
        allowed = budget.memory_bytes - sum(exact.weight_bytes.values())
    models, changed = [], False
    for model in table.models:
        needs = _needs(model, choices[model.name], allowed)
        layers = [
            replace(layer, choices=tuple(_raised_to(c, needs.get((layer.name, c.name), 0)) for c in layer.choices))
            for layer in model.layers
        ]
        changed = changed or tuple(layers) != model.layers
        models.append(replace(model, layers=tuple(layers)) if needs else model)
    return replace(table, models=tuple(models)) if changed else None


def _needs(model: ModelCosts, chosen: Mapping[str, str], allowed: int | None) -> dict[tuple[str, str], int]:
    """Return what is alive in a plan while the layers run that need more than is allowed, or than all others."""
    if model.memory is None:
        return {}
    found = peaks(model.memory, [chosen])
    greatest = max(peak.most for peak in found.values())
    # What packing adds to the greatest live set is theirs too.
    beyond = max(0, model.arena_bytes(chosen) - greatest)
    least = greatest if allowed is None else min(greatest, allowed - beyond + 1)
    return {place: peak.most + beyond for place, peak in found.items() if peak.most >= least}


def _raised_to(choice: ChoiceCost, needed: int) -> ChoiceCost:
    if needed <= choice.least_arena:
        return choice
    most = max(needed, choice.activation_bytes)
    return replace(choice, activation_bytes=most, least_activation_bytes=needed)
