"""Everything that touches each element once: layout changes, residual adds, interpolation, what nobody fused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, s_tir, te, tirx

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.rewriter import shape_of
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

_WORTH_A_THREAD = 8192
"""Elements below which waking another thread costs more than it saves."""


def interpolate_rows(data: te.Tensor, *, source: FeatureMap, output: FeatureMap) -> te.Tensor:
    """Double the rows of a blocked map: even rows are copied, odd ones are the mean of their neighbours.

    The last row of an even height has one neighbour only and repeats it.
    """

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        first = image * source.height
        above = data[o, (first + y // 2) * source.width + x, b]
        below = data[o, (first + te.min((y + 1) // 2, source.height - 1)) * source.width + x, b]
        return (above + below) * tirx.const(0.5, "float32")

    return te.compute(output.blocked_shape, value, name="interpolate_rows")


class ElementwiseRule(FamilyRule):
    """Inline what can be inlined, vectorise what is data-parallel; correct for any function whatever."""

    FAMILY = "elementwise"

    def matches(self, kernel: Kernel) -> bool:
        """Take every kernel that no other rule took."""
        return True

    def default(self, kernel: Kernel) -> Parameters:
        """Choose nothing: there is nothing to choose."""
        return {}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a kernel, whatever it is."""
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
                if self.unit.parallel:
                    sch.parallel(loops[0])
                continue
            fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
            count = kernel.extent(fused)
            lanes = kernel.divisor(fused, (CHANNELS, 8, 4))
            if lanes == 1 or count <= lanes:
                continue
            outer, lane = sch.split(fused, [None, lanes])
            sch.vectorize(lane)
            if self.unit.parallel and count >= _WORTH_A_THREAD:
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
    if source not in rewriter.blocked and source not in rewriter.grouped:
        return False
    data, size = rewriter.blocked.get(source) or rewriter.grouped[source]
    repeated = relax.Call(call.op, [data, *call.args[1:]], call.attrs)
    rewriter.put(var, rewriter.bb.emit(repeated, name_hint=rewriter.name), size)
    return True


def lower_binary(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Combine two maps, or a map and one value a channel, in the blocked layout."""
    maps = [a for a in call.args if isinstance(a, relax.Var) and (a in rewriter.blocked or a in rewriter.grouped)]
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


def _operand(rewriter: Rewriter, operand: Any, size: FeatureMap) -> Any:
    weight = rewriter.constants.of(operand)
    if weight is None:
        return rewriter.as_grouped(operand, size.groups) if shape_of(operand) == list(size.plain_shape) else None
    values = weight.widened()
    if values.size == 1:
        return relax.const(values.reshape(()))
    trailing = values.shape[-2:] if values.ndim >= 2 else (0, 0)
    if values.size == size.channels and trailing == (1, 1):
        return relax.const(np.ascontiguousarray(size.spread(values.reshape(-1)).reshape(-1, 1, CHANNELS)))
    return None


def lower_resize(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower the doubling of rows by linear interpolation, the form that row perforation takes."""
    source, attrs = call.args[0], call.attrs
    if source not in rewriter.blocked or attrs.layout != "NCHW" or attrs.method != "linear":
        return False
    data, size = rewriter.blocked[source]
    output = FeatureMap.of(shape_of(var))
    doubled = attrs.coordinate_transformation_mode == "asymmetric" and output.height == 2 * size.height
    aligned = attrs.coordinate_transformation_mode == "align_corners" and output.height == 2 * size.height - 1
    if output.width != size.width or not (doubled or aligned):
        return False
    result = rewriter.call(interpolate_rows, data, hint="interpolate_rows", source=size, output=output)
    rewriter.blocked[var] = (result, output)
    return True


LOWERINGS = {
    **dict.fromkeys(sorted(_UNARY), lower_unary),
    **dict.fromkeys(sorted(_BINARY), lower_binary),
    "relax.image.resize2d": lower_resize,
}
