"""Which tensors of a compiled network share storage.

TVM's own plan lets tensors share only where their types are the same, so that a network of bytes and of float32 pays
for both.  Here a storage is bytes, and tensors are placed in an order, each where storage grows least: by decreasing
size (Pisarchyk and Lee, *Efficient memory management for deep neural net inference*, 2020, "greedy by size" with
shared objects), by birth, and in orders near the better of these.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Lifetime", "share", "shared_storages"]

_CHANGES = 400
_WORK = 2_000_000
"""Changes of an order that are tried: so many, or fewer for networks of many tensors."""
_ALLOCATE_TENSOR = "relax.memory.alloc_tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """State how large a tensor is and when it is needed.

    Attributes:
        size: Bytes.
        born: Number of the call that writes it.
        last: Number of the last call that reads it.

    >>> Lifetime(size=8, born=0, last=2).meets(Lifetime(size=4, born=2, last=3))
    True
    """

    size: int
    born: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Tell whether both are needed during one call."""
        return self.born <= other.last and other.born <= self.last


def share(lifetimes: Sequence[Lifetime], *, seed: int = 0) -> list[int]:
    """Give each tensor the number of a storage, so that no two of one storage are needed at once.

    Tensors are placed in the order of their sizes and of their births; then the better of the two orders is changed at
    random while that makes the sum of storages smaller, until the greatest live set is reached or the work is done.

    Args:
        lifetimes: The tensors.
        seed: Seed of the changes.

    >>> share([Lifetime(size=4, born=0, last=1), Lifetime(size=9, born=1, last=2), Lifetime(size=3, born=2, last=3)])
    [1, 0, 1]
    """
    count = len(lifetimes)
    order = sorted(range(count), key=lambda i: (-lifetimes[i].size, lifetimes[i].born))
    total, placed = _placed(lifetimes, order)
    by_birth = sorted(range(count), key=lambda i: (lifetimes[i].born, -lifetimes[i].size))
    other, elsewhere = _placed(lifetimes, by_birth)
    if other < total:
        order, total, placed = by_birth, other, elsewhere
    least = max((sum(t.size for t in lifetimes if t.born <= now.born <= t.last) for now in lifetimes), default=0)
    chance = random.Random(seed)  # noqa: S311 -- no secret depends on it
    for _ in range(min(_CHANGES, _WORK // max(1, count) ** 2) if count > 1 else 0):
        if total == least:
            break
        tried = list(order)
        tried.insert(chance.randrange(count), tried.pop(chance.randrange(count)))
        found, places = _placed(lifetimes, tried)
        if found <= total:
            order, total, placed = tried, found, places
    return placed


def _placed(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> tuple[int, list[int]]:
    """Place tensors in an order, each where storage grows least; return the sum of storages, and the places."""
    number = [0] * len(lifetimes)
    sizes: list[int] = []
    held: list[list[Lifetime]] = []
    for index in order:
        tensor = lifetimes[index]
        free = [place for place, others in enumerate(held) if not any(map(tensor.meets, others))]
        best = min(free, key=lambda place: (max(0, tensor.size - sizes[place]), sizes[place]), default=None)
        if best is None:
            best = len(sizes)
            sizes.append(0)
            held.append([])
        sizes[best] = max(sizes[best], tensor.size)
        held[best].append(tensor)
        number[index] = best
    return sum(sizes), number


def shared_storages() -> Any:
    """Return a pass that lets the tensors of each Relax function share storages, its results aside."""
    import tvm
    from tvm import relax

    def rewrite(module: Any, _: Any) -> Any:
        new = tvm.IRModule(module.functions, attrs=module.attrs)
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                new.update_func(var, _rewritten(function))
        return new

    return tvm.transform.module_pass(rewrite, opt_level=0, name="ShareStorages")


def _rewritten(function: Any) -> Any:
    from tvm import relax

    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    tensors = _lifetimes(function, bindings)
    numbers = dict(zip(tensors, share(list(tensors.values())), strict=True))
    largest: dict[int, int] = {}
    for var, number in numbers.items():
        largest[number] = max(largest.get(number, 0), tensors[var].size)
    made: dict[int, Any] = {}
    spare = {binding.value.args[0] for binding in bindings if binding.var in numbers}
    kept: list[Any] = []
    for binding in bindings:
        if binding.var in spare:
            continue
        if binding.var not in numbers:
            kept.append(binding)
            continue
        number, call = numbers[binding.var], binding.value
        if number not in made:
            made[number] = relax.Var(f"storage{number}", relax.ObjectType())
            kept.append(relax.VarBinding(made[number], _storage(largest[number])))
        operands = [made[number], *call.args[1:]]
        kept.append(relax.VarBinding(binding.var, relax.Call(call.op, operands, call.attrs, call.ty_args)))
    body = relax.SeqExpr([relax.BindingBlock(kept)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _storage(size: int) -> Any:
    from tvm import relax

    call = relax.op.memory.alloc_storage(relax.ShapeExpr([size]), 0, "global", "uint8")
    return relax.BlockBuilder().normalize(call)


def _lifetimes(function: Any, bindings: Sequence[Any]) -> Mapping[Any, Lifetime]:
    """Return the lifetimes of the tensors that a function allocates, those aside that it returns."""
    import numpy as np
    from tvm import ir, relax

    sizes: dict[Any, int] = {}
    born: dict[Any, int] = {}
    last: dict[Any, int] = {}
    origin: dict[Any, Any] = {}
    step = 0
    for binding in bindings:
        value = binding.value
        if isinstance(value, relax.Var):
            origin[binding.var] = origin.get(value, value)
        if not isinstance(value, relax.Call):
            continue
        read = [origin.get(operand, operand) for operand in value.args if isinstance(operand, relax.Var)]
        last.update((var, step) for var in read if var in sizes)
        if getattr(value.op, "name", "") == _ALLOCATE_TENSOR:
            shape = [int(length) for length in value.args[2].values]
            sizes[binding.var] = int(np.prod(shape)) * np.dtype(str(binding.var.ty.dtype)).itemsize
            born[binding.var] = last[binding.var] = step
        elif isinstance(value.op, ir.GlobalVar):
            step += 1
        elif read and read[0] in sizes:
            origin[binding.var] = read[0]  # a view of the same storage
    result = origin.get(function.body.body, function.body.body)
    return {
        var: Lifetime(size=size, born=born[var], last=last[var]) for var, size in sizes.items() if var is not result
    }
