"""Channels put in another order in the blocked layout: shuffles, groups of other sizes, joins that end within a block.

No formula in a lane's number makes such a copy one of whole registers.  But where each channel comes from is known
at build time: with all channels of a pixel unrolled, every address is a constant from one pointer, and neighbours
that stay neighbours move together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.layouts import GATHER, PARTS, gather
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

_UNROLLED = 72
"""Blocks of one pixel whose copies are written out one by one: some 16 KiB of code."""
_PARTS = 8
"""Parts that pixels are cut into at most, to be spread over threads."""


def shuffle(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, groups: int) -> te.Tensor:
    """Describe a channel shuffle: what was counted group by group is counted across groups.

    Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices" (CVPR 2018),
    section 3.1.
    """
    each = source.channels // groups

    def read(channel: Any, p: Any) -> Any:
        block, lane = source.slot(channel % groups * each + channel // groups)
        return data[block, p, lane]

    return gather(output, read)


class ChannelsRule(FamilyRule):
    """Schedule :func:`.layouts.gather`: pixel by pixel, the copies of all its channels written out."""

    FAMILY = "channels"
    ANCHOR = GATHER

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many blocks are written out, and in which order.

        All of them are, unless that is too much code.  Where a register holds a whole block, it is best put
        together lane by lane, unless lanes are of different maps; narrower ones the compiler fills by itself.
        """
        o, p, _ = kernel.loops(GATHER)
        blocks, pixels = kernel.extent(o), kernel.extent(p)
        parts = int(kernel.annotation(GATHER, PARTS))
        spread = self.unit.worth_threads(blocks * pixels * CHANNELS)
        return {
            "blocks": blocks if blocks <= _UNROLLED else 1,
            "vector": int(self.unit.registers_per_block == 1 and parts == 1),
            "parts": kernel.divisor(p, range(_PARTS, 1, -1)) if spread else 1,
        }

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a gathering of channels.

        ``blocks`` are written out: pixel by pixel, or with ``vector`` one after the other, each as a vector. Pixels
        are spread over threads in so many ``parts``.
        """
        sch = kernel.sch
        o, p, b = sch.get_loops(kernel.inlined())
        oo, oi = sch.split(o, [None, parameters["blocks"]])
        po, pi = sch.split(p, [parameters["parts"], None])
        if parameters["vector"]:
            sch.reorder(oo, po, oi, pi, b)
            sch.vectorize(b)
        else:
            sch.reorder(oo, po, pi, oi, b)
            sch.unroll(b)
        sch.unroll(oi)
        if parameters["parts"] > 1:
            sch.parallel(sch.fuse(oo, po))
        return sch


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrouping:
    """A map whose channels were split into groups, perhaps with both axes swapped: half of a channel shuffle.

    Attributes:
        call: How it is computed where somebody asks for it as it is.
        source: The map before the split.
        groups: Groups that its channels were split into.
        swapped: Whether the group now is the inner of both axes.
    """

    call: relax.Call
    source: relax.Var
    groups: int
    swapped: bool = False

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Compute it as it stands."""
        rewriter.plain[var] = rewriter.bb.emit(rewriter.copy(self.call), name_hint=rewriter.name)


def lower_reshape(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Take the split of a map's channels for the start of a shuffle, and their joining for its end."""
    source, shape = call.args[0], shape_of(var)
    if len(shape) == 5 and rewriter.in_blocks(source):
        images, channels, *pixels = shape_of(source)
        if [shape[0], shape[1] * shape[2], *shape[3:]] != [images, channels, *pixels]:
            return False
        rewriter.deferred[var] = Regrouping(call=call, source=source, groups=shape[1])
        return True
    split = rewriter.deferred.get(source) if isinstance(source, relax.Var) else None
    if not isinstance(split, Regrouping) or not split.swapped or shape != shape_of(split.source):
        return False
    data, size = rewriter.grouped.get(split.source) or rewriter.blocked[split.source]
    output = FeatureMap.of(shape)
    keywords = {"source": size, "output": output, "groups": split.groups}
    result = rewriter.call(shuffle, data, hint="shuffle", pattern=FUSABLE, **keywords)
    rewriter.blocked[var] = (result, output)
    return True


def lower_permute(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Take the swap of a channel's group and its place in the group for the middle of a shuffle."""
    split = rewriter.deferred.get(call.args[0]) if isinstance(call.args[0], relax.Var) else None
    if not isinstance(split, Regrouping) or split.swapped or call.attrs.axes is None:
        return False
    if [int(axis) for axis in call.attrs.axes] != [0, 2, 1, 3, 4]:
        return False
    rewriter.deferred[var] = replace(split, call=call, swapped=True)
    return True


LOWERINGS = {"relax.reshape": lower_reshape, "relax.permute_dims": lower_permute}
