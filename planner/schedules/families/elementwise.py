"""Everything that touches each element once: layout changes, residual adds, what nobody fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, s_tir, te

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import BROADCAST, shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter


def each_pixel(data: te.Tensor, *, size: FeatureMap) -> te.Tensor:
    """Repeat one value for each channel of each image, ``(blocks, images, 16)``, at all pixels of a map."""
    return te.compute(size.blocked_shape, lambda o, p, b: data[o, size.place(p)[0], b], name="each_pixel")


class ElementwiseRule(FamilyRule):
    """Inline what can be inlined, vectorise what is data-parallel; correct for any function whatever."""

    FAMILY = "elementwise"

    def matches(self, kernel: Kernel) -> bool:
        """Take every kernel that no other rule took."""
        return True

    def default(self, kernel: Kernel) -> Parameters:
        """Choose whether elements are spread over threads: where any of the blocks has enough of them."""
        root = kernel.sch.get_sblock("root")
        counts = [
            prod(kernel.extent(loop) for loop in kernel.sch.get_loops(block))
            for block in kernel.sch.get_child_blocks(root)
        ]
        return {"threads": int(self.unit.worth_threads(max(counts)))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a kernel, whatever it is; ``threads`` says whether elements are spread over them."""
        sch = kernel.sch
        root = sch.get_sblock("root")
        for block in sch.get_child_blocks(root)[:-1]:
            if self._inlinable(sch, block):
                sch.compute_inline(block)
        for block in sch.get_child_blocks(root):
            loops = sch.get_loops(block)
            kinds = [int(v.iter_type) for v in sch.get(block).iter_vars]
            if not loops or any(kinds):  # a reduction or an opaque block stays as it is
                continue
            if len(loops) == 3 and kernel.extent(loops[-1]) == CHANNELS:  # blocked: rows of lanes
                sch.vectorize(loops[-1])
                if parameters["threads"]:
                    sch.parallel(loops[0])
                continue
            fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
            count = kernel.extent(fused)
            lanes = kernel.divisor(fused, (CHANNELS, 8, 4))
            if lanes == 1 or count <= lanes:
                continue
            outer, lane = sch.split(fused, [None, lanes])
            sch.vectorize(lane)
            if parameters["threads"]:
                sch.parallel(outer)
        return sch

    @staticmethod
    def _inlinable(sch: s_tir.Schedule, block: Any) -> bool:
        """Tell whether a block is a plain producer: data-parallel, one output, and somebody reads it."""
        realised = sch.get(block)
        spatial = all(int(v.iter_type) == 0 for v in realised.iter_vars)
        writes_once = len(realised.writes) == 1 and realised.init is None
        return spatial and writes_once and bool(sch.get_consumers(block))


_UNARY = frozenset(
    f"relax.{name}"
    for name in (
        "nn.relu", "nn.relu6", "nn.leakyrelu", "nn.silu", "nn.gelu", "sigmoid", "tanh", "clip",
        "exp", "sqrt", "negative", "abs", "hardswish", "hardsigmoid",
    )
)  # fmt: skip
_BINARY = frozenset(f"relax.{name}" for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"))


def lower_unary(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Apply an elementwise function to the blocked form where its operand has one."""
    source = call.args[0]
    if not rewriter.in_blocks(source):
        return False
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    repeated = relax.Call(call.op, [data, *call.args[1:]], call.attrs)
    rewriter.put(var, rewriter.bb.emit(repeated, name_hint=rewriter.name), size)
    return True


def lower_cast(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Take a map of float32 that is to be float32 as it lies: such a cast says that bytes are read as numbers here."""
    source = call.args[0]
    kinds = {str(source.ty.dtype), str(var.ty.dtype)} if isinstance(source, relax.Var) else set()
    if kinds != {"float32"}:
        return False
    rewriter.settle(source)
    if not rewriter.in_blocks(source):
        return False
    rewriter.put(var, *(rewriter.blocked.get(source) or rewriter.grouped[source]))
    return True


def _emitting(rewriter: Rewriter) -> Callable[..., Any]:
    """Give a function that emits an operator's call on operands in the blocked layout."""
    return lambda operator, *operands: rewriter.bb.emit(operator(*operands), name_hint=rewriter.name)


_POWERS: dict[float, Callable[[Callable[..., Any], Any], Any]] = {
    1.0: lambda _, x: x,
    2.0: lambda emit, x: emit(relax.op.multiply, x, x),
    3.0: lambda emit, x: emit(relax.op.multiply, emit(relax.op.multiply, x, x), x),
    0.5: lambda emit, x: emit(relax.op.sqrt, x),
    0.75: lambda emit, x: emit(relax.op.multiply, emit(relax.op.sqrt, x), emit(relax.op.sqrt, emit(relax.op.sqrt, x))),
}
"""Powers that are had by multiplications and square roots, which vectorise; the C library's function does not."""


def lower_power(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Raise a map to the power of a constant, where multiplications, square roots and a reciprocal do."""
    source, exponent = call.args[0], rewriter.constants.of(call.args[1])
    if exponent is None or exponent.values.size != 1 or not rewriter.in_blocks(source):
        return False
    number = float(exponent.values.reshape(()))
    if abs(number) not in _POWERS:
        return False
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    emit = _emitting(rewriter)
    power = _POWERS[abs(number)](emit, data)
    rewriter.put(var, power if number > 0 else emit(relax.op.divide, relax.const(1.0, "float32"), power), size)
    return True


def lower_prelu(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Multiply what is negative by a slope, one for each channel or one for all."""
    source, slope = call.args[0], rewriter.constants.of(call.args[1])
    if slope is None or not rewriter.in_blocks(source):
        return False
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    if slope.values.size == 1:
        factor = relax.const(slope.widened().reshape(()))
    elif int(call.attrs.axis) % 4 == 1:
        factor = _spread(slope.widened(), size)
    else:
        return False
    emit, zero = _emitting(rewriter), relax.const(0.0, "float32")
    negative = emit(relax.op.multiply, factor, emit(relax.op.minimum, data, zero))
    rewriter.put(var, emit(relax.op.add, emit(relax.op.maximum, data, zero), negative), size)
    return True


def lower_binary(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Combine two maps, or a map and one value a channel, in the blocked layout."""
    maps = [a for a in call.args if rewriter.in_blocks(a)]
    shape = shape_of(var)
    if not maps or len(shape) != 4:
        return False
    groups = {rewriter.grouped[a][1].groups for a in maps if a in rewriter.grouped}
    size = replace(FeatureMap.of(shape), groups=max(groups, default=1))
    operands = [_operand(rewriter, a, size) for a in call.args]
    if any(o is None for o in operands):
        return False
    rewriter.put(var, rewriter.bb.emit(relax.Call(call.op, operands, call.attrs), name_hint=rewriter.name), size)
    return True


def _spread(values: NDArray[np.generic], size: FeatureMap) -> Any:
    """Lay one value per channel out so that it broadcasts over a blocked map: ``(blocks, 1, 16)``."""
    return relax.const(np.ascontiguousarray(size.spread(values.reshape(-1)).reshape(-1, 1, CHANNELS)))


def _map_operand(rewriter: Rewriter, operand: Any, size: FeatureMap) -> Any:
    """Give a map of some size, or one value for each channel of each image, so that it broadcasts over that size."""
    shape = shape_of(operand)
    if shape == list(size.plain_shape):
        return rewriter.as_grouped(operand, size.groups)
    if shape != [size.images, size.channels, 1, 1]:
        return None
    data = rewriter.as_grouped(operand, size.groups)
    if size.images == 1:
        return data
    return rewriter.call(each_pixel, data, hint="each_pixel", pattern=BROADCAST, size=size)


def _operand(rewriter: Rewriter, operand: Any, size: FeatureMap) -> Any:
    weight = rewriter.constants.of(operand)
    if weight is None:
        return _map_operand(rewriter, operand, size)
    values = weight.widened()
    if values.size == 1:
        return relax.const(values.reshape(()))
    trailing = values.shape[-2:] if values.ndim >= 2 else (0, 0)
    if values.size == size.channels and trailing == (1, 1):
        return _spread(values, size)
    return None


LOWERINGS = {
    **dict.fromkeys(sorted(_UNARY), lower_unary),
    **dict.fromkeys(sorted(_BINARY), lower_binary),
    "relax.astype": lower_cast,
    "relax.power": lower_power,
    "relax.nn.prelu": lower_prelu,
}
