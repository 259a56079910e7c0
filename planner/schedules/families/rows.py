"""What kernels have in common that go over a tensor row by row: softmax, layer normalisation, sums along an axis.

A row is read as vectors of many lanes, so that several accumulators run side by side; the lanes are then folded in
halves.  What is left of a row that is no multiple of a vector is added one by one.  All of it happens in registers
or on the stack before the next row is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from tvm import s_tir, te

from planner.schedules.blocked import CHANNELS
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

ROLE = "row_role"
_LANES = "lanes"
_FOLD = "fold"
_TAIL = "tail"
_VALUE = "value"
_SPREAD = "spread"
_RESULT = "result"

_WORTH_A_THREAD = 8192
"""Elements below which waking another thread costs more than it saves."""

_ON_STACK = 256
"""Elements of a row that TVM keeps on the stack."""

Combine = Callable[[Any, Any], Any]
Reduce = Callable[..., Any]


def _lanes_for(length: int) -> int:
    return next((lanes for lanes in (64, 32) if length % lanes == 0), CHANNELS)


def reduced(
    lead: Sequence[int],
    length: int,
    read: Callable[..., Any],
    *,
    name: str,
    reduce: Reduce,
    combine: Combine,
    over: Sequence[int] = (),
) -> te.Tensor:
    """Describe a reduction of rows.

    Args:
        lead: Sizes of the dimensions in front of the row.
        length: Elements of a row.
        read: Gives an element from its index: the leading ones, those of ``over``, the place in the row.
        name: Prefix of the stages' names.
        reduce: ``te.sum`` or ``te.max`` or the like.
        combine: The same for two values.
        over: Sizes of further dimensions to reduce, in front of the row.

    Returns:
        One value a row, of shape ``lead``.
    """
    lanes = _lanes_for(length)
    whole, rest = divmod(length, lanes)
    part: te.Tensor | None = None
    if whole:
        outer = [te.reduce_axis((0, size), f"outer{i}") for i, size in enumerate(over)]
        step = te.reduce_axis((0, whole), "step")
        part = te.compute(
            (*lead, lanes),
            lambda *i: reduce(read(*i[:-1], *outer, step * lanes + i[-1]), axis=[*outer, step]),
            name=f"{name}_lanes",
            attrs={ROLE: _LANES},
        )
        while lanes > 1:
            lanes //= 2
            part = _folded(part, lanes, combine, f"{name}_fold{lanes}")
    if rest:
        outer = [te.reduce_axis((0, size), f"outer{i}") for i, size in enumerate(over)]
        place = te.reduce_axis((0, rest), "place")
        tail = te.compute(
            tuple(lead),
            lambda *i: reduce(read(*i, *outer, place + (length - rest)), axis=[*outer, place]),
            name=f"{name}_tail",
            attrs={ROLE: _TAIL},
        )
        if part is None:
            return tail
        both = part
        return value(lead, lambda *i: combine(both[(*i, 0)], tail[i]), f"{name}_both")
    if part is None:
        raise ValueError("a row without elements cannot be reduced")
    folded = part
    return value(lead, lambda *i: folded[(*i, 0)], f"{name}_one")


def _folded(part: te.Tensor, lanes: int, combine: Combine, name: str) -> te.Tensor:
    shape = (*(int(n) for n in part.shape[:-1]), lanes)
    return te.compute(
        shape, lambda *i: combine(part[i], part[(*i[:-1], i[-1] + lanes)]), name=name, attrs={ROLE: _FOLD}
    )


def value(lead: Sequence[int], of: Callable[..., Any], name: str) -> te.Tensor:
    """Describe one value a row that is computed from others."""
    return te.compute(tuple(lead), of, name=name, attrs={ROLE: _VALUE})


def spread(shape: Sequence[int], of: Callable[..., Any], name: str) -> te.Tensor:
    """Describe a row of intermediate values, kept until the next row."""
    return te.compute(tuple(shape), of, name=name, attrs={ROLE: _SPREAD})


def result(shape: Sequence[int], of: Callable[..., Any], name: str, rank: int) -> te.Tensor:
    """Describe what a kernel gives; whatever follows elementwise is computed in the same place.

    Args:
        shape: Its shape.
        of: Gives an element.
        name: Name of the stage.
        rank: Leading dimensions that tell one row from another.
    """
    return te.compute(tuple(shape), of, name=name, attrs={ROLE: _RESULT, "rank": rank})


class RowRule(FamilyRule):
    """Compute all stages of a row before the next one, each vectorised.

    A family of such kernels derives from this and names the stage made by :func:`result` as its anchor.
    """

    def default(self, kernel: Kernel) -> Parameters:
        """Choose whether rows of intermediate values are kept: where the stack holds them."""
        lengths = [int(kernel.sch.get(kernel.block(name)).writes[0].source.shape[-1]) for name in self._spreads(kernel)]
        return {"keep": int(max(lengths) <= _ON_STACK)} if lengths else {}

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """Try to keep them, and to compute them again where they are read."""
        default = self.default(kernel)
        return (default, {"keep": 1 - default["keep"]}) if default else (default,)

    @staticmethod
    def _role(kernel: Kernel, name: str) -> str:
        return str(kernel.sch.get(kernel.block(name)).annotations.get(ROLE, ""))

    def _spreads(self, kernel: Kernel) -> list[str]:
        return [name for name in kernel.names() if self._role(kernel, name) == _SPREAD]

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a kernel of stages that this module described."""
        sch = kernel.sch
        names = kernel.names()
        roles = {name: self._role(kernel, name) for name in names}
        spread_over_threads = self.unit.parallel and self._elements(kernel) >= _WORTH_A_THREAD
        rank = int(kernel.annotation(self.ANCHOR, "rank"))
        stages = names[: names.index(self.ANCHOR)]
        writer = kernel.block(names[-1])
        for name in names[names.index(self.ANCHOR) : -1]:
            sch.compute_inline(kernel.block(name))
        for name in stages:
            if not roles[name]:  # what was fused in front
                sch.compute_inline(kernel.block(name))
        if not parameters.get("keep", 1):
            for name in self._spreads(kernel):
                sch.compute_inline(kernel.block(name))
        stages = [name for name in kernel.names() if roles[name] not in {"", _RESULT}]
        loops = sch.get_loops(writer)
        row = loops[rank - 1] if rank else None
        for name in reversed(stages):
            block = kernel.block(name)
            if row is not None:
                sch.compute_at(block, row)
            sch.set_scope(block, 0, "local")
        if spread_over_threads and rank:
            lead = sch.get_loops(writer)[:rank]
            sch.parallel(sch.fuse(*lead) if rank > 1 else lead[0])
            rank = 1
        for name in stages:
            self._vectorise(kernel, name, roles[name], rank)
        self._spread_out(kernel, sch.get_loops(writer)[rank:])
        return sch

    def _vectorise(self, kernel: Kernel, name: str, role: str, rank: int) -> None:
        sch = kernel.sch
        loops = sch.get_loops(kernel.block(name))[rank:]  # loops of one pass are gone
        if not loops:
            return
        if role == _LANES:
            lane, *loops = loops
            sch.reorder(*loops, lane)
            sch.vectorize(lane)
        elif role == _FOLD:
            sch.vectorize(loops[-1])
        elif role == _SPREAD:
            self._spread_out(kernel, loops)
        if role in {_LANES, _TAIL} and loops:
            sch.decompose_reduction(kernel.block(name), loops[0])

    @staticmethod
    def _spread_out(kernel: Kernel, loops: Sequence[Any]) -> None:
        """Vectorise what is done to each element of a row; odd lengths are left to LLVM, which splits the rest off."""
        if not loops:
            return
        last = loops[-1]
        if kernel.extent(last) % CHANNELS == 0:
            if kernel.extent(last) > CHANNELS:
                _, last = kernel.sch.split(last, [None, CHANNELS])
            kernel.sch.vectorize(last)

    @staticmethod
    def _elements(kernel: Kernel) -> int:
        """Count the elements of the largest tensor that a kernel reads or writes."""
        blocks = [kernel.sch.get(kernel.block(name)) for name in kernel.names()]
        sources = [region.source for block in blocks for region in (*block.reads, *block.writes)]
        return max(prod(int(size) for size in source.shape) for source in sources)
