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
        random = np.random.default_rng(0)
        self._whole = Session(network.model, {network.input: _example(random, network, network.input)}, threads)
        self._input = network.input
        self._layers = {}
        for segment in network.segments():
            feed = {name: _example(random, network, name) for name in segment.inputs}
            self._layers[segment.layer] = Session(network.extract(segment), feed, threads)
        self.footprint = count(network)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images one after the other; logits ``(n, classes)``."""
        return np.stack([self._whole.run({self._input: image[np.newaxis]}).reshape(-1) for image in inputs])

    def sample(self) -> float:
        """Time the network; nanoseconds of one run, the median of ten."""
        return float(np.median(self._whole.latencies(RUNS_PER_SAMPLE)))

    def sample_layers(self) -> dict[str, float]:
        """Time each layer as a model of its own; nanoseconds, the session's own overhead included."""
        return {layer: float(np.median(s.latencies(RUNS_PER_SAMPLE))) for layer, s in self._layers.items()}


class Session:
    """A model in ONNX Runtime, its inputs and outputs bound: what is timed copies nothing."""

    def __init__(self, model: Any, feed: Mapping[str, NDArray[Any]] | NDArray[Any], threads: int) -> None:
        """Load a model.

        Args:
            model: An ``onnx.ModelProto``, or the path of a file.
            feed: What is timed: its inputs by name, or its only one.
            threads: Threads that it may use.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        source = model if isinstance(model, str) else model.SerializeToString()
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        if not isinstance(feed, Mapping):
            feed = {self._session.get_inputs()[0].name: feed}
        self._binding = self._session.io_binding()
        self._values = []  # the binding does not keep them
        for name, array in feed.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
            self._values.append(value)
            self._binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Give the first output for other inputs."""
        return np.asarray(self._session.run(None, dict(feed))[0], np.float32)

    def latencies(self, runs: int) -> NDArray[np.float64]:
        """Time single runs one after the other, after one that is not counted; nanoseconds, ``(runs,)``."""
        run, binding, clock = self._session.run_with_iobinding, self._binding, time.perf_counter_ns
        run(binding)
        marks = np.empty(runs + 1)
        marks[0] = clock()
        for index in range(1, runs + 1):
            run(binding)
            marks[index] = clock()
        return np.diff(marks)


def _example(random: np.random.Generator, network: Network, tensor: str) -> NDArray[Any]:
    """Make up a tensor of a network: of its shape, and of its type where layers hand bytes to one another."""
    from onnx import helper

    kind = np.dtype(helper.tensor_dtype_to_np_dtype(network.infos[tensor].type.tensor_type.elem_type))
    shape = network.shape(tensor)
    if np.issubdtype(kind, np.floating):
        return random.standard_normal(shape).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(max(limits.min, -127), min(limits.max, 127), shape, kind, endpoint=True)


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
