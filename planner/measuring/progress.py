"""How far a whole measuring run is, over all models and phases, and how long the rest may take."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.measuring.records import Phase

if TYPE_CHECKING:
    from planner.measuring.store import Store

__all__ = ["WHOLE", "Outlook", "Progress", "remaining_s"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

WHOLE = "whole run, seconds"
"""What progress over everything is told as: seconds that have gone by, and those expected in all."""

PART_S = 0.5
"""What a part of a phase is taken to last before any was measured, seconds."""
_MARK_S = 1.0
"""How often, at most, the store is told how far a phase is."""


def remaining_s(phases: Sequence[Phase], earlier: Iterable[Phase] = ()) -> float:
    """Estimate how long the open parts of a run may take.

    A part is taken to last as long as those of the same phase and model did, in this run or else in an earlier one;
    or else as those of the same phase of other models; or else :data:`PART_S`.

    Args:
        phases: The phases of the run.
        earlier: Phases of earlier runs, the latest last.

    Returns:
        Seconds.

    >>> done = Phase(model="a", phase="losses", done=10, total=10, seconds=20.0)
    >>> remaining_s([done, Phase(model="b", phase="losses", done=0, total=5)])
    10.0
    """
    own: dict[tuple[str, str], float] = {}
    like: dict[str, float] = {}
    for phase in (*earlier, *phases):
        if phase.part_s is not None:
            own[phase.model, phase.phase] = like[phase.phase] = phase.part_s
    return sum(
        phase.open * own.get((phase.model, phase.phase), like.get(phase.phase, PART_S))
        for phase in phases
        if phase.open
    )


class Outlook:
    """Hears how far each phase is, keeps it in the store, and tells how far the whole is.

    Attributes:
        phases: The phases by model and name, in the order in which they come.
    """

    def __init__(
        self,
        store: Store,
        expected: Mapping[tuple[str, str], int],
        tell: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Note what there is to do.

        Args:
            store: Is told how far the run is, about once a second.
            expected: How many parts each phase of each model is expected to have.
            tell: Is told what this is told, and how far the whole is.
            clock: Seconds.
        """
        self._store, self._tell, self._clock = store, tell, clock
        self._earlier = [phase for run, found in store.phases().items() if run != store.run for phase in found]
        self.phases = {key: Phase(model=key[0], phase=key[1], total=total) for key, total in expected.items()}
        self._begun = self._before = self._marked = clock()
        self._starts: dict[tuple[str, str], float] = {}
        self._current = ("", "")
        store.mark_phases(tuple(self.phases.values()))

    def __call__(self, what: str, done: int, total: int) -> None:
        """Hear that a phase, ``model: phase``, has so many of its parts done."""
        now = self._clock()
        key = _key(what)
        if key not in self._starts:
            self._finish(now)
            # The first word of a phase comes after its first part, or before it; what else is done was there before.
            self._starts[key] = self._before
            self.phases[key] = Phase(model=key[0], phase=key[1], reused=max(0, done - 1))
        self._current = key
        # A number in the name of a phase may change on the way, and its total with it; done never goes back.
        phase = self.phases[key]
        done = max(done, phase.done)
        self.phases[key] = replace(phase, done=done, total=max(done, total), seconds=now - self._starts[key])
        self._before = now
        if done >= total or now - self._marked >= _MARK_S:
            self._store.mark_phases([self.phases[key]])
            self._marked = now
        self._tell(what, done, max(done, total))
        gone = now - self._begun
        self._tell(WHOLE, int(gone), int(gone + remaining_s(tuple(self.phases.values()), self._earlier)) + 1)

    def _finish(self, now: float) -> None:
        """Take the present phase for done, as another begins: it may have told of each part before the part."""
        phase = self.phases.get(self._current)
        if phase is not None and phase.open:
            self.phases[self._current] = replace(phase, done=phase.total, seconds=now - self._starts[self._current])
            self._store.mark_phases([self.phases[self._current]])
            self._before = now

    def end(self) -> None:
        """Hear that all is done: phases that were expected and did not come had nothing to do."""
        self._finish(self._clock())
        self.phases = {key: replace(phase, total=phase.done) for key, phase in self.phases.items()}
        self._store.mark_phases(tuple(self.phases.values()))
        gone = int(self._clock() - self._begun) + 1
        self._tell(WHOLE, gone, gone)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Give how long each phase of each model took, seconds."""
        found: dict[str, dict[str, float]] = {}
        for (model, name), phase in self.phases.items():
            found.setdefault(model, {})[name] = round(phase.seconds, 3)
        return found


def _key(what: str) -> tuple[str, str]:
    model, colon, phase = what.rpartition(": ")
    return model if colon else "", re.sub(r" \d+\b", "", phase)
