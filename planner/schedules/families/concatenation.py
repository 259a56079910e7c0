"""Joining feature maps along their channels in the blocked layout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te

from planner.schedules import layouts
from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

CONCATENATE = "concatenate"


def _first_of(place: Any, ends: Sequence[int], reads: Sequence[Any]) -> Any:
    """Choose the value that belongs to the first end behind a place."""
    *before, chosen = reads
    for end, read in reversed(list(zip(ends[:-1], before, strict=True))):
        chosen = te.if_then_else(place < end, read, chosen)
    return chosen


def concatenate(*parts: te.Tensor) -> te.Tensor:
    """Join blocked maps of the same pixels along their channel blocks."""
    ends = list(accumulate(int(part.shape[0]) for part in parts))

    def value(o: Any, p: Any, b: Any) -> Any:
        return _first_of(o, ends, [t[o - end + int(t.shape[0]), p, b] for t, end in zip(parts, ends, strict=True)])

    return te.compute((ends[-1], *parts[0].shape[1:]), value, name=CONCATENATE)


def interlock(*parts: te.Tensor, sizes: Sequence[FeatureMap], output: FeatureMap) -> te.Tensor:
    """Join blocked maps of which some end within a block, or have groups.

    Args:
        parts: ``(blocks, pixels, 16)`` each.
        sizes: Their sizes.
        output: Size of the whole.
    """
    ends = list(accumulate(size.channels for size in sizes))

    def read(channel: Any, p: Any) -> Any:
        reads = []
        for part, size, end in zip(parts, sizes, ends, strict=True):
            block, lane = size.slot(channel - end + size.channels)
            reads.append(part[block, p, lane])
        return _first_of(channel, ends, reads)

    return layouts.gather(output, read, parts=len(parts))


class ConcatenationRule(FamilyRule):
    """Schedule :func:`concatenate`: each part is copied by a loop of its own."""

    FAMILY = "concatenation"
    ANCHOR = CONCATENATE

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many parts pixels are cut into, to be spread over threads."""
        o, p, b = kernel.loops(CONCATENATE)
        spread = self.unit.worth_threads(kernel.extent(o) * kernel.extent(p) * kernel.extent(b))
        return {"parts": kernel.divisor(p, range(8, 1, -1)) if spread else 1}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a join of whole blocks; pixels are spread over threads in so many ``parts``."""
        sch = kernel.sch
        o, p, b = sch.get_loops(kernel.inlined())
        po, pi = sch.split(p, [parameters["parts"], None])
        sch.reorder(po, o, pi, b)
        sch.vectorize(b)
        sch.annotate(o, "pragma_loop_partition_hint", 1)
        if parameters["parts"] > 1:
            sch.parallel(po)
        return sch


def lower_concat(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Join maps along their channels."""
    fields = list(call.args[0].fields)
    if len(shape_of(var)) != 4 or int(call.attrs.axis) % 4 != 1 or not any(rewriter.in_blocks(f) for f in fields):
        return False
    output = FeatureMap.of(shape_of(var))
    whole = all(shape_of(f)[1] % CHANNELS == 0 for f in fields[:-1])
    if whole and not any(f in rewriter.grouped for f in fields):
        parts = [rewriter.as_blocked(f) for f in fields]
        rewriter.blocked[var] = (rewriter.call(concatenate, *parts, hint="concat", pattern=FUSABLE), output)
        return True
    for field in fields:
        if not rewriter.in_blocks(field):
            rewriter.as_blocked(field)
    pairs = [rewriter.blocked.get(f) or rewriter.grouped[f] for f in fields]
    tensors, sizes = [data for data, _ in pairs], [size for _, size in pairs]
    result = rewriter.call(interlock, *tensors, hint="concat", pattern=FUSABLE, sizes=sizes, output=output)
    rewriter.blocked[var] = (result, output)
    return True


LOWERINGS = {"relax.concat": lower_concat}
