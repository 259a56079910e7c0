"""Local response normalisation on the blocked layout.

The operator comes as nine: squares, a mean over neighbouring channels, a power, a quotient.  They are found again from
the last of them, and computed as one kernel: the squares of a pixel's channels are laid side by side with zeros
before and behind, so that a window over channels is a few vectors that start a lane apart.
Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks" (NeurIPS 2012), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, s_tir, te, tirx

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import FUSABLE
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

SQUARES = "channel_squares"
_BLOCKS = 14
"""Blocks whose squares, with a block before and one behind, fit the 1 KiB of a buffer that stays on the stack."""
_POWERS = (0.5, 0.75, 1.0)
"""Exponents that are square roots of square roots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a local response normalisation does: ``x / (bias + scale * sum of squares) ** power``.

    Attributes:
        before: Channels before its own that a channel's sum reaches.
        behind: Channels behind its own.
        scale: Factor of the sum.
        bias: Summand.
        power: Exponent, one of 0.5, 0.75 and 1.
    """

    before: int
    behind: int
    scale: float
    bias: float
    power: float


def local_response(data: te.Tensor, *, size: FeatureMap, response: Response) -> te.Tensor:
    """Describe the normalisation of a map by the squares of neighbouring channels.

    Args:
        data: ``(blocks, pixels, 16)``.
        size: Its size.
        response: What is computed.

    Returns:
        The same shape.
    """
    tile = next(n for n in range(min(_BLOCKS, size.blocks), 0, -1) if size.blocks % n == 0)

    def square(t: Any, p: Any, j: Any) -> Any:
        block, lane = t * tile + j // CHANNELS - 1, j % CHANNELS
        channel = block * CHANNELS + lane
        value = data[block, p, lane]
        return te.if_then_else(te.all(channel >= 0, channel < size.channels), value * value, 0.0)

    shape = (size.blocks // tile, size.pixels, (tile + 2) * CHANNELS)
    squares = te.compute(shape, square, name=SQUARES, attrs={"tile": tile})

    def value(o: Any, p: Any, b: Any) -> Any:
        start = (o % tile + 1) * CHANNELS + b
        total = squares[o // tile, p, start - response.before]
        for step in range(1 - response.before, response.behind + 1):
            total = total + squares[o // tile, p, start + step]
        divisor = tirx.const(response.bias, "float32") + total * tirx.const(response.scale, "float32")
        if response.power == 1:
            return data[o, p, b] / divisor
        root = te.sqrt(divisor)
        return data[o, p, b] / (root if response.power == 0.5 else root * te.sqrt(root))

    return te.compute(data.shape, value, name="local_response")


class LocalResponseRule(FamilyRule):
    """Schedule :func:`local_response`: pixel by pixel, the squares of its channels on the stack."""

    FAMILY = "local_response"
    ANCHOR = SQUARES

    def default(self, kernel: Kernel) -> Parameters:
        """Choose whether pixels are spread over threads."""
        elements = 1
        for loop in kernel.loops(SQUARES):
            elements *= kernel.extent(loop)
        return {"threads": int(self.unit.worth_threads(elements))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a local response normalisation; ``threads`` says whether pixels are spread over them."""
        sch, squares = kernel.sch, kernel.block(SQUARES)
        *before, last = (b for b in sch.get_child_blocks(sch.get_sblock("root")) if sch.get(b).name_hint != SQUARES)
        for block in before:
            sch.compute_inline(block)
        o, p, b = sch.get_loops(last)
        outer, inner = sch.split(o, [None, int(kernel.annotation(SQUARES, "tile"))])
        sch.reorder(outer, p, inner, b)
        sch.compute_at(squares, p)
        sch.set_scope(squares, 0, "local")
        _, lane = sch.split(sch.get_loops(squares)[-1], [None, CHANNELS])
        sch.vectorize(lane)
        sch.vectorize(b)
        if parameters["threads"]:
            sch.parallel(sch.fuse(outer, p))
        return sch


_NUMBERED = ("power", "add", "multiply")
_MOVED = ("squeeze", "nn.avg_pool3d", "expand_dims", "multiply")


def _number(rewriter: Rewriter, operand: Any) -> float | None:
    constant = rewriter.constants.of(operand)
    if constant is None or constant.values.size != 1 or constant.values.dtype != np.float32:
        return None
    return float(constant.values.reshape(()))


def _recognise(rewriter: Rewriter, call: relax.Call) -> Response | None:
    """Tell which normalisation a quotient is the last step of, by walking back from its divisor."""
    source, behind = call.args
    numbers, calls = [], []
    for operator in (*_NUMBERED, *_MOVED):
        made = rewriter.made_by.get(behind) if isinstance(behind, relax.Var) else None
        if made is None or made.op.name != f"relax.{operator}":
            return None
        calls.append(made)
        behind = made.args[0]
        if len(calls) <= len(_NUMBERED):
            numbers.append(_number(rewriter, made.args[1]))
    power, bias, scale = numbers
    squeezed, pooled, expanded, squared = calls[len(_NUMBERED) :]
    if power not in _POWERS or bias is None or scale is None:
        return None
    (size, *rest), padding = ([int(n) for n in pooled.attrs[name]] for name in ("pool_size", "padding"))
    alike = [int(n) for n in (*pooled.attrs.strides, *pooled.attrs.dilation)] == [1] * 6 and rest == [1, 1]
    whole = padding[0] + padding[3] == size - 1 and sum(padding) == size - 1 and pooled.attrs.count_include_pad
    axes = [*expanded.attrs.axis, *squeezed.attrs.axis]
    if not (alike and whole) or [int(a) for a in axes] != [1, 1] or any(not a.same_as(source) for a in squared.args):
        return None
    if size > CHANNELS:
        return None
    return Response(before=padding[0], behind=padding[3], scale=scale / size, bias=bias, power=power)


def lower_divide(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower the quotient that a local response normalisation ends in."""
    source = call.args[0]
    if not rewriter.in_blocks(source):
        return False
    response = _recognise(rewriter, call)
    if response is None:
        return False
    data = rewriter.as_blocked(source)
    size = rewriter.blocked[source][1]
    result = rewriter.call(local_response, data, hint="lrn", pattern=FUSABLE, size=size, response=response)
    rewriter.blocked[var] = (result, size)
    return True


LOWERINGS = {"relax.divide": lower_divide}
