"""What kernels need for themselves while they run, and how they are handed it instead of asking the runtime for it.

TVM's LLVM backend keeps buffers of up to 1 KiB on the stack; for anything larger a kernel asks the runtime, which keeps
what it gave for ever.  A kernel that is handed its workspace can be given a place that other tensors use before and
after.  Buffers inside parallel loops stay as they are: every thread has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, tirx

from costmodels.arena import ALIGNMENT, aligned

__all__ = ["Working", "handed_over", "workspaces"]

_ON_STACK = 1024
"""Bytes up to which TVM's LLVM backend keeps a buffer of constant size on the stack."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Working:
    """A kernel that is handed its workspace.

    Attributes:
        name: Its ``GlobalVar``: another one than before, because it is called with one operand more.
        kernel: Its ``PrimFunc``; the workspace is its last parameter.
        bytes: Size of the workspace.
    """

    name: Any
    kernel: Any
    bytes: int


def workspaces(module: tvm.IRModule) -> dict[str, int]:
    """Count what each scheduled PrimFunc allocates for itself outside registers and stack, in bytes.

    Each buffer is rounded up to :data:`costmodels.arena.ALIGNMENT`.
    """
    return {var.name_hint: sum(map(_bytes, _allocated(kernel.body))) for var, kernel in _lowered(module).items()}


def handed_over(module: tvm.IRModule) -> dict[Any, Working]:
    """Let kernels take their workspaces as their last parameter.

    Args:
        module: Scheduled kernels.

    Returns:
        What becomes of each kernel that has a workspace outside parallel loops.
    """
    found = {}
    for var, kernel in _lowered(module).items():
        needed = sum(_bytes(buffer) for buffer in _allocated(kernel.body, parallel=False))
        if needed:
            # TVM simplifies before it vectorises; what is lowered already would come to that too late, and its
            # simplifier cannot fold constants of vectors.
            alone = tvm.IRModule({var: _with_parameter(kernel, needed)})
            changed = tvm.tirx.transform.StmtSimplify()(alone)[var]
            name = ir.GlobalVar(var.name_hint)
            relax.expr._update_type(name, _type(changed))  # noqa: SLF001 -- how a BlockBuilder names a function
            found[var] = Working(name=name, kernel=changed, bytes=needed)
    return found


def _type(kernel: Any) -> Any:
    """Give the type that Relax sees of a kernel."""
    parameters = [relax.TensorType([int(size) for size in p.shape], str(p.dtype)) for p in kernel.params]
    return relax.FuncType(parameters, relax.TupleType([]), purity=False)


def _lowered(module: tvm.IRModule) -> dict[Any, Any]:
    """Lower kernels as far as it takes to see where buffers are allocated, and how large."""
    transform = tvm.s_tir.transform
    kernels = {v: f for v, f in module.functions_items() if not isinstance(f, relax.Function)}
    lowered = tvm.transform.Sequential(
        [
            transform.LowerInitBlock(),
            transform.PlanAndUpdateBufferAllocationLocation(),
            transform.ConvertBlocksToOpaque(),
            transform.CompactBufferAllocation(),
            transform.LowerOpaqueBlock(),
        ]
    )(tvm.IRModule(kernels))
    return dict(lowered.functions_items())


def _bytes(buffer: Any) -> int:
    return aligned(prod(int(size) for size in buffer.shape) * int(tvm.DataType(str(buffer.dtype)).bits) // 8)


def _allocated(statement: Any, *, parallel: bool = True) -> Iterator[Any]:
    """List the buffers that a lowered statement asks the runtime for.

    Args:
        statement: The statement.
        parallel: Whether to list those of parallel loops too.
    """
    if isinstance(statement, tirx.AllocBuffer):
        if _bytes(statement.buffer) > _ON_STACK:
            yield statement.buffer
    elif isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL and not parallel:
        return
    for child in _children(statement):
        yield from _allocated(child, parallel=parallel)


def _children(statement: Any) -> list[Any]:
    found = list(getattr(statement, "seq", ()))
    return found + [
        child
        for part in ("body", "then_case", "else_case")
        if (child := getattr(statement, part, None)) is not None and isinstance(child, tirx.Stmt)
    ]


def _with_parameter(kernel: Any, needed: int) -> Any:
    """Put the buffers of a kernel one after the other into a parameter."""
    workspace = tirx.decl_buffer((needed,), "uint8", "workspace", data_alignment=ALIGNMENT, layout=None)
    places: dict[Any, int] = {}
    start = 0
    for buffer in _allocated(kernel.body, parallel=False):
        places[buffer] = start
        start += _bytes(buffer)

    def placed(statement: Any) -> Any:
        if isinstance(statement, tirx.AllocBuffer) and statement.buffer in places:
            address = tirx.handle_add_byte_offset(workspace.data, tirx.IntImm("int64", places[statement.buffer]))
            return tirx.DeclBuffer(statement.buffer, data=address)
        return statement

    body = tvm_ffi.structural_map(kernel.body, (tirx.AllocBuffer, placed))
    return tirx.PrimFunc([*kernel.params, workspace], body, kernel.ret_type, kernel.attrs, kernel.span)
