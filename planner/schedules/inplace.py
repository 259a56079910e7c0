"""Which of its operands a kernel may write over: those of which it reads each element just before it writes there.

What decides is the scheduled kernel itself, never its name.  An operand may be written over where

- the kernel stores into its result in one place only, never reads it, and reads the operand nowhere but in the value
  that is stored there;
- each such read has the very indices of the store, in buffers of equal shape and element size;
- no two iterations of the loops around it meet in one element: a pixel index that is clamped, so that the last tile
  computes a pixel again, would read there what was written before;
- nobody takes the address of either.

Each element is then read by the one iteration that writes it, and the value written depends on the value read, so that
no reordering, by vector instructions or by threads, can put the write first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir.stmt import SBlockRealize
from tvm.sym.iter_affine_map import IterMapLevel, detect_iter_map

__all__ = ["writes_once", "written_over"]


@dataclass(frozen=True, slots=True)
class _Around:
    """What surrounds a statement: loops and their ranges, and the values of the blocks' axes.

    Conditions are left out: they take iterations away, and what is left meets no more than all of them did.
    """

    loops: Mapping[Any, Any]
    values: Mapping[Any, Any]


@dataclass(slots=True)
class _Uses:
    """What a kernel does with its buffers.

    Attributes:
        stores: By buffer, the stores into it, and what surrounds each.
        loads: By buffer, the loads from it.
        named: Variables that occur elsewhere, such as buffers whose address is taken.
    """

    stores: dict[Any, list[tuple[Any, _Around]]] = field(default_factory=lambda: defaultdict(list))
    loads: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    named: set[Any] = field(default_factory=set)


def written_over(kernel: Any) -> tuple[tuple[int, int], ...]:
    """Tell over which of its operands a kernel may write its results.

    Args:
        kernel: A scheduled ``PrimFunc``, its blocks still there.

    Returns:
        Pairs of positions among the parameters: one that is written, and one that may lie in the same place.
    """
    uses = _Uses()
    _look(kernel.body, uses, _Around({}, {}))
    found = []
    for result, written in enumerate(kernel.params):
        if len(uses.stores[written]) != 1 or uses.loads[written] or written in uses.named:
            continue
        ((store, around),) = uses.stores[written]
        operands = [n for n, read in enumerate(kernel.params) if n != result and _may_share(read, store, uses)]
        if operands and _is_one_to_one(store, around):
            found += [(result, operand) for operand in operands]
    return tuple(found)


def writes_once(kernel: Any) -> bool:
    """Tell whether a kernel writes each element of its result in one place, once.

    Args:
        kernel: A scheduled ``PrimFunc``, its blocks still there.
    """
    uses = _Uses()
    _look(kernel.body, uses, _Around({}, {}))
    written = kernel.params[-1]
    if len(uses.stores[written]) != 1 or uses.loads[written] or written in uses.named:
        return False
    ((store, around),) = uses.stores[written]
    return _is_one_to_one(store, around)


def _may_share(read: Any, store: Any, uses: _Uses) -> bool:
    """Tell whether every read of a buffer is part of a store, at its indices."""
    loads, written = uses.loads[read], store.buffer
    if not loads or uses.stores[read] or read in uses.named:
        return False
    if not tvm_ffi.structural_equal(read.shape, written.shape) or _bits(read) != _bits(written):
        return False
    if len(read.strides or ()) or len(written.strides or ()):
        return False
    inside = _Uses()
    _note(store.value, inside)
    return len(inside.loads[read]) == len(loads) and all(
        tvm_ffi.structural_equal(load.indices, store.indices) for load in loads
    )


def _bits(buffer: Any) -> int:
    return int(tvm.DataType(str(buffer.dtype)).bits)


def _is_one_to_one(store: Any, around: _Around) -> bool:
    """Tell whether every iteration of the loops around a store writes an element of its own."""
    single = {var: extent.min for var, extent in around.loops.items() if _is_one(extent.extent)}
    loops = {var: extent for var, extent in around.loops.items() if var not in single}
    indices = [_replaced(_replaced(index, around.values), single) for index in store.indices]
    named = _Uses()
    for index in indices:
        _note(index, named)
    if named.loads or named.named != set(loops):
        return False
    return not loops or len(detect_iter_map(indices, loops, check_level=IterMapLevel.Bijective).indices) > 0


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tirx.IntImm) and int(extent) == 1


def _replaced(expression: Any, values: Mapping[Any, Any]) -> Any:
    """Put values in place of variables."""
    return tvm_ffi.structural_map(expression, (tirx.Var, lambda var: values.get(var, var)))


def _look(statement: Any, uses: _Uses, around: _Around) -> None:
    """Note what a statement does with buffers."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            _look(part, uses, around)
    elif isinstance(statement, tirx.For):
        extent = tvm.ir.Range.from_min_extent(statement.min, statement.extent)
        loops = {**around.loops, statement.loop_var: extent}
        _look(statement.body, uses, _Around(loops, around.values))
    elif isinstance(statement, SBlockRealize):
        _look_into_block(statement, uses, around)
    elif isinstance(statement, tirx.IfThenElse):
        _note(statement.condition, uses)
        for part in (statement.then_case, statement.else_case):
            if part is not None:
                _look(part, uses, around)
    elif isinstance(statement, tirx.BufferStore):
        uses.stores[statement.buffer].append((statement, around))
        for expression in (statement.value, *statement.indices):
            _note(expression, uses)
    else:
        _note(statement, uses)  # of an unknown kind: every buffer in it counts as one whose address is taken


def _look_into_block(realize: Any, uses: _Uses, around: _Around) -> None:
    block = realize.block
    given = [_replaced(value, around.values) for value in realize.iter_values]
    values = {**around.values, **{axis.var: value for axis, value in zip(block.iter_vars, given, strict=True)}}
    _note(realize.predicate, uses)
    for region in block.match_buffers:
        _note(region.source, uses)
    for part in (block.init, block.body):
        if part is not None:
            _look(part, uses, _Around(around.loops, values))


def _note(expression: Any, uses: _Uses) -> None:
    """Note which buffers an expression reads, and which variables it names otherwise."""

    def load(node: Any, visitor: Any) -> None:
        uses.loads[node.source].append(node)
        for index in node.indices:
            visitor.visit(index)

    def name(variable: Any, _: Any) -> None:
        uses.named.add(variable)

    tvm_ffi.structural_visit(expression, [(tvm.ir.TensorLoad, load), (tirx.Var, name)])
