"""Fully connected layers: ``y[row][out] = sum_k x[row][k] * w[out][k]`` with packed weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, s_tir, te

from planner.schedules import codes, storage
from planner.schedules.blocked import CHANNELS, pack_dense
from planner.schedules.families import products
from planner.schedules.rewriter import FUSABLE, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

DENSE = "packed_dense"
COLUMNS = "columns"
_MANY = 16
"""Rows from which on weights are better unpacked before they are multiplied."""


def columns_for(outputs: int, rows: int) -> int:
    """Choose how many outputs one block of packed weights holds.

    Blocks that leave the least over come first.  Many rows do best on 48 columns, which are 3 vectors of 16 and two
    times 3 of 8; one row does best on the widest.
    """
    panels = (64, 48, 32, CHANNELS) if rows == 1 else (48, 64, 32, CHANNELS)
    return min(panels, key=lambda columns: -outputs % columns)


def dense(data: te.Tensor, *packed: te.Tensor, outputs: int, columns: int, form: codes.Form | None = None) -> te.Tensor:
    """Describe a dense layer.

    Args:
        data: ``(..., rows, K)`` float32.
        packed: Weights from :func:`blocked.pack_dense`, stored in any way that :func:`storage.decode` knows; or what
            :meth:`storage.Codes.packed` makes of them.
        outputs: Real outputs, at most the packed ones.
        columns: Outputs in a block of packed weights.
        form: How to read codes, where weights are codes.

    Returns:
        ``(..., rows, outputs)`` float32.
    """
    blocks = int(packed[0].shape[0])
    *lead, rows, depth = [int(n) for n in data.shape]
    k = te.reduce_axis((0, depth), "k")
    filled = products.filled_rows(rows)
    weights = packed[0]
    if form is not None:
        shape, block = (blocks, depth, columns), form.block
        decoder = codes.Decoder.of(form, packed, shape, lambda o, i, n: (o, i // block, n))
        weights = storage.unpacked(decoder, shape)

    def value(*index: Any) -> Any:
        *before, m, n = index
        row = m if filled == rows else te.min(m, rows - 1)
        weight = storage.decode(weights, (n // columns, k, n % columns))
        return te.sum(data[(*before, row, k)] * weight, axis=[k])

    full = te.compute((*lead, filled, blocks * columns), value, name=DENSE, attrs={COLUMNS: columns})
    if (filled, blocks * columns) == (rows, outputs):
        return full
    return te.compute((*lead, rows, outputs), lambda *index: full[index], name="crop")


class DenseRule(FamilyRule):
    """Schedule :func:`dense`: a few rows of a part of a block of columns stay in registers."""

    FAMILY = "dense"
    ANCHOR = DENSE

    def default(self, kernel: Kernel) -> Parameters:
        """Choose how many rows and columns are accumulated at once, and how far the reduction is unrolled."""
        *_, m, _, k = kernel.loops(DENSE)
        rows, width = products.best_tile(self.unit, kernel.extent(m), int(kernel.annotation(DENSE, COLUMNS)))
        return {"rows": rows, "width": width, "unroll": kernel.divisor(k, (4, 2)), **self._unpacking(kernel)}

    def _unpacking(self, kernel: Kernel) -> Parameters:
        """Unpack weights once where many rows read them."""
        many = kernel.extent(kernel.loops(DENSE)[-3]) > _MANY
        return {storage.UNPACK_ONCE: int(many)} if kernel.has(storage.UNPACKED) else {}

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """Try the other tiles that fit the registers."""
        *_, m, _, k = kernel.loops(DENSE)
        yield self.default(kernel)
        for rows, width in products.tiles(self.unit, kernel.extent(m), int(kernel.annotation(DENSE, COLUMNS))):
            for unroll in {kernel.divisor(k, (most, 4, 2)) for most in (4, 8, 16)}:
                yield {"rows": rows, "width": width, "unroll": unroll, **self._unpacking(kernel)}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a dense layer; ``rows`` times ``width`` columns are in registers."""
        sch, block, width = kernel.sch, kernel.block(DENSE), parameters["width"]
        parts = int(kernel.annotation(DENSE, COLUMNS)) // width
        epilogue = kernel.inline_into_epilogue(DENSE)
        *lead, m, n, k = kernel.loops(DENSE)
        mo, mi = sch.split(m, [None, parameters["rows"]])
        no, nw, ni = sch.split(n, [None, parts, width])
        ko, ki = sch.split(k, [None, parameters["unroll"]])
        products.tile_in_registers(
            kernel, epilogue,
            outer=(no, nw, *lead, mo), rows=mi, columns=ni, k=(ko, ki), lanes=products.lanes_of(width),
        )  # fmt: skip
        storage.settle(kernel, parameters, nw)
        if self.unit.parallel:
            sch.parallel(sch.fuse(no, nw))
        sch.decompose_reduction(block, ko)
        return sch


def lower_matmul(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a product with a constant matrix."""
    source = call.args[0]
    weight = rewriter.constants.of(call.args[1])
    if weight is None or weight.values.ndim != 2 or len(shape_of(source)) < 2:
        return False
    weight = weight.along(1)
    if weight is None:
        return False
    outputs = weight.values.shape[1]
    columns = columns_for(outputs, shape_of(source)[-2])

    def pack(matrix: NDArray[Any]) -> NDArray[Any]:
        return pack_dense(matrix.T, columns)

    coded = weight.codes_along(0)
    packed = (pack(weight.values),) if coded is None else coded.packed(pack)
    result = rewriter.call(
        dense, rewriter.as_plain(source), *(relax.const(array) for array in packed), hint="dense", pattern=FUSABLE,
        outputs=outputs, columns=columns, form=None if coded is None else coded.form,
    )  # fmt: skip
    if weight.scales is not None:
        scales = relax.const(np.ascontiguousarray(weight.scales))
        result = rewriter.bb.emit(relax.op.multiply(result, scales), name_hint=rewriter.name)
    rewriter.plain[var] = result
    return True


LOWERINGS = {"relax.matmul": lower_matmul}
