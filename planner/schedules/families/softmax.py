"""Softmax along the last axis: shares that sum to one, and their logarithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, te, tirx

from planner.schedules import transcendental
from planner.schedules.families import rows
from planner.schedules.rewriter import FUSABLE, shape_of

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

SOFTMAX = "softmax_result"


def softmax(data: te.Tensor, *, rank: int, logarithm: bool) -> te.Tensor:
    """Describe a softmax; the greatest of a row is taken off first, so that no exponential overflows.

    Args:
        data: float32, ``rank`` leading dimensions, then the row, then dimensions of size 1.
        rank: Dimensions in front of the row.
        logarithm: Whether logarithms of the shares are wanted.

    Returns:
        A tensor of the same shape.
    """
    shape = [int(n) for n in data.shape]
    lead, length = shape[:rank], shape[rank]
    rest = [0] * (len(shape) - rank - 1)
    whole = (*lead, length)

    def read(*index: Any) -> Any:
        return data[(*index, *rest)]

    most = rows.reduced(lead, length, read, name="most", reduce=te.max, combine=tirx.max)

    def lowered(index: tuple[Any, ...]) -> Any:
        return read(*index) - most[index[:rank]]

    powers = rows.spread(whole, lambda *i: transcendental.exp(lowered(i)), "powers")
    total = rows.reduced(lead, length, lambda *i: powers[i], name="total", reduce=te.sum, combine=lambda a, b: a + b)
    if logarithm:
        log = rows.value(lead, lambda *i: tirx.log(total[i]), "log_total")
        return rows.result(shape, lambda *i: lowered(i[: rank + 1]) - log[i[:rank]], SOFTMAX, rank)
    share = rows.value(lead, lambda *i: tirx.const(1.0, "float32") / total[i], "share")
    return rows.result(shape, lambda *i: powers[i[: rank + 1]] * share[i[:rank]], SOFTMAX, rank)


class SoftmaxRule(rows.RowRule):
    """Schedule :func:`softmax`."""

    FAMILY = "softmax"
    ANCHOR = SOFTMAX


def lower_softmax(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a softmax whose axis is the last one that is longer than 1."""
    shape = shape_of(var)
    axis = int(call.attrs.axis) % len(shape)
    if str(var.ty.dtype) != "float32" or any(size != 1 for size in shape[axis + 1 :]):
        return False
    data = rewriter.as_plain(call.args[0])
    logarithm = call.op.name.endswith("log_softmax")
    rewriter.plain[var] = rewriter.call(softmax, data, hint="softmax", pattern=FUSABLE, rank=axis, logarithm=logarithm)
    return True


LOWERINGS = {"relax.nn.softmax": lower_softmax, "relax.nn.log_softmax": lower_softmax}
