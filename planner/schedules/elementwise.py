"""Everything that touches each element once: layout changes, residual adds, interpolation, what nobody fused."""

from __future__ import annotations

from typing import Any

from tvm import s_tir, te, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.scheduling import Kernel

_WORTH_A_THREAD = 8192
"""Elements below which waking another thread costs more than it saves."""


def to_blocked(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather NCHW into the blocked layout, zeros in the channels that pad the last block."""
    last = size.channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = o * CHANNELS + b
        read = data[0, te.min(channel, last), p // size.width, p % size.width]
        if size.channels % CHANNELS == 0:
            return read
        return te.if_then_else(channel <= last, read, 0.0)

    return te.compute(size.blocked_shape, value, name="to_blocked")


def to_plain(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Gather the blocked layout back into NCHW."""
    return te.compute(
        size.plain_shape,
        lambda _, c, h, w: data[c // CHANNELS, h * size.width + w, c % CHANNELS],
        name="to_plain",
    )


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


def interpolate_rows(data: te.Tensor, *, source: FeatureMap, output: FeatureMap) -> te.Tensor:
    """Double the rows of a blocked map: even rows are copied, odd ones are the mean of their neighbours.

    The last row of an even height has one neighbour only and repeats it.
    """

    def value(o: Any, p: Any, b: Any) -> Any:
        y, x = p // output.width, p % output.width
        above = data[o, (y // 2) * source.width + x, b]
        below = data[o, te.min((y + 1) // 2, source.height - 1) * source.width + x, b]
        return (above + below) * tirx.const(0.5, "float32")

    return te.compute(output.blocked_shape, value, name="interpolate_rows")


class ElementwiseRule(ScheduleRule):
    """Inline what can be inlined, vectorise what is data-parallel; correct for any function whatever."""

    name = "elementwise"

    def __init__(self, unit: vectors.VectorUnit) -> None:
        """Remember the vector unit."""
        self.unit = unit

    def describe(self, kernel: Kernel) -> str:
        """Say how a kernel is scheduled, as written to the build config."""
        return "elementwise"

    def matches(self, kernel: Kernel) -> bool:
        """Take every kernel that no other rule took."""
        return True

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func``, whatever it is."""
        kernel = Kernel(func)
        sch = kernel.sch
        root = sch.get_sblock("root")
        for block in sch.get_child_blocks(root)[:-1]:
            if self._inlinable(sch, block):
                sch.compute_inline(block)
        for block in sch.get_child_blocks(root):
            loops = sch.get_loops(block)
            kinds = [int(v.iter_type) for v in sch.get(block).iter_vars]
            if not loops or any(kinds):  # a reduction or an opaque block stays as it is
                continue
            if len(loops) == 3 and kernel.extent(loops[-1]) == CHANNELS:  # blocked: rows of lanes
                sch.vectorize(loops[-1])
                if self.unit.parallel:
                    sch.parallel(loops[0])
                continue
            fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
            count = kernel.extent(fused)
            lanes = kernel.divisor(fused, (CHANNELS, 8, 4))
            if lanes == 1 or count <= lanes:
                continue
            outer, lane = sch.split(fused, [None, lanes])
            sch.vectorize(lane)
            if self.unit.parallel and count >= _WORTH_A_THREAD:
                sch.parallel(outer)
        return sch

    @staticmethod
    def _inlinable(sch: s_tir.Schedule, block: Any) -> bool:
        """Tell whether a block is a plain producer: data-parallel, one output, and somebody reads it."""
        realised = sch.get(block)
        spatial = all(int(v.iter_type) == 0 for v in realised.iter_vars)
        writes_once = len(realised.writes) == 1 and realised.init is None
        return spatial and writes_once and bool(sch.get_consumers(block))
