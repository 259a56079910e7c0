"""Learning what layers become in memory: from builds that are made anyway, and from networks that are only outlined.

An outlined network is lowered, scheduled and planned, and no code is generated for it.  Plans are chosen for that in
which as many layers as possible meet something that they were not seen with; then random plans are put together first
and outlined afterwards.  Where the two differ, the difference is learnt, and stated as a slack of every promise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from costmodels.composing import Laid, compose, found_forms, lay
from costmodels.deriving import script_for
from costmodels.scripts import ModelScripts
from planner.masks.costs import random_plan, random_shares
from planner.measuring.notebook import Notebook, UnreadableNetworkError

if TYPE_CHECKING:
    from planner.graph import LayerGraph
    from planner.operators import Outline

__all__ = ["study"]

logger = logging.getLogger(__name__)

_MOST_OUTLINES = 200
"""Networks that are outlined at most to learn scripts."""
_QUIET = 4
"""Times in a row that no plan with anything unknown is found, before learning ends."""
_DRAWS = 4
"""Plans that are drawn to find the one with the most that is unknown."""

Look = Callable[[Mapping[str, str]], "Outline"]
"""Outlines a plan."""
Tell = Callable[[int, int], None]


def study(
    graph: LayerGraph,
    choices: Mapping[str, Sequence[str]],
    seen: Iterable[tuple[Mapping[str, str], Outline]],
    look: Look,
    *,
    mixes: int,
    seed: int,
    tell: Tell,
) -> ModelScripts | None:
    """Learn the memory scripts of a network.

    Args:
        graph: The network.
        choices: The choices of each layer.
        seen: Plans that were built, and their outlines; each choice of each layer is in one of them.
        look: Outlines another plan.
        mixes: Random plans whose memory is put together and then looked at.
        seed: Seed of what is drawn.
        tell: Is told how many plans were looked at, and how many there may be.

    Returns:
        The scripts; None where its operators are not such as scripts describe.
    """
    random = np.random.default_rng(seed)
    notebook = Notebook(graph)
    try:
        seen = list(seen)
        for plan, outline in seen:
            _learn(notebook, plan, outline)
        looked = _explore(notebook, choices, look, random, tell, mixes)
        return _verified(notebook, choices, seen, look, random, mixes, lambda done: tell(looked + done, looked + mixes))
    except UnreadableNetworkError as error:
        logger.warning("%s; its arena is promised from the worst of its builds", error)
        return None


def _learn(notebook: Notebook, plan: Mapping[str, str], outline: Outline) -> None:
    if outline.operations is None:
        raise UnreadableNetworkError(f"{notebook.graph.name}: an operator gives several tensors")
    notebook.learn(plan, outline.operations, outline.kernels)


def _explore(
    notebook: Notebook,
    choices: Mapping[str, Sequence[str]],
    look: Look,
    random: np.random.Generator,
    tell: Tell,
    mixes: int,
) -> int:
    """Outline plans with something unknown while there are any; return how many."""
    looked = quiet = 0
    while quiet < _QUIET and looked < _MOST_OUTLINES:
        scripts = notebook.scripts()
        unknown, plan = max(
            (_unfamiliar(notebook.graph, choices, scripts, random) for _ in range(_DRAWS)), key=lambda drawn: drawn[0]
        )
        if not unknown:
            quiet += 1
            continue
        quiet = 0
        _learn(notebook, plan, look(plan))
        looked += 1
        tell(looked, looked + mixes)
    return looked


def _unfamiliar(
    graph: LayerGraph, choices: Mapping[str, Sequence[str]], scripts: ModelScripts, random: np.random.Generator
) -> tuple[int, dict[str, str]]:
    """Draw a plan in which layers take what is unknown among what they find, where they can; count how many do."""
    fitting = random_shares(graph, choices, random)
    laid = Laid([], [], {})
    unknown, plan = 0, {}
    for layer in scripts.layers:
        found = found_forms(laid, layer.sources, scripts.input_form)
        new = [name for name in fitting[layer.name] if not script_for(layer, name, found.forms)[1]]
        plan[layer.name] = str(random.choice(new or list(fitting[layer.name])))
        unknown += bool(new)
        script, _ = script_for(layer, plan[layer.name], found.forms)
        lay(laid, layer.name, script, found, layer.writes.get(plan[layer.name], ""))
    return unknown, plan


def _verified(
    notebook: Notebook,
    choices: Mapping[str, Sequence[str]],
    seen: Sequence[tuple[Mapping[str, str], Outline]],
    look: Look,
    random: np.random.Generator,
    mixes: int,
    tell: Callable[[int], None],
) -> ModelScripts:
    """Put builds and random plans together and compare; what is off is learnt, and counts as slack."""
    scripts = notebook.scripts()
    slack = max((_excess(scripts, plan, outline) for plan, outline in seen), default=0)
    for done in range(mixes):
        plan = random_plan(notebook.graph, choices, random)
        outline = look(plan)
        slack = max(slack, _excess(notebook.scripts(), plan, outline))
        _learn(notebook, plan, outline)
        tell(done + 1)
    return notebook.scripts(slack_bytes=slack, checked=len(seen) + mixes)


def _excess(scripts: ModelScripts, plan: Mapping[str, str], outline: Outline) -> int:
    """Return by how many bytes a network exceeds what is put together for it and called exact."""
    composed = compose(scripts, plan)
    if composed.bytes != outline.arena_bytes:
        logger.warning(
            "%d bytes were put together for a plan, and %d are needed%s: %s",
            composed.bytes,
            outline.arena_bytes,
            f" (guessed: {', '.join(composed.guessed)})" if composed.guessed else "",
            dict(plan),
        )
    return max(0, outline.arena_bytes - composed.bytes) if composed.exact else 0
