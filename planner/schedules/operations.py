"""The operators of networks just before they are fused, read off the module: what memory scripts are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from planner.operators import KernelFacts, RawOperation
from planner.schedules import naming

__all__ = ["kernel_facts", "read_operations"]

_SHARED = frozenset({"pad", "to_plain", "to_blocked", "regroup"})
"""What the rewriter keeps by the tensor that it was made of, so that later readers take it as it is."""
_OPAQUE = 8


def kernel_facts(fused: Any, scheduled: Any, networks: Sequence[str]) -> dict[str, tuple[KernelFacts, ...]]:
    """State what the schedules of networks' kernels say, call after call.

    Args:
        fused: The module with its operators fused.
        scheduled: The same with its kernels scheduled.
        networks: Names of the functions.

    Returns:
        For each network the facts of each kernel that it calls; nothing of networks that memory scripts do not know.
    """
    from tvm import relax

    from planner.schedules.inplace import writes_once
    from planner.schedules.workspaces import handed_over, workspaces

    needed = workspaces(scheduled)
    handed = {var.name_hint: working.bytes for var, working in handed_over(scheduled).items()}

    @cache
    def facts(kernel: str) -> KernelFacts:
        given = handed.get(kernel, 0)
        return KernelFacts(
            workspace_bytes=given, asked_bytes=max(0, needed[kernel] - given), once=writes_once(scheduled[kernel])
        )

    found = {}
    for network in networks:
        bindings = (binding for block in fused[network].body.blocks for binding in block.bindings)
        called = [_kernel(binding.value) for binding in bindings if not isinstance(binding.value, relax.Var)]
        found[network] = () if None in called else tuple(facts(kernel.name_hint) for kernel in called)
    return found


def read_operations(module: Any, network: str) -> tuple[RawOperation, ...] | None:
    """Read the operators of one network.

    Args:
        module: A ``tvm.IRModule`` before its operators are fused.
        network: Name of the function.

    Returns:
        The operators in order; None where one gives several tensors, which memory scripts do not know.
    """
    from tvm import relax

    function = module[network]
    numbers: dict[Any, int] = dict.fromkeys(function.params, -1)
    found: list[RawOperation] = []
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var):
            numbers[var] = numbers[value]
            continue
        kernel = _kernel(value)
        if kernel is None or not isinstance(var.ty, relax.TensorType):
            return None
        operands = value.args[1]
        reads = [operand for operand in operands if isinstance(operand, relax.Var)]
        numbers[var] = len(found)
        owner = naming.owner(var.name) or naming.owner(kernel.name_hint)
        hint = _hint(kernel.name_hint)
        primitive = module[kernel]
        found.append(
            RawOperation(
                layer=None if owner is None else owner[1],
                hint=" ".join([hint, *(_form(operand) for operand in operands if not isinstance(operand, relax.Var))]),
                pattern=int((primitive.attrs or {}).get("op_pattern", _OPAQUE)),
                form=_form(var),
                reads=tuple(dict.fromkeys(numbers[read] for read in reads)),
                shared=hint in _SHARED,
                view=bool(relax.analysis.has_reshape_pattern(primitive)),
            )
        )
    return tuple(found)


def _form(tensor: Any) -> str:
    return f"{tensor.ty.dtype}[{','.join(str(int(length)) for length in tensor.ty.shape.values)}]"


def _kernel(value: Any) -> Any:
    """Return the PrimFunc's name that a call calls; None where it is no such call."""
    from tvm import relax

    if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir":
        return value.args[0]
    return None


def _hint(kernel: str) -> str:
    """Return the last word of a kernel's name, without the number that sets copies apart.

    >>> _hint("m0l3_astype_to_plain1")
    'to_plain'
    """
    name = re.sub(r"\d+$", "", kernel)
    return next((shared for shared in _SHARED if name.endswith(f"_{shared}")), name.rpartition("_")[2])
