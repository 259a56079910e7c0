"""Permutations of axes that move the last one: what was contiguous is scattered, a cache line at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te

from planner.schedules.blocked import CHANNELS
from planner.schedules.rewriter import ALONE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

TRANSPOSED = "transposed"
_LAST = "last"
_WORTH_A_THREAD = 8192
"""Elements below which waking another thread costs more than it saves."""


def transpose(data: te.Tensor, *, axes: Sequence[int]) -> te.Tensor:
    """Describe a permutation of axes.

    Args:
        data: Any tensor.
        axes: For each axis of the result, the one of ``data`` that it was.

    Returns:
        The permuted tensor.
    """
    shape = [int(data.shape[axis]) for axis in axes]

    def value(*index: Any) -> Any:
        place = dict(zip(axes, index, strict=True))
        return data[tuple(place[axis] for axis in range(len(axes)))]

    notes = {_LAST: list(axes).index(len(axes) - 1)}
    return te.compute(tuple(shape), value, name=TRANSPOSED, attrs=notes)


class TranspositionRule(FamilyRule):
    """Read whole cache lines, and write as many rows of the result as one of them has elements."""

    FAMILY = "transposition"
    ANCHOR = TRANSPOSED

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many neighbours of the source are moved together."""
        return {"run": self._runs(kernel)[0]}

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """Try shorter runs."""
        return tuple({"run": run} for run in self._runs(kernel))

    def _runs(self, kernel: Kernel) -> list[int]:
        extent = kernel.extent(kernel.loops(TRANSPOSED)[int(kernel.annotation(TRANSPOSED, _LAST))])
        return [run for run in (CHANNELS, 8, 4, 2, 1) if extent % run == 0]

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a permutation; ``run`` neighbours of the source are moved at once."""
        sch = kernel.sch
        loops = list(kernel.loops(TRANSPOSED))
        last = int(kernel.annotation(TRANSPOSED, _LAST))
        elements = prod(kernel.extent(loop) for loop in loops)
        outer, inner = sch.split(loops[last], [None, parameters["run"]])
        front = [*loops[:last], outer, *loops[last + 1 : -1]]
        sch.reorder(*front, loops[-1], inner)
        sch.unroll(inner)
        if self.unit.parallel and elements >= _WORTH_A_THREAD:
            sch.parallel(sch.fuse(*front))
        return sch


def lower_permute_dims(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a permutation of a plain tensor that moves its last axis."""
    source = call.args[0]
    if not isinstance(source, relax.Var) or source in rewriter.blocked or rewriter.constants.of(source) is not None:
        return False
    rank = len(shape_of(var))
    given = call.attrs.axes
    axes = list(reversed(range(rank))) if given is None else [int(axis) % rank for axis in given]
    if rank < 2 or axes[-1] == rank - 1:
        return False
    rewriter.plain[var] = rewriter.call(
        transpose, rewriter.as_plain(source), hint="transpose", pattern=ALONE, axes=axes
    )
    return True


LOWERINGS = {"relax.permute_dims": lower_permute_dims}
