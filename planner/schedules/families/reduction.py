"""Sums, means, greatest and least values along any axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te, tirx

from planner.schedules.blocked import CHANNELS
from planner.schedules.families import rows
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

ACROSS = "reduced_across"
ALONG = "reduced_along"

_KINDS: dict[str, tuple[Any, Any]] = {
    "relax.sum": (te.sum, lambda a, b: a + b),
    "relax.mean": (te.sum, lambda a, b: a + b),
    "relax.max": (te.max, tirx.max),
    "relax.min": (te.min, tirx.min),
}


def collapsed(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    """Merge neighbouring dimensions that are reduced alike.

    Args:
        shape: Shape of a tensor.
        axes: Its axes that are reduced.

    Returns:
        Sizes of the merged dimensions: kept, reduced, kept, and so on by turns.

    >>> collapsed((2, 3, 4, 5), (2, 3))
    [6, 20]
    >>> collapsed((2, 3, 4, 5), (0, 2))
    [1, 2, 3, 4, 5]
    """
    groups = groupby((i for i, size in enumerate(shape) if size != 1), key=lambda i: i in axes)
    merged = [(is_reduced, prod(shape[i] for i in group)) for is_reduced, group in groups]
    front = [1] if not merged or merged[0][0] else []
    return [*front, *(size for _, size in merged)]


def reduction(data: te.Tensor, *, kind: str) -> te.Tensor:
    """Describe a reduction of every other dimension.

    Args:
        data: float32, its dimensions as :func:`collapsed` orders them.
        kind: The Relax operator.

    Returns:
        What is left, of the shape of the kept dimensions.
    """
    sizes = [int(n) for n in data.shape]
    kept, over = sizes[::2], sizes[1::2]
    reduce, combine = _KINDS[kind]
    factor = tirx.const(1.0 / prod(over), "float32")

    def read(*index: Any) -> Any:
        keeps, goes = index[: len(kept)], index[len(kept) :]
        return data[tuple((goes if i % 2 else keeps)[i // 2] for i in range(len(sizes)))]

    if len(kept) == len(over):
        part = rows.reduced(kept, over[-1], read, name="part", reduce=reduce, combine=combine, over=over[:-1])
        name = ALONG
    else:
        outer = [te.reduce_axis((0, size), f"outer{i}") for i, size in enumerate(over)]
        part = te.compute(tuple(kept), lambda *i: reduce(read(*i, *outer), axis=outer), name="part")
        name = ACROSS
    scaled = kind == "relax.mean"
    return rows.result(kept, lambda *i: part[i] * factor if scaled else part[i], name, len(kept))


class AlongRule(rows.RowRule):
    """Schedule a :func:`reduction` whose last dimension is reduced: row by row."""

    FAMILY = "reduction"
    ANCHOR = ALONG


class AcrossRule(FamilyRule):
    """Schedule a :func:`reduction` whose last dimension is kept: a strip of it in registers."""

    FAMILY = "reduction_across"
    ANCHOR = ACROSS

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many columns are accumulated at once; 0 leaves them to LLVM."""
        return {"columns": next((c for c in (64, 32, CHANNELS) if kernel.extent(kernel.loops(ACROSS)[-1]) % c == 0), 0)}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a reduction; ``columns`` of it are in registers."""
        sch, columns = kernel.sch, parameters["columns"]
        names = kernel.names()
        for name in names[names.index(ACROSS) : -1]:
            sch.compute_inline(kernel.block(name))
        writer = kernel.block(names[-1])
        *lead, last = sch.get_loops(writer)
        part = kernel.block("part")
        if not columns:
            sch.compute_at(part, last)
            sch.set_scope(part, 0, "local")
            return sch
        outer, inner = sch.split(last, [None, columns])
        sch.compute_at(part, outer)
        sch.set_scope(part, 0, "local")
        rank = len(lead) + 1
        lane, *steps = sch.get_loops(part)[rank:]
        sch.reorder(*steps, lane)
        sch.vectorize(lane)
        sch.vectorize(inner)
        if self.unit.parallel:
            sch.parallel(sch.fuse(*lead, outer) if lead else outer)
        sch.decompose_reduction(part, steps[0])
        return sch


def lower_reduction(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a reduction of a float32 tensor in its plain form."""
    source = call.args[0]
    shape = shape_of(source)
    if str(var.ty.dtype) != "float32" or not isinstance(source, relax.Var):
        return False
    axes = range(len(shape)) if call.attrs.axis is None else [int(a) % len(shape) for a in call.attrs.axis]
    sizes = collapsed(shape, list(axes))
    if len(sizes) == 1:
        return False
    data = rewriter.bb.emit(relax.op.reshape(rewriter.as_plain(source), sizes), name_hint=rewriter.name)
    part = rewriter.call(reduction, data, hint="reduce", pattern=FUSABLE, kind=call.op.name)
    rewriter.plain[var] = rewriter.bb.emit(relax.op.reshape(part, shape_of(var)), name_hint=rewriter.name)
    return True


LOWERINGS = dict.fromkeys(_KINDS, lower_reduction)
