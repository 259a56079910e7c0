"""Kernels are named after the variables they compute, so that time and bytes can be traced back to layers."""

from __future__ import annotations

import re
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

_TAG = re.compile(r"m(\d+)l(\d+)_")


def tag(model: int, layer: int, what: str) -> str:
    """Give the name of a variable that belongs to a layer; it ends in a letter because TVM counts in digits."""
    return f"m{model}l{layer}_{re.sub('[^A-Za-z]', '', what).lower() or 'x'}"


def owner(name: str) -> tuple[int, int] | None:
    """Give ``(model, layer)`` of a kernel or variable, the first one where several were fused."""
    found = _TAG.search(name)
    return (int(found[1]), int(found[2])) if found else None


@mutator
class _Renamer(PyExprMutator):
    """Gives each call of a shared PrimFunc a PrimFunc of its own that carries the layer's name."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.module = module
        self.now = ""

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self.now = binding.var.name
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> Any:
        call = super().visit_call_(call)
        here = owner(self.now)
        if getattr(call.op, "name", "") != "relax.call_tir" or here is None:
            return call
        shared = call.args[0]
        if owner(shared.name_hint) == here:
            return call
        # The attribute sets the copies apart: a builder merges functions that are structurally equal.
        function = self.module[shared].with_attr("blinkplan.kernel_of", self.now)
        own = self.builder_.add_func(function, f"{self.now}_{shared.name_hint}")
        return relax.Call(call.op, [own, *call.args[1:]], call.attrs, call.ty_args)


@tvm.transform.module_pass(opt_level=0, name="NameKernels")
class NameKernels:
    """Module pass: no two layers share a PrimFunc, and each PrimFunc's name says whose it is."""

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module."""
        renamer = _Renamer(module)
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                renamer.builder_.update_func(var, renamer.visit_expr(function))
        return relax.transform.DeadCodeElimination(
            [v.name_hint for v, f in module.functions_items() if isinstance(f, relax.Function)]
        )(renamer.builder_.get())
