"""Random plans to hold predictions against: seeded, layers of a class of channels agreeing on its share.

    from random_plans import draw
    for plan in draw(model.graph, choices, count=15, seed=0): ...

Two of three plans take a random choice for every layer.  In every third most layers stay exact, as in plans that lose
little: two to four layers take a random choice without masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from planner.choices import EXACT
from planner.masks.costs import is_masked, random_plan

if TYPE_CHECKING:
    from planner.graph import LayerGraph

__all__ = ["draw"]

FEW = (2, 4)
"""Least and greatest number of layers that are changed in plans that change few."""


def draw(
    graph: LayerGraph, choices: Mapping[str, Sequence[str]], *, count: int, seed: int = 0
) -> Iterator[dict[str, str]]:
    """Draw plans; the first plans of a seed are the same however many are asked for.

    Args:
        graph: The network.
        choices: The choices of each layer, as a table or `planner.choices.applicable` has them.
        count: How many plans.
        seed: Seed of the drawing.

    Yields:
        The choice of every layer, no plan twice unless there are too few of them.
    """
    seen: list[dict[str, str]] = []
    for number in range(count):
        random = np.random.default_rng([seed, number])
        for _ in range(100):
            plan = _few(choices, random) if number % 3 == 2 else random_plan(graph, choices, random)
            if plan not in seen:
                break
        seen.append(plan)
        yield plan


def _few(choices: Mapping[str, Sequence[str]], random: np.random.Generator) -> dict[str, str]:
    """Draw a plan in which most layers are exact."""
    plain = {layer: [n for n in names if n != EXACT and not is_masked(n)] for layer, names in choices.items()}
    able = [layer for layer, names in plain.items() if names]
    number = min(len(able), int(random.integers(FEW[0], FEW[1], endpoint=True)))
    changed = random.permutation(able)[:number].tolist()
    return {layer: str(random.choice(plain[layer])) if layer in changed else EXACT for layer in choices}
