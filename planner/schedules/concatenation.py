"""Joining feature maps along their channels in the blocked layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import shape_of

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter


def concatenate(*parts: te.Tensor) -> te.Tensor:
    """Join blocked maps of the same pixels along their channel blocks."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + int(part.shape[0]))

    def value(o: Any, p: Any, b: Any) -> Any:
        read = parts[-1][o - starts[-2], p, b]
        for part, start, end in reversed(list(zip(parts[:-1], starts, starts[1:], strict=False))):
            read = te.if_then_else(o < end, part[o - start, p, b], read)
        return read

    return te.compute((starts[-1], *parts[0].shape[1:]), value, name="concatenate")


def lower_concat(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Join maps along their channels where all but the last end on a block."""
    fields = list(call.args[0].fields)
    shapes = [shape_of(f) for f in fields]
    blocked_fields = [f for f in fields if isinstance(f, relax.Var) and f in rewriter.blocked]
    if not blocked_fields or len(shapes[0]) != 4 or int(call.attrs.axis) % 4 != 1:
        return False
    if any(s[1] % CHANNELS for s in shapes[:-1]):
        return False
    output = FeatureMap.of(shape_of(var))
    parts = [rewriter.as_blocked(f) for f in fields]
    rewriter.blocked[var] = (rewriter.call(concatenate, *parts, hint="concat"), output)
    return True


LOWERINGS = {"relax.concat": lower_concat}
