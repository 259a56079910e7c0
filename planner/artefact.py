"""A built module in memory: running it, timing it, and counting what it takes.

Nothing here trusts what the compiler said.  Bytes are counted by watching the virtual machine run: which
constants its kernels are handed, which storages it allocates, how long each tensor is still read.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call as it was seen.

    Attributes:
        kernel: Name of the kernel.
        constants: Address and bytes of each constant it was handed.
        alive: Bytes of activations alive while it ran: the network's input, what it read and wrote, and what
            later kernels still read; a place that it reads and writes counts once.
    """

    kernel: str
    constants: tuple[tuple[int, int], ...]
    alive: int


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of a network as the virtual machine made it.

    Attributes:
        steps: Kernel calls in order.
        storages: Bytes of each storage allocated, network output included.
        input_bytes: Bytes of the network's input.
    """

    steps: tuple[Step, ...]
    storages: tuple[int, ...]
    input_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants, each counted once."""
        return sum({a: n for step in self.steps for a, n in step.constants}.values())

    @property
    def activation_bytes(self) -> int:
        """Bytes of the input and of every storage: what the network needs beside its weights."""
        return self.input_bytes + sum(self.storages)


@dataclass(slots=True)
class Placed:
    """A tensor of activations that was seen.

    Attributes:
        start: Where it starts: an address, or any number that tells places apart as addresses do.
        bytes: Its size.
        born: Number of the kernel call before which it was made.
        last: Number of the last kernel call that was handed it.
    """

    start: int
    bytes: int
    born: int
    last: int


def alive(tensors: Sequence[Placed], calls: int) -> list[int]:
    """Count the bytes of activations alive during each kernel call; what lies in one place counts once.

    Args:
        tensors: The tensors.
        calls: How many kernel calls there were.
    """
    found = []
    for call in range(calls):
        total = end = 0
        for tensor in sorted((t for t in tensors if t.born <= call <= t.last), key=lambda t: t.start):
            total += max(0, tensor.start + tensor.bytes - max(end, tensor.start))
            end = max(end, tensor.start + tensor.bytes)
        found.append(total)
    return found


class Artefact:
    """A module that was compiled here or loaded from a file."""

    def __init__(self, module: Any) -> None:
        """Start a virtual machine on a compiled executable or a loaded library."""
        import tvm
        from tvm import relax

        self._device = tvm.cpu()
        runtime = module.jit() if hasattr(module, "jit") else module
        self._runtime = runtime
        self._machine = relax.VirtualMachine(runtime, self._device)
        self._watching: Any = None
        self._kernels = runtime.imports_[0]

    @classmethod
    def load(cls, path: Path) -> Artefact:
        """Load a shared library.

        Raises:
            InputError: The file is missing or is no TVM module.
        """
        import tvm

        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a built module")
        try:
            return cls(tvm.runtime.load_module(str(path.resolve())))
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"{path}: not a module that TVM can load ({error})") from error

    def tensor(self, array: NDArray[np.float32]) -> Any:
        """Copy an array to the device."""
        import tvm

        return tvm.runtime.tensor(np.ascontiguousarray(array), self._device)

    def run(self, network: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other.

        Args:
            network: Name of the network in the module.
            inputs: ``(n, C, H, W)``.

        Returns:
            Logits, ``(n, classes)``.
        """
        function = self._machine[network]
        outputs = [function(self.tensor(image[np.newaxis])).numpy().reshape(-1) for image in inputs]
        return np.stack(outputs)

    def latencies(self, network: str, inputs: NDArray[np.float32], *, runs: int) -> NDArray[np.float64]:
        """Time single runs one after the other, after one that is not counted; nanoseconds, ``(runs,)``.

        Args:
            network: Name of the network in the module.
            inputs: One input, ``(1, C, H, W)``.
            runs: Runs to time.
        """
        evaluate = self._machine.time_evaluator(network, self._device, number=1, repeat=runs)
        return np.array(evaluate(self.tensor(inputs)).results) * 1e9

    def kernel_timers(self, network: str, inputs: NDArray[np.float32], *, number: int) -> list[tuple[str, Any]]:
        """Give a timer for each kernel call of a network, in order, on operands of its own.

        Returns:
            Pairs of kernel name and a function that returns nanoseconds.
        """
        timers = []
        for kernel, operands in self._calls(network, inputs):
            evaluate = self._kernels.time_evaluator(kernel, self._device, number=number, repeat=1)
            timers.append((kernel, _Timer(evaluate, operands)))
        return timers

    def call_timers(self, network: str, inputs: NDArray[np.float32]) -> Callable[[], NDArray[np.float64]]:
        """Give what runs a network's kernels one after the other, each on the memory that it has in the network.

        So caches hold for each kernel what they hold in a run of the whole; kernels that are run again and again on
        operands of their own find all of these in the nearest cache, and show up to a fifth less.

        Args:
            network: Name of the network in the module.
            inputs: One input, ``(1, C, H, W)``.

        Returns:
            A function that runs all kernel calls once and gives the nanoseconds of each, in order, the call itself
            included: about what the virtual machine takes for it too.
        """
        calls: list[tuple[Any, tuple[Any, ...]]] = []
        found: dict[str, Any] = {}

        def watch(function: Any, symbol: str, before: bool, result: Any, *operands: Any) -> None:
            if before and not symbol.startswith("vm.builtin."):
                if symbol not in found:
                    found[symbol] = self._kernels.get_function(symbol)
                calls.append((found[symbol], operands))

        self._watched(network, self.tensor(inputs), watch)
        clock = time.perf_counter_ns

        def run() -> NDArray[np.float64]:
            taken = np.empty(len(calls))
            for place, (kernel, operands) in enumerate(calls):
                start = clock()
                kernel(*operands)
                taken[place] = clock() - start
            return taken

        return run

    def _calls(self, network: str, inputs: NDArray[np.float32]) -> list[tuple[str, Sequence[Any]]]:
        """Run once and copy the operands of every kernel call."""
        calls: list[tuple[str, Sequence[Any]]] = []

        def watch(function: Any, symbol: str, before: bool, result: Any, *operands: Any) -> None:
            if before and not symbol.startswith("vm.builtin."):
                calls.append((symbol, [self.tensor(o.numpy()) for o in operands]))

        self._watched(network, self.tensor(inputs), watch)
        return calls

    def _watched(self, network: str, argument: Any, watch: Any) -> None:
        """Run a network once in a virtual machine that is not timed: an instrument, once set, slows every later run."""
        from tvm import relax

        if self._watching is None:
            self._watching = relax.VirtualMachine(self._runtime, self._device)
        self._watching.set_instrument(watch)
        self._watching[network](argument)

    def weights_sha256(self, network: str, inputs: NDArray[np.float32]) -> str:
        """Hash a network's constants in the order in which its kernels read them, each once."""
        constants = {a for step in self.trace(network, inputs).steps for a, _ in step.constants}
        digest = hashlib.sha256()
        seen: set[int] = set()

        def watch(function: Any, symbol: str, before: bool, result: Any, *operands: Any) -> None:
            if not before or symbol.startswith("vm.builtin."):
                return
            for operand in operands:
                address, _ = _place(operand)
                if address in constants - seen:
                    seen.add(address)
                    digest.update(np.ascontiguousarray(operand.numpy()).tobytes())

        self._watched(network, self.tensor(inputs), watch)
        return digest.hexdigest()

    def trace(self, network: str, inputs: NDArray[np.float32]) -> Trace:
        """Run a network once under observation."""
        events: list[tuple[str, list[tuple[int, int]]]] = []
        storages: list[int] = []
        known: dict[int, Placed] = {}  # by the handle of a tensor: two may lie at one address
        history: list[Placed] = []

        def watch(function: Any, symbol: str, before: bool, result: Any, *operands: Any) -> None:
            if symbol == "vm.builtin.alloc_storage" and before:
                storages.append(int(operands[1][0]))
            elif symbol == "vm.builtin.alloc_tensor" and not before:
                address, size = _place(result)
                known[_handle(result)] = Placed(address, size, len(events), len(events))
                history.append(known[_handle(result)])
            elif symbol.startswith("vm.builtin."):
                # A view of a tensor is known as that tensor.
                source = next((known[_handle(o)] for o in operands if _handle(o) in known), None)
                if source is not None and not before and _handle(result):
                    known[_handle(result)] = source
            elif before:
                constants = []
                for operand in operands:
                    if _handle(operand) in known:
                        known[_handle(operand)].last = len(events)
                    else:
                        constants.append(_place(operand))
                events.append((symbol, constants))

        given = self.tensor(inputs)
        self._watched(network, given, watch)
        entrance, size = _place(given)
        living = alive(history, len(events))
        steps = tuple(
            Step(name, tuple(c for c in constants if c[0] != entrance), size + living[index])
            for index, (name, constants) in enumerate(events)
        )
        return Trace(steps, tuple(storages), size)


@dataclass(frozen=True, slots=True)
class _Timer:
    """Times one kernel on operands that it keeps alive."""

    evaluate: Any
    operands: Sequence[Any]

    def __call__(self) -> float:
        return float(self.evaluate(*self.operands).mean) * 1e9


def _handle(value: Any) -> int:
    """Give what tells a tensor from others while it lives; 0 for what is none."""
    return int(value.__chandle__()) if hasattr(value, "shape") else 0


def _place(tensor: Any) -> tuple[int, int]:
    """Give the address and the bytes of a tensor on the host."""
    view = np.from_dlpack(tensor)
    return int(view.__array_interface__["data"][0]), int(view.nbytes)
