"""A device made of arithmetic, for tests and for trying things out: it times nothing.

Latency is 200 ns a kernel plus 10 ps a multiply-accumulate, with 1 % of seeded noise on every sample.  Outputs are
those of ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.devices.base import Footprint
from planner.devices.onnxruntime import OnnxRuntimeDevice, OnnxRuntimeProgram, count
from planner.errors import InputError
from planner.segments import Entry, Network

NS_PER_KERNEL = 200.0
NS_PER_MAC = 0.01
NOISE = 0.01


def open_device(address: str, threads: int) -> SimulatedDevice:
    """Open a device; the address, if any, is the seed of its noise."""
    if address and not address.isdecimal():
        raise InputError(f"device simulated takes a seed as its address, got {address!r}")
    return SimulatedDevice(int(address or 0))


class SimulatedDevice:
    """A device whose figures come from a formula."""

    name = "simulated"

    def __init__(self, seed: int) -> None:
        """Remember the seed of the noise."""
        self.seed = seed

    def describe(self) -> dict[str, Any]:
        """Say what the device is, as JSON values."""
        return {"device": self.name, "seed": self.seed, "threads": 1}

    def program(self, entry: Entry) -> SimulatedProgram:
        """Make a network ready."""
        return SimulatedProgram(entry, self.seed)

    def planned_arena(self, entry: Entry) -> int:
        """Give the greatest live set, which is the arena here."""
        return count(Network(entry)).arena_bytes


class SimulatedProgram:
    """A network on the simulated device."""

    def __init__(self, entry: Entry, seed: int) -> None:
        """Count multiply-accumulates by layer."""
        self._runtime: OnnxRuntimeProgram = OnnxRuntimeDevice(1).program(entry)
        self.footprint: Footprint = self._runtime.footprint
        network = Network(entry)
        self._nanoseconds = {
            segment.layer: sum(NS_PER_KERNEL + NS_PER_MAC * _macs(network, node) for node in segment.nodes)
            for segment in network.segments()
        }
        self._random = np.random.default_rng(seed)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        return self._runtime.run(inputs)

    def _noisy(self, nanoseconds: float) -> float:
        return nanoseconds * (1 + NOISE * float(self._random.standard_normal()))

    def sample(self) -> float:
        """Give the network's latency with noise, nanoseconds."""
        return self._noisy(sum(self._nanoseconds.values()))

    def sample_layers(self) -> dict[str, float]:
        """Give each layer's latency with noise, nanoseconds."""
        return {layer: self._noisy(ns) for layer, ns in self._nanoseconds.items()}


def _macs(network: Network, node: Any) -> float:
    weights = [network.initialisers[i] for i in node.input if i in network.initialisers]
    produced = float(np.prod(network.shape(node.output[0])[1:]))
    if node.op_type == "Conv" and len(node.input) > 1:
        shape = network.shape(node.output[0])
        kernel = _weight_shape(network, node.input[1])[1:]
        return float(np.prod(shape[1:]) * np.prod(kernel))
    if node.op_type in {"Gemm", "MatMul"} and weights:
        return float(max(np.prod(w.dims) for w in weights))
    return produced


def _weight_shape(network: Network, name: str) -> tuple[int, ...]:
    if name in network.initialisers:
        return tuple(network.initialisers[name].dims)
    return network.shape(name)
