"""The pass that puts a Relax module into the blocked layout.

Every activation that a convolution or a pooling touches is kept blocked (see :mod:`blocked`); weights are
packed once, here, at build time.  What no family knows is left as it is, on plain NCHW tensors, so that
any module stays correct.  Names of variables are kept, and kernels are named after the variable they compute:
that is how a kernel is traced back to its layer.
"""

from __future__ import annotations

import tvm
from tvm import relax

from planner.schedules import transcendental
from planner.schedules.families import (
    channels,
    concatenation,
    convolution,
    dense,
    depthwise,
    elementwise,
    grouped,
    interpolation,
    local_response,
    matmul,
    normalisation,
    pooling,
    reduction,
    softmax,
    transposition,
    winograd,
)
from planner.schedules.int8 import lowerings as int8_lowerings
from planner.schedules.options import Options
from planner.schedules.rewriter import Lowering, Rewriter

_FAMILIES = (
    depthwise,
    winograd,
    convolution,
    grouped,
    channels,
    pooling,
    dense,
    matmul,
    softmax,
    normalisation,
    reduction,
    transposition,
    transcendental,
    local_response,
    elementwise,
    interpolation,
    concatenation,
)
"""Where several families lower an operator, the first that accepts a call has it."""


def _lowerings() -> dict[str, list[Lowering]]:
    """Collect what may lower each operator."""
    found: dict[str, list[Lowering]] = {}
    for operator, lower in int8_lowerings.LOWERINGS.items():  # integers first; what they leave is made float32
        found[operator] = [lower, Rewriter.settle_operands]
    for family in _FAMILIES:
        for operator, lower in family.LOWERINGS.items():
            found.setdefault(operator, []).append(lower)
    return found


@tvm.transform.module_pass(opt_level=0, name="BlockedLayout")
class BlockedLayout:
    """Module pass: all Relax functions into the blocked layout."""

    def __init__(self, options: Options | None = None) -> None:
        """Remember the options."""
        self.options = options or Options()

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module; PrimFuncs that were there are carried over."""
        builder = relax.BlockBuilder()
        functions = {
            var: builder.add_func(function, var.name_hint)
            for var, function in module.functions_items()
            if not isinstance(function, relax.Function)
        }
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                Rewriter(builder, functions, _lowerings(), self.options).rewrite(var.name_hint, function)
        return builder.get()
