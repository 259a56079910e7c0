"""What every choice of a network loses: measured one by one, or taken from what a stopped run had finished."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from planner.masks.costs import pairs_to_measure

if TYPE_CHECKING:
    from planner.accuracy import LossCost
    from planner.calibration import Calibration
    from planner.measuring.store import Store
    from planner.model import Model

__all__ = ["choice_losses"]

METHOD = 1
"""How losses are measured; another number for figures that are not to be mixed with those that a store has."""

logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]


def choice_losses(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    calibration: Calibration,
    store: Store,
    *,
    refit: bool,
    tell: Tell,
) -> dict[tuple[str, str], LossCost]:
    """Measure the loss of every choice alone, those that the store has left aside."""
    from planner.accuracy import LossCost, measure_losses

    data = model.data()
    pairs = pairs_to_measure(model.graph, choices)
    about = {
        "method": METHOD,
        "model": model.graph.source_digest,
        "data": data.digest,
        "refit": refit,
    }
    found: dict[tuple[str, str], LossCost] = {}
    for layer, choice in pairs:
        known = store.get("loss", {**about, "layer": layer, "choice": choice})
        if known is not None:
            found[layer, choice] = LossCost(**known.value)
    if found:
        logger.info("%s: %d of %d losses are in the store", model.name, len(found), len(pairs))
    missing: dict[str, list[str]] = {}
    for layer, choice in pairs:
        if (layer, choice) not in found:
            missing.setdefault(layer, []).append(choice)

    def keep(layer: str, choice: str, cost: LossCost) -> None:
        kept = store.put("loss", {**about, "layer": layer, "choice": choice}, dataclasses.asdict(cost))
        found[layer, choice] = LossCost(**kept.value)
        tell(f"{model.name}: losses", len(found), len(pairs))

    measure_losses(model.graph, data, missing, refit=refit, progress=keep, calibration=calibration)
    return found
