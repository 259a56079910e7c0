"""ONNX Runtime on this machine: what a user would run instead."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.devices.base import Footprint
from planner.errors import InputError
from planner.layering import bytes_of
from planner.segments import Entry, Network, Segment

RUNS_PER_SAMPLE = 10


def open_device(address: str, threads: int) -> OnnxRuntimeDevice:
    """Open this machine; it has no address."""
    if address:
        raise InputError(f"device onnxruntime is this machine and takes no address, got {address!r}")
    return OnnxRuntimeDevice(threads)


class OnnxRuntimeDevice:
    """Runs networks in ONNX Runtime with all its graph optimisations on."""

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        """Remember the number of threads."""
        self.threads = threads

    def describe(self) -> dict[str, Any]:
        """Say what the device is, as JSON values."""
        return {
            "device": self.name,
            "threads": self.threads,
            "machine": platform.machine(),
            "system": platform.system(),
            "onnxruntime": version("onnxruntime"),
        }

    def program(self, entry: Entry) -> OnnxRuntimeProgram:
        """Load a network, and each of its layers as a model of its own."""
        return OnnxRuntimeProgram(entry, self.threads)

    def planned_arena(self, entry: Entry) -> int:
        """Give the greatest live set: ONNX Runtime does not say what it plans."""
        return count(Network(entry)).arena_bytes


class OnnxRuntimeProgram:
    """A network in ONNX Runtime."""

    def __init__(self, entry: Entry, threads: int) -> None:
        """Start a session for the network and one for each layer."""
        network = Network(entry)
        self._session = _session(network.model, threads)
        self._input = network.input
        random = np.random.default_rng(0)
        self._feed = {network.input: _random(random, network.shape(network.input))}
        self._layers = {}
        for segment in network.segments():
            feed = {name: _random(random, network.shape(name)) for name in segment.inputs}
            self._layers[segment.layer] = (_session(network.extract(segment), threads), feed)
        self.footprint = count(network)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        rows = [self._session.run(None, {self._input: image[np.newaxis]})[0].reshape(-1) for image in inputs]
        return np.stack(rows)

    def sample(self) -> float:
        """Time the network; nanoseconds of one run, the mean over ten."""
        return _sample(self._session, self._feed)

    def sample_layers(self) -> dict[str, float]:
        """Time each layer as a model of its own; nanoseconds, the session's own overhead included."""
        return {layer: _sample(session, feed) for layer, (session, feed) in self._layers.items()}


def _random(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return random.standard_normal(shape).astype(np.float32)


def _session(model: Any, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _sample(session: Any, feed: Mapping[str, NDArray[np.float32]]) -> float:
    session.run(None, feed)
    start = time.perf_counter_ns()
    for _ in range(RUNS_PER_SAMPLE):
        session.run(None, feed)
    return (time.perf_counter_ns() - start) / RUNS_PER_SAMPLE


def count(network: Network) -> Footprint:
    """Count initialisers by layer, and the tensors between layers that are alive at each."""
    segments = network.segments()
    last: dict[str, int] = {network.input: 0, network.output: len(segments)}
    for index, segment in enumerate(segments):
        last.update((name, max(index, last.get(name, 0))) for name in segment.inputs)
    born = {name: i for i, segment in enumerate(segments) for name in segment.outputs}
    born[network.input] = 0
    live = {
        segment.layer: sum(
            bytes_of(int(np.prod(network.shape(name))), network.infos[name].type.tensor_type.elem_type)
            for name, birth in born.items()
            if birth <= index <= last.get(name, birth) or name == network.input
        )
        for index, segment in enumerate(segments)
    }
    return Footprint(
        weight_bytes={s.layer: _constant_bytes(s) for s in segments},
        live_bytes=live,
        arena_bytes=max(live.values()),
        kernels={s.layer: len(s.nodes) for s in segments},
    )


def _constant_bytes(segment: Segment) -> int:
    from onnx import numpy_helper

    return sum(int(numpy_helper.to_array(c).nbytes) for c in segment.initialisers.values())
