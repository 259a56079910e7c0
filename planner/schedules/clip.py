"""Clips as Relax operators again: the importer writes them as PrimFuncs, which no operator's lowering sees."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm.relax.expr_functor import PyExprMutator, mutator

_BOUNDS = {tirx.Max: relax.op.maximum, tirx.Min: relax.op.minimum}


def _bounding(function: Any) -> tuple[type, float | None] | None:
    """Recognise a PrimFunc that compares each element of its first operand with one number.

    Returns:
        ``tirx.Max`` or ``tirx.Min`` and the number, None for the number where it is the second operand; None for
        any other PrimFunc.
    """
    store = function.body
    while isinstance(store, s_tir.SBlockRealize | s_tir.SBlock | tirx.For):
        store = store.block if isinstance(store, s_tir.SBlockRealize) else store.body
    if not isinstance(store, tirx.BufferStore) or type(store.value) not in _BOUNDS:
        return None
    kind, read, bound = type(store.value), store.value.a, store.value.b
    *operands, result = function.params
    same = isinstance(read, TensorLoad) and list(read.indices) == list(store.indices)
    if not same or not read.source.same_as(operands[0]) or not store.buffer.same_as(result):
        return None
    if [int(n) for n in read.source.shape] != [int(n) for n in result.shape]:
        return None
    if isinstance(bound, tirx.FloatImm) and len(operands) == 1:
        return kind, float(bound.value)
    scalar = isinstance(bound, TensorLoad) and not len(bound.source.shape) and len(operands) == 2
    return (kind, None) if scalar and bound.source.same_as(operands[1]) else None


@mutator
class _Restorer(PyExprMutator):
    """Rewrites the calls of one function."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._module = module
        self._now: Any = None
        self._floors: dict[Any, tuple[Any, float]] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self._now = binding.var
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> Any:
        found = self._bound(call)
        new = super().visit_call_(call)
        if found is None:
            return new
        kind, bound = found
        source = call.args[1].fields[0]
        if kind is tirx.Max:
            self._floors[self._now] = (source, bound)
        elif source in self._floors and self._floors[source][1] <= bound:
            unclipped, floor = self._floors[source]
            return relax.op.clip(self.visit_expr(unclipped), floor, bound)
        return _BOUNDS[kind](self.visit_expr(source), relax.const(bound, "float32"))

    def _bound(self, call: relax.Call) -> tuple[type, float] | None:
        """Tell which bound a call sets, where it does and the bound is a constant."""
        if getattr(call.op, "name", "") != "relax.call_tir" or str(call.ty.dtype) != "float32":
            return None
        found = _bounding(self._module[call.args[0]])
        if found is None:
            return None
        kind, bound = found
        if bound is None:
            constant = call.args[1].fields[1]
            if not isinstance(constant, tvm.ir.Constant):
                return None
            bound = float(constant.value.numpy())
        return kind, bound


@tvm.transform.module_pass(opt_level=0, name="RestoreClip")
class RestoreClip:
    """Module pass: PrimFuncs that bound a tensor by constants become ``clip``, ``maximum`` and ``minimum``."""

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module."""
        restored = {
            var: _Restorer(module).visit_expr(function) if isinstance(function, relax.Function) else function
            for var, function in module.functions_items()
        }
        return tvm.IRModule(restored, attrs=module.attrs)
