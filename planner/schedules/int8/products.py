"""The innermost step of a kernel of bytes, put into a schedule in place of the loops that define it.

TVM's own tensorisation wants the intrinsic as a function of buffers and fails on this one; what it would do is done
here: the two innermost loops, over the four channels of a quad and over 16 output channels, are replaced by a block
that says the same in vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, sym, tirx

from planner.schedules.blocked import CHANNELS
from planner.schedules.int8 import targets
from planner.schedules.int8.targets import Instruction

_QUAD = targets.CHANNELS


@dataclass(frozen=True, slots=True)
class _Operand:
    """A buffer and where in it the first element lies that a step uses."""

    buffer: Any
    index: tuple[Any, ...]

    def lanes(self, start: int, count: int) -> tuple[Any, list[Any]]:
        """Give the buffer and the index of some lanes."""
        return self.buffer, [*self.index[:-1], tirx.Ramp(self.index[-1] + start, 1, count)]

    def load(self, start: int, count: int) -> Any:
        """Read some lanes."""
        return tirx.BufferLoad(*self.lanes(start, count))

    def bytes(self, start: int, count: int) -> Any:
        """Read some bytes, of whatever the elements are made of."""
        size = self.size
        if size == 1:
            return self.load(start, count)
        return tirx.reinterpret(f"int8x{count}", self.load(start // size, count // size))

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return int(tvm.DataType(str(self.buffer.dtype)).bits) // 8

    def region(self, count: int) -> Any:
        """Say that so many elements are used."""
        ranges = [tvm.ir.Range.from_min_extent(i, 1) for i in self.index[:-1]]
        return tirx.BufferRegion(self.buffer, [*ranges, tvm.ir.Range.from_min_extent(self.index[-1], count)])


def take_products(sch: s_tir.Schedule, loop: Any, instruction: Instruction, lanes: int) -> None:
    """Replace the loops over a quad and over 16 lanes by an instruction's products.

    Args:
        sch: The schedule.
        loop: The loop over the quad; the one over the lanes is inside it, and the block in that.
        instruction: What to replace them with; not the portable one.
        lanes: Accumulators in a register.
    """
    nest = sch.get(loop)
    realised = nest.body.body
    update = realised.block
    within = (nest.loop_var, nest.body.loop_var)
    pairs = list(zip(update.iter_vars, realised.iter_values, strict=True))
    kept = [(axis, value) for axis, value in pairs if not any(value.same_as(var) for var in within)]
    analyzer = sym.Analyzer()
    for axis, _ in pairs:
        if not any(axis.same_as(other) for other, _ in kept):
            analyzer.bind(axis.var, tirx.const(0, "int32"))

    def first(region: Any) -> _Operand:
        return _Operand(region.source, tuple(analyzer.simplify(r.min) for r in region.region))

    (written,) = update.writes
    sums = first(written)
    data, weights = (first(region) for region in update.reads if not region.source.same_as(written.source))
    stores = []
    for start in range(0, CHANNELS, lanes):
        buffer, index = sums.lanes(start, lanes)
        added = _added(instruction, lanes, sums.load(start, lanes), data, weights, start)
        stores.append(tirx.BufferStore(buffer, added, index))
    width = 1 if str(data.buffer.dtype) == "int32" else _QUAD
    block = s_tir.SBlock(
        [axis for axis, _ in kept],
        [sums.region(CHANNELS), data.region(width), weights.region(CHANNELS * _QUAD // weights.size)],
        [sums.region(CHANNELS)],
        f"{update.name_hint}_products",
        tirx.SeqStmt(stores) if len(stores) > 1 else stores[0],
    )
    realisation = s_tir.SBlockRealize([value for _, value in kept], realised.predicate, block)
    sch.state.replace(sch.get_sref(loop), realisation, {update: block})


def _added(instruction: Instruction, lanes: int, sums: Any, data: _Operand, weights: _Operand, start: int) -> Any:
    """Add the products of a quad to the accumulators from ``start`` on."""
    words = str(data.buffer.dtype) == "int32"
    if instruction is not Instruction.PMADDWD:
        word = (
            tirx.BufferLoad(data.buffer, list(data.index)) if words else tirx.reinterpret("int32", data.load(0, _QUAD))
        )
        return targets.accumulate(instruction, lanes, sums, word, weights.bytes(start * _QUAD, lanes * _QUAD))
    kind = f"int16x{2 * lanes}"
    if words:
        every = tirx.Broadcast(tirx.BufferLoad(data.buffer, list(data.index)), lanes)
        low = every & tirx.Broadcast(tirx.const(0x00FF00FF, "int32"), lanes)
        eight = tirx.Broadcast(tirx.const(8, "uint16"), 2 * lanes)
        high = tirx.reinterpret(f"u{kind}", every) >> eight
        activations = [tirx.reinterpret(kind, low), tirx.reinterpret(kind, high)]
    else:
        halves = (tirx.reinterpret("int32", data.load(place, 2)) for place in (0, 2))
        activations = [tirx.reinterpret(kind, tirx.Broadcast(half, lanes)) for half in halves]
    loads = (weights.bytes(half * 2 * CHANNELS + start * 2, 2 * lanes) for half in (0, 1))
    return targets.accumulate_pairs(lanes, sums, activations, [tirx.Cast(kind, load) for load in loads])
