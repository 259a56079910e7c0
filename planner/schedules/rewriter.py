"""One Relax function on its way into the blocked layout: its operands in one layout or the other, its kernels.

What computes what is the families' business; they are given a :class:`Rewriter` and the call to lower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, te

from planner.schedules import blocked, layouts, naming
from planner.schedules.blocked import FeatureMap
from planner.schedules.constants import Constants, Weight
from planner.schedules.int8 import targets as int8_targets
from planner.schedules.options import WINOGRAD, Options
from planner.schedules.window import Window

FUSABLE = {"op_pattern": 4}
"""TVM's "complex, elementwise operators may be fused to its output"."""
ELEMENTWISE = {"op_pattern": 0}
"""TVM's "elementwise": fused to whatever makes its operand."""
BROADCAST = {"op_pattern": 1}
"""TVM's "broadcast": fused to whatever reads it."""
ALONE = {"op_pattern": 8}
"""TVM's "opaque": never fused, so that what a layer costs does not depend on the layer before it."""


def shape_of(expression: Any) -> list[int]:
    """Give the static shape of a tensor expression."""
    return [int(n) for n in expression.ty.shape.values]


class Rewriter:
    """Rewrites one Relax function.

    Attributes:
        bb: Where the new function is being built.
        options: What the user asked for.
        plain: Values as they were, by the variable that they had.
        blocked: Values in the blocked layout, with their size; their channels are one group.
        grouped: Values in the blocked layout whose channels lie in groups of whole blocks, with their size.
        constants: Knows which variables are constants.
        made_by: The operator's call that made a value, as it was before the pass.
        deferred: What is known of float32 values that integers stand for; they are made when first read as such.
        intervals: Bounds of float32 values that were cut, by variable; None where there is none.
        bytes: What the target multiplies bytes with.
        name: Name of the variable that is being computed; kernels are named after it.
    """

    def __init__(
        self,
        builder: relax.BlockBuilder,
        functions: Mapping[Any, Any],
        lowerings: Mapping[str, Sequence[Lowering]],
        options: Options,
    ) -> None:
        """Start a function.

        Args:
            builder: Where it is built.
            functions: What stands for the module's PrimFuncs in the builder.
            lowerings: By operator, what may lower it, tried in order.
            options: What the user asked for.
        """
        self.bb, self.options = builder, options
        self._functions, self._lowerings = functions, lowerings
        self._winograd: frozenset[int] | None = None
        self.plain: dict[Any, Any] = {}
        self.blocked: dict[Any, tuple[Any, FeatureMap]] = {}
        self.grouped: dict[Any, tuple[Any, FeatureMap]] = {}
        self.made_by: dict[Any, relax.Call] = {}
        self.deferred: dict[Any, Any] = {}
        self.intervals: dict[Any, tuple[float | None, float | None]] = {}
        self.bytes = int8_targets.current()
        self._once: dict[Any, Any] = {}
        self.constants = Constants()
        self.name = ""

    # -- access to operands in one layout or the other ------------------------------------------------------
    def as_plain(self, operand: Any) -> Any:
        """Give an operand as it was before the pass, gathering it back from the blocked layout if need be."""
        if isinstance(operand, relax.Tuple):
            return relax.Tuple([self.as_plain(field) for field in operand.fields])
        if isinstance(operand, tvm.ir.GlobalVar):
            return self._functions[operand]
        if not isinstance(operand, relax.Var):
            return operand
        self.settle(operand)
        if operand not in self.plain and (operand in self.blocked or operand in self.grouped):
            data, size = self.blocked.get(operand) or self.grouped[operand]
            self.plain[operand] = self.call(layouts.to_plain, data, hint="to_plain", size=size)
        if operand not in self.plain:
            weight = self.constants.of(operand)
            if weight is None:
                raise ValueError(f"{operand} is used before it is computed")
            self.plain[operand] = self.bb.emit(relax.const(np.ascontiguousarray(weight.widened())))
        return self.plain[operand]

    def in_blocks(self, operand: Any) -> bool:
        """Tell whether an operand is there in the blocked layout, its channels in one group or in several."""
        return isinstance(operand, relax.Var) and (operand in self.blocked or operand in self.grouped)

    def as_blocked(self, operand: Any) -> Any:
        """Give an operand in the blocked layout."""
        self.settle(operand)
        if operand not in self.blocked:
            size = FeatureMap.of(shape_of(operand))
            if operand in self.grouped:
                grouped, source = self.grouped[operand]
                data = self.call(layouts.regroup, grouped, hint="regroup", pattern=FUSABLE, source=source, output=size)
            else:
                data = self.call(layouts.to_blocked, self.as_plain(operand), hint="to_blocked", size=size)
            self.blocked[operand] = (data, size)
        return self.blocked[operand][0]

    def as_grouped(self, operand: Any, groups: int) -> Any:
        """Give an operand in the blocked layout with each of its groups of channels in whole blocks of its own."""
        size = replace(FeatureMap.of(shape_of(operand)), groups=groups)
        if size.full or groups == 1:  # then both layouts are one
            return self.as_blocked(operand)
        if operand not in self.grouped or self.grouped[operand][1] != size:
            data = self.as_blocked(operand)
            source = self.blocked[operand][1]
            regrouped = self.call(layouts.regroup, data, hint="regroup", pattern=FUSABLE, source=source, output=size)
            self.grouped[operand] = (regrouped, size)
        return self.grouped[operand][0]

    def put(self, var: relax.Var, data: Any, size: FeatureMap) -> None:
        """Note a value in the blocked layout, of one group of channels or of several."""
        if size.groups == 1 or size.full:
            self.blocked[var] = (data, replace(size, groups=1))
        else:
            self.grouped[var] = (data, size)

    def settle(self, operand: Any) -> None:
        """Make a value of which only integers are known, in one layout or the other."""
        made = any(operand in values for values in (self.plain, self.blocked, self.grouped))
        if operand in self.deferred and not made:
            self.deferred[operand].settle(self, operand)

    def settle_operands(self, var: relax.Var, call: relax.Call) -> bool:
        """Make the operands of a call that no lowering of integers took; a lowering that lowers nothing."""
        for operand in call.args:
            for part in operand.fields if isinstance(operand, relax.Tuple) else [operand]:
                self.settle(part)
        return False

    def call(
        self,
        describe: Callable[..., te.Tensor],
        *operands: Any,
        hint: str,
        pattern: dict[str, int] | None = None,
        **keywords: Any,
    ) -> Any:
        """Emit a tensor-expression kernel, named after the variable that is being computed."""
        attributes = {"primfunc_attrs": pattern} if pattern else {}
        value = self.bb.call_te(
            lambda *tensors: describe(*tensors, **keywords),
            *operands,
            primfunc_name_hint=f"{self.name}_{hint}",
            **attributes,
        )
        return self.bb.emit(value, name_hint=self.name)

    # -- the walk -------------------------------------------------------------------------------------------
    def rewrite(self, name: str, function: relax.Function) -> None:
        """Rewrite a function into the builder under the same name."""
        for parameter in function.params:
            self.plain[parameter] = parameter
        chosen = (function.attrs or {}).get(WINOGRAD)
        self._winograd = None if chosen is None else frozenset(int(layer) for layer in chosen)
        with self.bb.function(name, list(function.params), attrs=dict(function.attrs or {})):
            with self.bb.dataflow():
                for block in function.body.blocks:
                    for binding in block.bindings:
                        self.binding(binding.var, binding.value)
                result = self.bb.emit_output(self.as_plain(function.body.body))
            self.bb.emit_func_output(result)

    def binding(self, var: relax.Var, value: Any) -> None:
        """Rewrite ``var = value``: a known operator into its kernel, all else as it stands."""
        if naming.owner(var.name) is not None or not self.name:
            self.name = var.name
        if self.constants.learn(var, value):
            return
        if isinstance(value, relax.Var) and (value in self.blocked or value in self.grouped):
            self.put(var, *(self.blocked.get(value) or self.grouped[value]))
            return
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            self.made_by[var] = value
            for lower in self._lowerings.get(value.op.name, ()):
                if lower(self, var, value):
                    return
        self.plain[var] = self.bb.emit(self.copy(value), name_hint=self.name)

    def copy(self, value: Any) -> Any:
        """Repeat an expression on plain operands."""
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self.as_plain(value.tuple_value), value.index)
        if isinstance(value, relax.Call):
            operands = [self.as_plain(a) for a in value.args]
            return relax.Call(value.op, operands, value.attrs, value.ty_args)
        return self.as_plain(value)

    def winograd(self) -> bool:
        """Tell whether the call at hand may be lowered by Winograd's algorithm."""
        if self._winograd is None:
            return self.options.winograd
        here = naming.owner(self.name)
        return here is not None and here[1] in self._winograd

    # -- what several families need -------------------------------------------------------------------------
    def scaled(self, data: Any, weight: Weight, size: FeatureMap) -> Any:
        """Multiply by the scales of an integer weight, one a channel, in the blocked layout of a map of some size."""
        if weight.scales is None:
            return data
        scales = relax.const(np.ascontiguousarray(size.spread(weight.scales).reshape(-1, 1, blocked.CHANNELS)))
        return self.bb.emit(relax.op.multiply(data, scales), name_hint=self.name)

    def padded_input(self, source: Any, data: Any, size: FeatureMap, window: Window) -> Any:
        """Pad a map once, however many windows of the same padding read it."""
        if not window.padded:
            return data

        def pad() -> Any:
            return self.call(layouts.pad, data, hint="pad", pattern=ALONE, source=size, window=window)

        return self.once((source, data, window.padding), pad)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Make something the first time it is asked for."""
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]


Lowering = Callable[[Rewriter, relax.Var, relax.Call], bool]
"""Lowers ``var = call`` into the rewriter's function, or returns False and leaves it to others."""
