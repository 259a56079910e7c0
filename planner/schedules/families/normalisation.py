"""Layer normalisation: rows brought to mean 0 and variance 1, then scaled and shifted element by element.

After Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 3.  The mean is taken off before squares are
summed, as the reference does, so that nothing cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from planner.schedules.families import rows
from planner.schedules.rewriter import FUSABLE, shape_of

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

NORMALISED = "normalised"


def _plus(a: Any, b: Any) -> Any:
    return a + b


def layer_norm(data: te.Tensor, gain: te.Tensor, shift: te.Tensor, *, epsilon: float) -> te.Tensor:
    """Describe a layer normalisation along the last axis.

    Args:
        data: ``(..., length)`` float32.
        gain: ``(length,)``.
        shift: ``(length,)``.
        epsilon: Added to the variance.

    Returns:
        A tensor of the shape of ``data``.
    """
    *lead, length = [int(n) for n in data.shape]
    rank = len(lead)
    share = tirx.const(1.0 / length, "float32")
    total = rows.reduced(lead, length, lambda *i: data[i], name="total", reduce=te.sum, combine=_plus)
    mean = rows.value(lead, lambda *i: total[i] * share, "mean")

    def square(*index: Any) -> Any:
        centred = data[index] - mean[index[:rank]]
        return centred * centred

    squares = rows.reduced(lead, length, square, name="squares", reduce=te.sum, combine=_plus)
    one, small = tirx.const(1.0, "float32"), tirx.const(epsilon, "float32")
    inverse = rows.value(lead, lambda *i: one / tirx.sqrt(squares[i] * share + small), "inverse")

    def normalised(*index: Any) -> Any:
        row, place = index[:rank], index[-1]
        return (data[index] - mean[row]) * inverse[row] * gain[place] + shift[place]

    return rows.result((*lead, length), normalised, NORMALISED, rank)


class NormalisationRule(rows.RowRule):
    """Schedule :func:`layer_norm`."""

    FAMILY = "normalisation"
    ANCHOR = NORMALISED


def lower_layer_norm(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a layer normalisation along the last axis, by constants."""
    attrs, shape = call.attrs, shape_of(var)
    axes = [int(a) % len(shape) for a in attrs.axes]
    gain, shift = (rewriter.constants.of(operand) for operand in call.args[1:3])
    if axes != [len(shape) - 1] or str(var.ty.dtype) != "float32" or gain is None or shift is None:
        return False
    length = shape[-1]
    scale = gain.widened().reshape(-1) if attrs.scale else np.ones(length, np.float32)
    offset = shift.widened().reshape(-1) if attrs.center else np.zeros(length, np.float32)
    operands = [relax.const(np.ascontiguousarray(v, np.float32)) for v in (scale, offset)]
    data = rewriter.as_plain(call.args[0])
    rewriter.plain[var] = rewriter.call(
        layer_norm, data, *operands, hint="layer_norm", pattern=FUSABLE, epsilon=float(attrs.epsilon)
    )
    return True


LOWERINGS = {"relax.nn.layer_norm": lower_layer_norm}
