"""The kernel calls of a compiled network, read off the module that its code was made from.

What a virtual machine on another device does cannot be watched from here.  What it will do stands in the module all the
same: which kernels it calls in which order, what it hands them, and which storages it allocates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.artefact import Placed, Step, Trace, alive

__all__ = ["Call", "Operand", "Reading", "read"]

_ALLOCATE_STORAGE = "relax.memory.alloc_storage"
_ALLOCATE_TENSOR = "relax.memory.alloc_tensor"
_APART = 1 << 48
"""Stands for how far two storages lie apart: more than any of them is long."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operand:
    """One tensor that a kernel is handed.

    Attributes:
        shape: Its lengths.
        dtype: Its type, as numpy calls it.
        value: Its value where it is a constant.
    """

    shape: tuple[int, ...]
    dtype: str
    value: NDArray[Any] | None = None

    def example(self, random: np.random.Generator) -> NDArray[Any]:
        """Give the constant, or numbers as activations have them."""
        if self.value is not None:
            return self.value
        kind = np.dtype(self.dtype)
        if np.issubdtype(kind, np.floating):
            return random.standard_normal(self.shape).astype(kind)
        limits = np.iinfo(kind)
        return random.integers(max(limits.min, -127), min(limits.max, 127), self.shape, kind, endpoint=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One kernel call: the kernel's name, and what it reads and writes in order."""

    kernel: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What a module says of one network.

    Attributes:
        trace: What a watched run would have shown.
        calls: Its kernel calls, in the order of the steps of `trace`.
    """

    trace: Trace
    calls: tuple[Call, ...]


def read(module: Any, network: str) -> Reading:
    """Read the kernel calls of a network.

    Args:
        module: The ``tvm.IRModule`` of a compilation, storages planned.
        network: Name of the network in it.
    """
    from tvm import ir, relax

    function = module[network]
    (given,) = function.params
    lives: dict[Any, Placed] = {}
    numbers: dict[Any, int] = {}
    origin: dict[Any, Any] = {given: given}
    storages: list[int] = []
    calls: list[Call] = []
    constants: list[list[tuple[int, int]]] = []
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var):
            origin[var] = origin.get(value, value)
        if not isinstance(value, relax.Call):
            continue
        operator = getattr(value.op, "name", "")
        if operator == _ALLOCATE_STORAGE:
            numbers[var] = len(storages)
            storages.append(int(value.args[0].values[0]))
        elif operator == _ALLOCATE_TENSOR:
            start = numbers[value.args[0]] * _APART + int(value.args[1].value)
            lives[var] = Placed(start, _bytes(*_type(var)), len(calls), len(calls))
        elif isinstance(value.op, ir.GlobalVar):
            tensors = [operand for operand in value.args if _is_tensor(operand)]
            for operand in tensors:
                life = lives.get(origin.get(operand, operand)) if isinstance(operand, relax.Var) else None
                if life is not None:
                    life.last = len(calls)
            held = [operand for operand in tensors if not isinstance(operand, relax.Var)]
            constants.append([(_address(operand), _bytes(*_type(operand))) for operand in held])
            calls.append(Call(kernel=value.op.name_hint, operands=tuple(map(_operand, tensors))))
        else:
            source = next((operand for operand in value.args if isinstance(operand, relax.Var)), None)
            if source is not None:
                origin[var] = origin.get(source, source)  # a view of the same storage
    return Reading(trace=_trace(calls, constants, storages, lives, _bytes(*_type(given))), calls=tuple(calls))


def _trace(
    calls: Sequence[Call],
    constants: Sequence[Sequence[tuple[int, int]]],
    storages: Sequence[int],
    lives: Mapping[Any, Placed],
    entrance: int,
) -> Trace:
    living = alive(list(lives.values()), len(calls))
    steps = tuple(
        Step(call.kernel, tuple(held), entrance + living[index])
        for index, (call, held) in enumerate(zip(calls, constants, strict=True))
    )
    return Trace(steps, tuple(storages), entrance)


def _is_tensor(operand: Any) -> bool:
    from tvm import relax

    return isinstance(getattr(operand, "ty", None), relax.TensorType)


def _type(tensor: Any) -> tuple[tuple[int, ...], str]:
    return tuple(int(length) for length in tensor.ty.shape.values), str(tensor.ty.dtype)


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _operand(tensor: Any) -> Operand:
    from tvm import relax

    shape, dtype = _type(tensor)
    value = None if isinstance(tensor, relax.Var) else tensor.value.numpy()
    return Operand(shape=shape, dtype=dtype, value=value)


def _address(constant: Any) -> int:
    return int(np.from_dlpack(constant.value).__array_interface__["data"][0])
