"""One storage for all activations of a compiled network, each tensor at an offset that we plan.

TVM's own plan lets tensors share whole storages, and only where their types are the same.  Here a network's tensors lie
in one run of bytes, where :mod:`costmodels.arena` places them by their lifetimes.  A kernel as TVM schedules it refuses
tensors that do not start where their storage does; those that are handed such tensors get parameters of any offset that
is a multiple of the alignment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodels.memory import Call, MemoryScript, Place, Value

if TYPE_CHECKING:
    from planner.schedules.workspaces import Working

__all__ = ["one_storage", "script_of"]

_ALLOCATE_TENSOR = "relax.memory.alloc_tensor"


def one_storage() -> Any:
    """Return a pass that puts the tensors of each Relax function into one storage, its result aside."""
    import tvm
    from tvm import relax

    def rewrite(module: Any, _: Any) -> Any:
        from planner.schedules.offsets import at_offsets
        from planner.schedules.workspaces import handed_over

        working = handed_over(module)
        placed: dict[Any, set[int]] = defaultdict(set)
        functions = dict(module.functions_items())
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                functions[var] = _rewritten(module, function, working, placed)
        for var, positions in placed.items():
            kernel = working[var].kernel if var in working else module[var]
            functions[var] = at_offsets(kernel, sorted(positions))
        for var, more in working.items():
            functions[more.name] = functions.pop(var)
        return tvm.IRModule(functions, attrs=module.attrs)

    return tvm.transform.module_pass(rewrite, opt_level=0, name="PlaceInOneStorage")


def script_of(module: Any, network: str, layers: Sequence[str]) -> MemoryScript:
    """State what the kernels of a network read and write.

    Args:
        module: An ``IRModule`` whose tensors are allocated (``LowerAllocTensor``) and not yet placed, its kernels
            scheduled.
        network: Name of the network in it.
        layers: Names of the network's layers, in the order in which kernels are numbered.
    """
    from planner.schedules.workspaces import handed_over

    return _read(module, module[network], handed_over(module), layers).script


@dataclass(frozen=True, slots=True)
class _Reading:
    """A script, and which variable holds each of its values."""

    script: MemoryScript
    variables: tuple[Any, ...]


def _read(module: Any, function: Any, working: Mapping[Any, Working], layers: Sequence[str] = ()) -> _Reading:
    from tvm import ir, relax

    from planner.schedules import naming

    bindings = _bindings(function)
    origin = _origins(bindings)
    result = origin.get(function.body.body, function.body.body)
    values: dict[Any, Value] = {var: Value(bytes=_size(var), place="input") for var in function.params}
    written: set[Any] = set(values)
    calls: list[Call] = []
    owner = layers[0] if layers else ""
    over: dict[str, tuple[tuple[int, int], ...]] = {}
    for binding in bindings:
        var, value = binding.var, binding.value
        if _is_call(value, _ALLOCATE_TENSOR):
            place: Place = "output" if var.same_as(result) else "arena"
            values[var] = Value(bytes=_size(var), place=place)
        elif isinstance(value, relax.Call) and isinstance(value.op, ir.GlobalVar):
            numbers = {var: number for number, var in enumerate(values)}
            operands = [origin.get(operand, operand) for operand in value.args]
            known = [operand for operand in dict.fromkeys(operands) if operand in numbers]
            new = [operand for operand in known if operand not in written]
            written.update(new)
            name = value.op.name_hint
            found = naming.owner(name)
            owner = layers[found[1]] if found and layers else owner
            if name not in over:
                over[name] = _written_over(module[value.op])
            calls.append(
                Call(
                    kernel=name,
                    owner=owner,
                    reads=tuple(numbers[operand] for operand in known if operand not in new),
                    writes=tuple(numbers[operand] for operand in new),
                    over=_pairs(operands, over[name], numbers),
                    workspace_bytes=working[value.op].bytes if value.op in working else 0,
                )
            )
    return _Reading(MemoryScript(values=tuple(values.values()), calls=tuple(calls)), tuple(values))


def _written_over(kernel: Any) -> tuple[tuple[int, int], ...]:
    from planner.schedules.inplace import written_over

    return written_over(kernel)


def _pairs(
    operands: Sequence[Any], over: Sequence[tuple[int, int]], numbers: Mapping[Any, int]
) -> tuple[tuple[int, int], ...]:
    """Name values for positions; a value that is handed over twice has to allow it in each place."""
    found = []
    for result in dict.fromkeys(result for result, _ in over):
        allowed = {read for one, read in over if one == result}
        for operand in dict.fromkeys(operands[read] for read in sorted(allowed)):
            everywhere = {position for position, other in enumerate(operands) if other is operand}
            if operand in numbers and everywhere <= allowed:
                found.append((numbers[operands[result]], numbers[operand]))
    return tuple(found)


def _bindings(function: Any) -> list[Any]:
    return [binding for block in function.body.blocks for binding in block.bindings]


def _origins(bindings: Sequence[Any]) -> dict[Any, Any]:
    """Tell for each variable that is another name, or another shape, of a tensor which one that is."""
    from tvm import ir, relax

    origin: dict[Any, Any] = {}
    for binding in bindings:
        value = binding.value
        if isinstance(value, relax.Var):
            origin[binding.var] = origin.get(value, value)
        elif (
            isinstance(value, relax.Call)
            and not isinstance(value.op, ir.GlobalVar)
            and not _is_call(value, _ALLOCATE_TENSOR)
            and isinstance(binding.var.ty, relax.TensorType)
        ):
            source = next((operand for operand in value.args if isinstance(operand, relax.Var)), None)
            if source is not None:
                origin[binding.var] = origin.get(source, source)  # a view of the same tensor
    return origin


def _is_call(value: Any, operator: str) -> bool:
    return getattr(getattr(value, "op", None), "name", "") == operator


def _size(var: Any) -> int:
    import numpy as np

    shape = [int(length) for length in var.ty.shape.values]
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(str(var.ty.dtype)).itemsize


def _rewritten(module: Any, function: Any, working: Mapping[Any, Working], placed: dict[Any, set[int]]) -> Any:
    """Place the tensors of a function; note which kernels are handed them, and at which positions."""
    from tvm import ir, relax

    reading = _read(module, function, working)
    tensors, numbers, calls = reading.script.tensors()
    if not tensors:
        return function
    packing = reading.script.pack()
    spaces = dict(zip(calls, packing.offsets[len(numbers) :], strict=True))
    offsets = {reading.variables[number]: packing.offsets[place] for place, number in enumerate(numbers)}
    bindings = _bindings(function)
    spare = {binding.value.args[0] for binding in bindings if binding.var in offsets}
    origin = _origins(bindings)
    storage = relax.Var("storage", relax.ObjectType())
    kept: list[Any] = [relax.VarBinding(storage, _normal(_storage(packing.bytes)))]
    step = 0
    for binding in bindings:
        call = binding.value
        if binding.var in spare:
            continue
        if binding.var in offsets:
            operands = [storage, relax.prim_value(offsets[binding.var]), *call.args[2:]]
            kept.append(relax.VarBinding(binding.var, relax.Call(call.op, operands, call.attrs, call.ty_args)))
            continue
        if isinstance(call, relax.Call) and isinstance(call.op, ir.GlobalVar):
            placed[call.op].update(n for n, var in enumerate(call.args) if origin.get(var, var) in offsets)
            if step in spaces:
                size = working[call.op].bytes
                space = relax.Var(f"workspace{step}", relax.TensorType((size,), "uint8"))
                kept.append(relax.VarBinding(space, _normal(_tensor(storage, spaces[step], size))))
                placed[call.op].add(len(call.args))
                called = relax.Call(working[call.op].name, [*call.args, space], call.attrs, call.ty_args)
                kept.append(relax.VarBinding(binding.var, called))
                step += 1
                continue
            step += 1
        kept.append(binding)
    body = relax.SeqExpr([relax.BindingBlock(kept)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _storage(size: int) -> Any:
    from tvm import relax

    return relax.op.memory.alloc_storage(relax.ShapeExpr([size]), 0, "global", "uint8")


def _tensor(storage: Any, offset: int, size: int) -> Any:
    from tvm import relax

    return relax.op.memory.alloc_tensor(storage, offset, relax.ShapeExpr([size]), "uint8")


def _normal(call: Any) -> Any:
    from tvm import relax

    return relax.BlockBuilder().normalize(call)
