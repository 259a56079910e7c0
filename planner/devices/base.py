"""What every device offers, and how one is found by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planner import registry
from planner.errors import InputError
from planner.segments import Entry

__all__ = [
    "Device",
    "Footprint",
    "Program",
    "available",
    "close",
    "notes",
    "open_device",
    "programs",
    "sample_round",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes that a network takes on a device.

    Attributes:
        weight_bytes: Bytes of weights in the artefact, by layer.
        live_bytes: Greatest number of activation bytes alive while a layer runs (input of the network, what the
            layer reads, writes and works in, what later layers still read), by layer.
        arena_bytes: Bytes that the device really plans for activations, network input and output included.
        kernels: Kernels that a layer is made of, by layer.

    Examples:
        >>> Footprint(weight_bytes={"fc": 40}, live_bytes={"fc": 24}, arena_bytes=32, kernels={"fc": 1}).arena_bytes
        32
    """

    weight_bytes: Mapping[str, int]
    live_bytes: Mapping[str, int]
    arena_bytes: int
    kernels: Mapping[str, int]


class Program(Protocol):
    """One network made ready to run on a device, at batch 1."""

    footprint: Footprint

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images ``(n, C, H, W)`` one after the other; give logits ``(n, classes)``."""

    def sample(self) -> float:
        """Time the network once more; nanoseconds of one run."""

    def sample_layers(self) -> Mapping[str, float]:
        """Time each layer once more; nanoseconds of one run, by layer."""


class Device(Protocol):
    """Something that runs networks."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Say what the device is: target, processor, threads, versions; as JSON values."""

    def program(self, entry: Entry) -> Program:
        """Make a network ready to run."""

    def planned_arena(self, entry: Entry) -> int:
        """Give :attr:`Footprint.arena_bytes` of a network that need not be run, as cheaply as the device can."""


def programs(device: Device, entries: Sequence[Entry]) -> list[Program]:
    """Make networks ready that are to be timed beside one another.

    A device that can make many at less cost than one by one has a method ``programs`` that takes them all.
    """
    together = getattr(device, "programs", None)
    return list(together(entries)) if together is not None else [device.program(entry) for entry in entries]


def sample_round(
    device: Device, control: Program, others: Sequence[Program]
) -> list[tuple[float, Mapping[str, float]]]:
    """Time programs once each, the control first; a device of several machines has them measure side by side.

    Args:
        device: The device that made the programs.
        control: What the others are held against: a device of several machines times it on each.
        others: The other programs.

    Returns:
        For each program, the control first, nanoseconds of the network and of each layer.
    """
    together = getattr(device, "sample_round", None)
    if together is not None:
        return list(together([control, *others]))
    return [(program.sample(), program.sample_layers()) for program in (control, *others)]


def notes(device: Device) -> list[tuple[str, str]]:
    """Take what a device noted for the summary of a run: what had to be tried again, and why."""
    noted = getattr(device, "notes", None)
    return [] if noted is None else list(noted())


def close(device: Device) -> None:
    """Let go of what a device holds, such as its connections to other machines."""
    closing = getattr(device, "close", None)
    if closing is not None:
        closing()


def available() -> tuple[str, ...]:
    """List the devices that exist."""
    return registry.discover("planner.devices")


def open_device(spec: str, *, threads: int = 1) -> Device:
    """Open a device by name.

    Args:
        spec: ``name`` or ``name:address``.
        threads: Threads that a network may use on it.

    Raises:
        InputError: No such device, or its backend is missing.
    """
    name, _, address = spec.partition(":")
    if threads < 1:
        raise InputError(f"threads is {threads}; expected at least 1")
    device: Device = registry.get("planner.devices", name).open_device(address, threads)
    return device
