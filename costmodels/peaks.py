"""How much is alive while a layer runs, at least and at most, whatever the other layers of its network take.

What a plan's arena is depends on how its layers' tensors meet, which no sum over layers says.  A solver is given bounds
instead: of each layer under each choice the least and the greatest live set in which it was found among many plans.
They guide; what is promised is put together for the plan that comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from costmodels.arena import aligned
from costmodels.composing import compose
from costmodels.memory import MemoryScript
from costmodels.scripts import ModelScripts

__all__ = ["Peak", "peaks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """State how many bytes are alive while a layer runs.

    Attributes:
        least: In the plan in which it is least.
        most: In the plan in which it is most.

    >>> Peak(least=10, most=20).with_slack(5)
    Peak(least=10, most=25)
    """

    least: int
    most: int

    def with_slack(self, slack: int) -> Peak:
        """Return the peak with more at most."""
        return Peak(least=self.least, most=self.most + slack)


def peaks(scripts: ModelScripts, plans: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], Peak]:
    """Look for the least and the greatest live set of each layer under each choice.

    Args:
        scripts: What layers become.
        plans: Plans to look at; a layer's choices are judged by those in which it takes them.

    Returns:
        By layer and choice the bytes alive while its own kernels run, network input and output and workspaces
        included, sizes rounded up as in the arena.  A layer that has no kernel of its own has 0.
    """
    found: dict[tuple[str, str], Peak] = {}
    for plan in plans:
        composed = compose(scripts, plan)
        mine = dict.fromkeys(plan, 0)
        for call, alive in zip(composed.script.calls, _alive(composed.script), strict=True):
            mine[call.owner] = max(mine[call.owner], alive + composed.asked_bytes)
        for place in plan.items():
            alive = mine[place[0]]
            before = found.get(place, Peak(least=alive, most=alive))
            found[place] = Peak(least=min(before.least, alive), most=max(before.most, alive))
    return found


def _alive(script: MemoryScript) -> list[int]:
    """Count the bytes in the arena during each call, rounded up as they lie there, and those beside it."""
    tensors, _, _ = script.tensors()
    change = [0] * (len(script.calls) + 1)
    for tensor in tensors:
        # What takes another's place is counted from the next call on.
        change[tensor.born + (tensor.within is not None)] += aligned(tensor.bytes)
        change[tensor.last + 1] -= aligned(tensor.bytes)
    alive, total = [], script.outside_bytes
    for step in range(len(script.calls)):
        total += change[step]
        alive.append(total)
    return alive
