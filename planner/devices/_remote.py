"""Networks that are compiled here and lie on servers elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.devices._servers import Server
from planner.devices.base import Footprint
from planner.devices.tvm import RUNS_PER_SAMPLE, counted, owners_of, signatures_of
from planner.operators import Outline
from planner.segments import Entry, Network

if TYPE_CHECKING:
    from planner.compiler import Compiled
    from planner.kernel_calls import Call, Operand

__all__ = ["RpcProgram"]

T = TypeVar("T")


class _Asks(Protocol):
    """Something that has servers, as :class:`planner.devices.tvm_rpc.TvmRpcDevice` has."""

    def ask(self, what: str, work: Callable[[Server], T]) -> T:
        """Ask the first server something; where it is lost, another one."""


class RpcProgram:
    """A network compiled for the servers."""

    def __init__(self, entry: Entry, device: _Asks, compiled: Compiled, files: tuple[Path, Path]) -> None:
        """Count what it takes.

        Args:
            entry: The network.
            device: Runs it.
            compiled: A module that holds it under its name, its kernels merged.
            files: Two libraries: that module, and its kernels alone.
        """
        from planner.kernel_calls import read

        self._device = device
        self._files = files
        self._name, self._layers = entry.name, entry.layers
        reading = read(compiled.module, entry.name)
        self._calls = reading.calls
        calls = compiled.named(entry.name, [call.kernel for call in reading.calls])
        self._owners = owners_of(calls, entry.layers)
        self.footprint: Footprint = counted(entry, reading.trace, compiled.workspaces, self._owners)
        self.signature, self.signatures = signatures_of(entry, reading.trace, compiled, self._owners, calls)
        self.outline = Outline(
            operations=compiled.operations[entry.name],
            kernels=compiled.kernels[entry.name],
            arena_bytes=self.footprint.arena_bytes,
        )
        network = Network(entry)
        self._shape = network.shape(network.input)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        return self._device.ask("a run", lambda server: self.loaded(server).run(inputs))

    def sample(self) -> float:
        """Time the network on the first server; nanoseconds of one run, the median of ten."""
        return self._device.ask("a timing", lambda server: self.loaded(server).sample())

    def sample_layers(self) -> dict[str, float]:
        """Time each kernel on operands of its own, on the first server; nanoseconds, summed by layer."""
        return self._device.ask("a timing", lambda server: self.loaded(server).sample_layers())

    def loaded(self, server: Server) -> _Loaded:
        """Find the network on a server, or put it there; in that server's thread."""
        if self not in server.held:
            whole, kernels = self._files
            if whole not in server.held:
                server.held[whole] = _Library(server.session, whole, kernels)
            random = np.random.default_rng(0)
            server.held[self] = _Loaded(
                server.held[whole], self._name, self._layers, self._owners, self._calls,
                random.standard_normal(self._shape).astype(np.float32),
            )  # fmt: skip
        found: _Loaded = server.held[self]
        return found


class _Library:
    """Compiled networks on a server.  All of this is called in the server's thread."""

    def __init__(self, session: Any, whole: Path, kernels: Path) -> None:
        from tvm import relax

        self.place = session.cpu()
        for file in (whole, kernels):
            session.upload(str(file))
        self.machine = relax.VirtualMachine(session.load_module(whole.name), self.place)
        self.kernels = session.load_module(kernels.name)
        self._constants: dict[Any, Any] = {}

    def tensor(self, array: NDArray[Any]) -> Any:
        """Copy an array to the server."""
        import tvm

        return tvm.runtime.tensor(np.ascontiguousarray(array), self.place)

    def operand(self, operand: Operand, random: np.random.Generator) -> Any:
        """Copy an operand to the server; a constant that several networks read lies there once."""
        if operand.value is None:
            return self.tensor(operand.example(random))
        key = (operand.dtype, operand.shape, hashlib.sha256(np.ascontiguousarray(operand.value).tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self.tensor(operand.value)
        return self._constants[key]


class _Loaded:
    """A network on a server.  All of this is called in the server's thread."""

    def __init__(
        self,
        library: _Library,
        name: str,
        layers: Sequence[str],
        owners: Sequence[str],
        calls: Sequence[Call],
        image: NDArray[np.float32],
    ) -> None:
        self._library = library
        self._name, self._layers = name, layers
        self._calls = list(zip(owners, calls, strict=True))
        self._input = library.tensor(image)
        self._evaluate = library.machine.time_evaluator(name, library.place, number=1, repeat=RUNS_PER_SAMPLE)
        self._timers: list[tuple[str, Any, list[Any]]] | None = None

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        function, tensor = self._library.machine[self._name], self._library.tensor
        return np.stack([function(tensor(image[np.newaxis])).numpy().reshape(-1) for image in inputs])

    def sample(self) -> float:
        return float(np.median(self._evaluate(self._input).results)) * 1e9

    def sample_layers(self) -> dict[str, float]:
        if self._timers is None:
            self._timers = self._make_timers()
        total: dict[str, float] = dict.fromkeys(self._layers, 0.0)
        for layer, evaluate, operands in self._timers:
            total[layer] += float(evaluate(*operands).mean) * 1e9
        return total

    def _make_timers(self) -> list[tuple[str, Any, list[Any]]]:
        random = np.random.default_rng(0)
        kernels, place, copied = self._library.kernels, self._library.place, self._library.operand
        return [
            (
                layer,
                kernels.time_evaluator(call.kernel, place, number=RUNS_PER_SAMPLE, repeat=1),
                [copied(operand, random) for operand in call.operands],
            )
            for layer, call in self._calls
        ]
