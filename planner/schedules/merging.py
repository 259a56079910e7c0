"""Kernels that do the same are compiled once, whichever layers and networks of a module call them.

Networks that differ in the choices of a few layers call the same kernels everywhere else.  A kernel's name says whose
it is, so what each network calls is listed before kernels are merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from planner.schedules.search import signature

__all__ = ["Merged", "merge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A module whose kernels all differ.

    Attributes:
        module: The ``tvm.IRModule``.
        calls: For each network the kernels that it called before, in order; their names say whose they are.
        signatures: A digest of each of these kernels that is the same for equal ones, by name.
    """

    module: Any
    calls: Mapping[str, tuple[str, ...]]
    signatures: Mapping[str, str]


@mutator
class _Redirect(PyExprMutator):
    """Calls the kernel that stands for an equal one, and notes which were called."""

    def __init__(self, module: tvm.IRModule, instead: Mapping[Any, Any]) -> None:
        super().__init__(module)
        self.instead = instead
        self.called: list[str] = []

    def visit_call_(self, call: relax.Call) -> Any:
        call = super().visit_call_(call)
        if getattr(call.op, "name", "") != "relax.call_tir":
            return call
        self.called.append(call.args[0].name_hint)
        return relax.Call(call.op, [self.instead[call.args[0]], *call.args[1:]], call.attrs, call.ty_args)


def merge(module: tvm.IRModule) -> Merged:
    """Let one kernel stand for all that are structurally equal.

    Args:
        module: Fused kernels, not scheduled yet.
    """
    kernels = {v: f for v, f in module.functions_items() if not isinstance(f, relax.Function)}
    signatures = {var: signature(function) for var, function in kernels.items()}
    first: dict[str, Any] = {}
    for var, digest in signatures.items():
        first.setdefault(digest, var)
    instead = {var: first[digest] for var, digest in signatures.items()}
    calls, functions = {}, {var: kernels[var] for var in first.values()}
    for var, function in module.functions_items():
        if isinstance(function, relax.Function):
            redirect = _Redirect(module, instead)
            functions[var] = redirect.visit_expr(function)
            calls[var.name_hint] = tuple(redirect.called)
    return Merged(
        module=tvm.IRModule(functions, attrs=module.attrs),
        calls=calls,
        signatures={var.name_hint: digest for var, digest in signatures.items()},
    )
