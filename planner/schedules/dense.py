"""Fully connected layers: ``y[row][out] = sum_k x[row][k] * w[out][k]`` with packed weights."""

from __future__ import annotations

from typing import Any

from tvm import s_tir, te, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from planner.schedules import vectors
from planner.schedules.blocked import CHANNELS
from planner.schedules.scheduling import Kernel

DENSE = "packed_dense"


def columns_for(outputs: int) -> int:
    """Choose how many outputs one block of packed weights holds: four registers' worth, or one."""
    return 4 * CHANNELS if outputs % (4 * CHANNELS) == 0 else CHANNELS


def dense(data: te.Tensor, packed: te.Tensor, *, outputs: int) -> te.Tensor:
    """Describe a dense layer.

    Args:
        data: ``(..., K)`` float32.
        packed: Weights from :func:`blocked.pack_dense`; an integer type is widened where it is read.
        outputs: Real outputs, at most the packed ones.

    Returns:
        ``(..., outputs)`` float32.
    """
    blocks, depth, columns = (int(n) for n in packed.shape)
    k = te.reduce_axis((0, depth), "k")

    def value(*index: Any) -> Any:
        *rows, n = index
        weight = packed[n // columns, k, n % columns]
        if str(packed.dtype) != "float32":
            weight = tirx.Cast("float32", weight)
        return te.sum(data[(*rows, k)] * weight, axis=[k])

    lead = [int(n) for n in data.shape[:-1]]
    full = te.compute((*lead, blocks * columns), value, name=DENSE, attrs={"columns": columns})
    if blocks * columns == outputs:
        return full
    return te.compute((*lead, outputs), lambda *index: full[index], name="crop")


class DenseRule(ScheduleRule):
    """Schedule :func:`dense`: a block of columns times a few rows in registers."""

    name = "dense"

    def __init__(self, unit: vectors.VectorUnit) -> None:
        """Remember the vector unit that tiles are chosen for."""
        self.unit = unit

    def describe(self, kernel: Kernel) -> str:
        """Say which tile a kernel gets, as written to the build config."""
        return f"dense columns={int(kernel.annotation(DENSE, 'columns'))}"

    def matches(self, kernel: Kernel) -> bool:
        """Tell whether this rule is the one for a kernel."""
        return kernel.has(DENSE)

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func`` where it is a dense layer; None where it is not."""
        kernel = Kernel(func)
        if not self.matches(kernel):
            return None
        sch, block = kernel.sch, kernel.block(DENSE)
        columns = int(kernel.annotation(DENSE, "columns"))
        epilogue = kernel.inline_into_epilogue(DENSE)
        *lead, n, k = sch.get_loops(block)
        m = sch.fuse(*lead) if len(lead) > 1 else lead[0]
        rows = kernel.divisor(m, (4, 3, 2))
        mo, mi = sch.split(m, [None, rows])
        no, ni = sch.split(n, [None, columns])
        nv, lane = sch.split(ni, [None, CHANNELS])
        ko, ki = sch.split(k, [None, kernel.divisor(k, (8, 4, 2) if rows == 1 else (4, 2))])
        sch.reorder(no, mo, ko, ki, mi, nv, lane)
        sch.reverse_compute_at(epilogue, mo)
        last = sch.get_loops(epilogue)[-1]
        if kernel.extent(last) > CHANNELS and kernel.extent(last) % CHANNELS == 0:
            _, last = sch.split(last, [None, CHANNELS])
        sch.vectorize(last)
        sch.vectorize(lane)
        for loop in (nv, mi, ki):
            sch.unroll(loop)
        if self.unit.parallel:
            sch.parallel(no)
        sch.decompose_reduction(block, ko)
        return sch
