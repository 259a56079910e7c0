"""This machine, through code that TVM generates with our own schedules."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.devices.base import Footprint
from planner.errors import InputError
from planner.operators import Outline
from planner.segments import Entry, Network

if TYPE_CHECKING:
    from planner.artefact import Artefact, Trace
    from planner.compiler import Compiled

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
        (program,) = self.programs([entry])
        return program

    def programs(self, entries: Sequence[Entry]) -> list[TvmProgram]:
        """Compile networks that are to be timed beside one another; kernels that are equal are compiled once."""
        from planner import compiler
        from planner.artefact import Artefact

        apart = [dataclasses.replace(entry, name=f"network{number}") for number, entry in enumerate(entries)]
        compiled = compiler.compile_networks(apart, self.target, merged=True)
        artefact = Artefact(compiled.executable)
        return [TvmProgram(entry, artefact, compiled) for entry in apart]

    def canary(self) -> float:
        """Time something that shows whether other work is done on this machine; nanoseconds."""
        from planner.measuring.quiet import canary

        return canary()

    def planned_arena(self, entry: Entry) -> int:
        """Plan the storages without generating code."""
        from planner import compiler

        return compiler.planned_arena(entry, self.target)

    def outline(self, entry: Entry) -> Outline:
        """Work out what a network would need, without generating code."""
        from planner import compiler

        return compiler.outline(entry, self.target)


class TvmProgram:
    """A network compiled by TVM."""

    def __init__(self, entry: Entry, artefact: Artefact, compiled: Compiled) -> None:
        """Run once, and count.

        Args:
            entry: The network.
            artefact: A module that holds it under its name.
            compiled: What was compiled, its kernels merged.
        """
        self._entry = entry
        self._artefact = artefact
        network = Network(entry)
        self._input = np.random.default_rng(0).standard_normal(network.shape(network.input)).astype(np.float32)
        trace = artefact.trace(entry.name, self._input)
        calls = compiled.named(entry.name, [step.kernel for step in trace.steps])
        owners = owners_of(calls, entry.layers)
        self.footprint = counted(entry, trace, compiled.workspaces, owners)
        self._places = np.array([entry.layers.index(owner) for owner in owners])
        self.signature, self.signatures = signatures_of(entry, trace, compiled, owners, calls)
        self.outline = Outline(
            operations=compiled.operations[entry.name],
            kernels=compiled.kernels[entry.name],
            arena_bytes=self.footprint.arena_bytes,
        )
        self._run_calls = artefact.call_timers(entry.name, self._input)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        return self._artefact.run(self._entry.name, inputs)

    def sample(self) -> float:
        """Time the network; nanoseconds of one run, the median of ten."""
        return float(np.median(self._artefact.latencies(self._entry.name, self._input, runs=RUNS_PER_SAMPLE)))

    def sample_layers(self) -> dict[str, float]:
        """Time each kernel in a run of the network, call by call; nanoseconds, the median of ten, summed by layer."""
        taken = np.median([self._run_calls() for _ in range(RUNS_PER_SAMPLE)], axis=0)
        layers = self._entry.layers
        return dict(zip(layers, np.bincount(self._places, taken, minlength=len(layers)).tolist(), strict=True))


def signatures_of(
    entry: Entry, trace: Trace, compiled: Compiled, owners: Sequence[str], calls: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Name what a network runs by its kernels, so that equal ones are timed once.

    Args:
        entry: The network.
        trace: A run of it, watched or read off the compiled module.
        compiled: What was compiled, its kernels merged.
        owners: The layer of each kernel call.
        calls: The kernels called, by the names they had before they were merged.

    Returns:
        A digest of the whole network, and one of each layer.
    """
    kernels: dict[str, list[str]] = {layer: [] for layer in entry.layers}
    for owner, call in zip(owners, calls, strict=True):
        kernels[owner].append(compiled.signatures[call])
    layers = {layer: "-".join(found) for layer, found in kernels.items()}
    return _digest([trace.input_bytes, *trace.storages, *layers.values()]), layers


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:32]


def counted(
    entry: Entry, trace: Trace, workspaces: Mapping[str, int], owners: Sequence[str] | None = None
) -> Footprint:
    """Count the bytes of a network by layer.

    Args:
        entry: The network.
        trace: A run of it, watched or read off the compiled module.
        workspaces: Bytes that a kernel allocates for itself, by kernel name.
        owners: The layer of each kernel call, where the kernels' names do not say it.
    """
    owners = owners or owners_of([step.kernel for step in trace.steps], entry.layers)
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
    arena = trace.activation_bytes + max((workspaces.get(step.kernel, 0) for step in trace.steps), default=0)
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
