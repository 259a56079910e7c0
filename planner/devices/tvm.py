"""This machine, through code that TVM generates with our own schedules."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.devices.base import Footprint
from planner.errors import InputError
from planner.segments import Entry, Network

if TYPE_CHECKING:
    from planner.artefact import Trace

RUNS_PER_SAMPLE = 10


def open_device(address: str, threads: int) -> TvmDevice:
    """Open this machine; it has no address."""
    if address:
        raise InputError(f"device tvm is this machine and takes no address, got {address!r}")
    return TvmDevice(threads)


class TvmDevice:
    """Compiles networks for this machine and runs them in this process."""

    name = "tvm"

    def __init__(self, threads: int) -> None:
        """Choose the target; with several threads, size TVM's pool before it starts."""
        from planner import compiler

        os.environ["TVM_NUM_THREADS"] = str(threads)
        self.threads = threads
        self.target = compiler.host_target(threads)

    def describe(self) -> dict[str, Any]:
        """Say what the device is, as JSON values."""
        return {
            "device": self.name,
            "target": dict(self.target),
            "threads": self.threads,
            "machine": platform.machine(),
            "system": platform.system(),
            "tvm": version("apache-tvm"),
        }

    def program(self, entry: Entry) -> TvmProgram:
        """Compile a network and load it."""
        return TvmProgram(entry, self.target)

    def planned_arena(self, entry: Entry) -> int:
        """Plan the storages without generating code."""
        from planner import compiler

        return compiler.planned_arena(entry, self.target)


class TvmProgram:
    """A network compiled by TVM."""

    def __init__(self, entry: Entry, target: Mapping[str, Any]) -> None:
        """Compile, run once, and count."""
        from planner import compiler
        from planner.artefact import Artefact

        self._entry = entry
        compiled = compiler.compile_networks([entry], target)
        self._artefact = Artefact(compiled.executable)
        network = Network(entry)
        self._input = np.random.default_rng(0).standard_normal(network.shape(network.input)).astype(np.float32)
        self.footprint = counted(entry, self._artefact.trace(entry.name, self._input), compiled.workspaces)
        timers = self._artefact.kernel_timers(entry.name, self._input, number=RUNS_PER_SAMPLE)
        owners = owners_of([kernel for kernel, _ in timers], entry.layers)
        self._kernels = [(layer, timer) for layer, (_, timer) in zip(owners, timers, strict=True)]

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        return self._artefact.run(self._entry.name, inputs)

    def sample(self) -> float:
        """Time the network; nanoseconds of one run, the median of ten."""
        return float(np.median(self._artefact.latencies(self._entry.name, self._input, runs=RUNS_PER_SAMPLE)))

    def sample_layers(self) -> dict[str, float]:
        """Time each kernel on operands of its own; nanoseconds, summed by layer."""
        total: dict[str, float] = defaultdict(float)
        for layer, timer in self._kernels:
            total[layer] += timer()
        return {layer: total.get(layer, 0.0) for layer in self._entry.layers}


def counted(entry: Entry, trace: Trace, workspaces: Mapping[str, int]) -> Footprint:
    """Count the bytes of a network by layer.

    Args:
        entry: The network.
        trace: A run of it, watched or read off the compiled module.
        workspaces: Bytes that a kernel allocates for itself, by kernel name.
    """
    owners = owners_of([step.kernel for step in trace.steps], entry.layers)
    weights: dict[str, int] = dict.fromkeys(entry.layers, 0)
    live: dict[str, int] = dict.fromkeys(entry.layers, 0)
    kernels: dict[str, int] = dict.fromkeys(entry.layers, 0)
    seen: set[int] = set()
    for layer, step in zip(owners, trace.steps, strict=True):
        kernels[layer] += 1
        live[layer] = max(live[layer], step.alive + workspaces.get(step.kernel, 0))
        for address, size in step.constants:
            weights[layer] += 0 if address in seen else size
            seen.add(address)
    arena = trace.activation_bytes + max(workspaces.values(), default=0)
    return Footprint(weight_bytes=weights, live_bytes=live, arena_bytes=arena, kernels=kernels)


def owners_of(kernels: list[str], layers: tuple[str, ...]) -> list[str]:
    """Say to which layer each kernel call belongs, from its name; unnamed ones go with the call before."""
    from planner.schedules import naming

    owners = []
    current = 0
    for kernel in kernels:
        found = naming.owner(kernel)
        current = found[1] if found else current
        owners.append(layers[current])
    return owners
