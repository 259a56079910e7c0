"""Products of two activations, as attention has them: ``y[..][row][out] = sum_k a[..][row][k] * b[..][k][out]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tvm import relax, s_tir, te

from planner.schedules.blocked import CHANNELS
from planner.schedules.families import products
from planner.schedules.rewriter import ALONE, FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

MATMUL = "batched_matmul"


def fill(data: te.Tensor) -> te.Tensor:
    """Append columns of zeros until whole vectors of 16 hold them."""
    *lead, columns = [int(n) for n in data.shape]
    filled = -(-columns // CHANNELS) * CHANNELS
    return te.compute(
        (*lead, filled),
        lambda *i: te.if_then_else(i[-1] < columns, data[(*i[:-1], te.min(i[-1], columns - 1))], 0.0),
        name="fill",
    )


def matmul(left: te.Tensor, right: te.Tensor, *, outputs: int) -> te.Tensor:
    """Describe a product whose leading dimensions are broadcast against each other.

    Args:
        left: ``(..., rows, K)`` float32.
        right: ``(..., K, columns)`` float32, a multiple of 16 columns.
        outputs: Real columns, at most those.

    Returns:
        ``(..., rows, outputs)`` float32.
    """
    rows, depth = (int(n) for n in left.shape[-2:])
    columns = int(right.shape[-1])
    shapes = [[int(n) for n in t.shape[:-2]] for t in (left, right)]
    rank = max(len(shape) for shape in shapes)
    aligned = [[1] * (rank - len(shape)) + shape for shape in shapes]
    batch = [max(pair) for pair in zip(*aligned, strict=True)]
    filled = products.filled_rows(rows)
    k = te.reduce_axis((0, depth), "k")

    def at(shape: list[int], index: list[Any]) -> list[Any]:
        own = index[rank - len(shape) :]
        return [0 if length == 1 else i for length, i in zip(shape, own, strict=True)]

    def value(*index: Any) -> Any:
        *before, m, n = index
        row = m if filled == rows else te.min(m, rows - 1)
        a = left[(*at(shapes[0], before), row, k)]
        return te.sum(a * right[(*at(shapes[1], before), k, n)], axis=[k])

    full = te.compute((*batch, filled, columns), value, name=MATMUL)
    if (filled, columns) == (rows, outputs):
        return full
    return te.compute((*batch, rows, outputs), lambda *index: full[index], name="crop")


class MatmulRule(FamilyRule):
    """Schedule :func:`matmul`: a tile of the result in registers, one strip of the right operand after the other."""

    FAMILY = "matmul"
    ANCHOR = MATMUL

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many rows and columns are accumulated at once, and how far the reduction is unrolled."""
        *_, m, n, k = kernel.loops(MATMUL)
        rows, width = products.best_tile(self.unit, kernel.extent(m), kernel.extent(n))
        return {"rows": rows, "width": width, "unroll": kernel.divisor(k, (4, 2))}

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """Try the other tiles that fit the registers."""
        *_, m, n, k = kernel.loops(MATMUL)
        yield self.default(kernel)
        for rows, width in products.tiles(self.unit, kernel.extent(m), kernel.extent(n)):
            yield {"rows": rows, "width": width, "unroll": kernel.divisor(k, (4, 2))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a product; ``rows`` times ``width`` of the result are in registers."""
        cropped = kernel.has("crop")
        if cropped:
            kernel = kernel.narrowed()
        sch, block, width = kernel.sch, kernel.block(MATMUL), parameters["width"]
        epilogue = kernel.inline_into_epilogue(MATMUL)
        *lead, m, n, k = kernel.loops(MATMUL)
        mo, mi = sch.split(m, [None, parameters["rows"]])
        no, ni = sch.split(n, [None, width])
        ko, ki = sch.split(k, [None, parameters["unroll"]])
        products.tile_in_registers(
            kernel, epilogue,
            outer=(*lead, no, mo), rows=mi, columns=ni, k=(ko, ki), lanes=products.lanes_of(width),
        )  # fmt: skip
        if self.unit.parallel:
            sch.parallel(sch.fuse(*lead, no) if lead else no)
        elif cropped:
            sch.annotate(no, "pragma_loop_partition_hint", 1)  # the last columns get code of their own
        sch.decompose_reduction(block, ko)
        return sch


def lower_matmul(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a product of two matrices, or of batches of them."""
    left, right = call.args
    if min(len(shape_of(left)), len(shape_of(right))) < 2 or str(var.ty.dtype) != "float32":
        return False
    outputs = shape_of(right)[-1]
    a, b = rewriter.as_plain(left), rewriter.as_plain(right)
    if outputs % CHANNELS:
        b = rewriter.call(fill, b, hint="fill", pattern=ALONE)
    rewriter.plain[var] = rewriter.call(matmul, a, b, hint="matmul", pattern=FUSABLE, outputs=outputs)
    return True


LOWERINGS = {"relax.matmul": lower_matmul}
