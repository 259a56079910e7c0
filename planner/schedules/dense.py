"""Fully connected layers: ``y[row][out] = sum_k x[row][k] * w[out][k]`` with packed weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, s_tir, te, tirx

from planner.schedules.blocked import CHANNELS, pack_dense
from planner.schedules.rewriter import FUSABLE
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

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


class DenseRule(FamilyRule):
    """Schedule :func:`dense`: a block of columns times a few rows in registers."""

    FAMILY = "dense"
    ANCHOR = DENSE

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many rows are accumulated at once, and how far the reduction is unrolled."""
        *lead, _, k = kernel.loops(DENSE)
        count = 1
        for loop in lead:
            count *= kernel.extent(loop)
        rows = next((r for r in (4, 3, 2) if count % r == 0), 1)
        return {"rows": rows, "unroll": kernel.divisor(k, (8, 4, 2) if rows == 1 else (4, 2))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a dense layer; ``rows`` times the packed columns are in registers."""
        sch, block = kernel.sch, kernel.block(DENSE)
        columns = int(kernel.annotation(DENSE, "columns"))
        epilogue = kernel.inline_into_epilogue(DENSE)
        *lead, n, k = sch.get_loops(block)
        m = sch.fuse(*lead) if len(lead) > 1 else lead[0]
        mo, mi = sch.split(m, [None, parameters["rows"]])
        no, ni = sch.split(n, [None, columns])
        nv, lane = sch.split(ni, [None, CHANNELS])
        ko, ki = sch.split(k, [None, parameters["unroll"]])
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


def lower_matmul(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a product with a constant matrix."""
    source = call.args[0]
    weight = rewriter.constants.of(call.args[1])
    if weight is None or weight.values.ndim != 2:
        return False
    if weight.scales is not None and weight.axis != 1:
        return False
    outputs = weight.values.shape[1]
    matrix = weight.values.T
    packed = relax.const(pack_dense(matrix, columns_for(outputs)))
    result = rewriter.call(dense, rewriter.as_plain(source), packed, hint="dense", pattern=FUSABLE, outputs=outputs)
    if weight.scales is not None:
        scales = relax.const(np.ascontiguousarray(weight.scales))
        result = rewriter.bb.emit(relax.op.multiply(result, scales), name_hint=rewriter.name)
    rewriter.plain[var] = result
    return True


LOWERINGS = {"relax.matmul": lower_matmul}
