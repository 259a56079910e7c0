"""Kernels whose operands may start anywhere in a storage.

A parameter of a scheduled kernel is a buffer that starts where its memory does: the code that TVM puts in front of the
kernel refuses a tensor with a byte offset.  A parameter whose ``elem_offset`` is a variable takes any.  The variable is
kept out of the kernel's indices, which TVM could no longer narrow to 32 bits and split into loops: the kernel computes
on a buffer that is declared at the advanced address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx

from costmodels.arena import ALIGNMENT

__all__ = ["at_offsets"]


def at_offsets(kernel: Any, positions: Sequence[int]) -> Any:
    """Let some parameters of a kernel start at any multiple of the alignment.

    Args:
        kernel: A scheduled ``PrimFunc``.
        positions: Positions of the parameters.

    Returns:
        The kernel, with a variable for the offset of each of these parameters.
    """
    parameters = list(kernel.params)
    declared = []
    for position in positions:
        inner = parameters[position]
        size = int(tvm.DataType(str(inner.dtype)).bits) // 8
        outer = tirx.decl_buffer(
            inner.shape,
            inner.dtype,
            f"{inner.name}_at",
            elem_offset=tirx.Var(f"{inner.name}_offset", "int64"),
            data_alignment=ALIGNMENT,
            offset_factor=ALIGNMENT // size,
            layout=inner.layout,
        )
        address = tirx.handle_add_byte_offset(outer.data, outer.elem_offset * size)
        declared.append(tirx.DeclBuffer(inner, data=address))
        parameters[position] = outer
    return tirx.PrimFunc(parameters, tirx.SeqStmt([*declared, kernel.body]), kernel.ret_type, kernel.attrs, kernel.span)
