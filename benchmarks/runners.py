"""One network in one runtime, ready to be timed; as a script, a process of its own that is told to over a pipe.

Two runtimes that each keep a pool of threads disturb one another in one process, because idle threads spin for a
while; and OpenVINO may live in an environment of its own.  So this file needs numpy and the one runtime alone.  As a
script it is given a :class:`Task` in JSON as its only argument, and answers each line ``sample N``, ``kernels N`` or
``outputs N``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARMING = 4
"""One run is not counted for so many that are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be run, and how.

    Attributes:
        runtime: ``tvm``, ``onnxruntime`` or ``openvino``.
        model: Path of the ONNX file.
        inputs: Path of the inputs, an ``.npy`` of ``(n, ...)``; the first is what is timed.
        threads: Threads of the runtime.
        winograd: Whether ours may use Winograd's algorithm.
        search_s: Seconds that ours may measure schedules for while it compiles.
        mcpu: Processor that ours compiles for; empty for this machine's.
        classifier: Whether it is a network that ours reads as users have it read, rather than some nodes.
    """

    runtime: str
    model: str
    inputs: str
    threads: int = 1
    winograd: bool = False
    search_s: float = 0.0
    mcpu: str = ""
    classifier: bool = True


class Runner:
    """A network that has been compiled or loaded.

    Attributes:
        facts: What came up on the way: seconds of compiling, versions.
    """

    facts: dict[str, Any]

    def once(self) -> None:
        """Run the first input, and leave the result where it is."""
        raise NotImplementedError

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one input, ``(1, ...)``."""
        raise NotImplementedError

    def sample_kernels(self, runs: int) -> float:
        """Time the kernels of the network one by one, where the runtime shows them; their sum in milliseconds."""
        raise NotImplementedError

    def sample(self, runs: int) -> float:
        """Time some runs in a row after others that are not counted and wake the threads; milliseconds a run."""
        for _ in range(1 + runs // WARMING):
            self.once()
        start = time.perf_counter_ns()
        for _ in range(runs):
            self.once()
        return (time.perf_counter_ns() - start) / runs / 1e6


_EDGES = ("to_blocked", "to_plain")


class TvmRunner(Runner):
    """Ours: read, compiled and run the way a build is."""

    def __init__(self, task: Task, inputs: NDArray[np.float32]) -> None:
        import tvm
        from tvm import relax

        from planner.compiler import compile_networks, host_target
        from planner.schedules import Options

        start = time.perf_counter()
        entry = _entry(task)
        loaded = time.perf_counter()
        target = host_target(task.threads) | ({"mcpu": task.mcpu} if task.mcpu else {})
        options = Options(winograd=task.winograd)
        compiled = compile_networks([entry], target, options=options, search_s=task.search_s)
        self.facts = {
            "load_s": loaded - start,
            "compile_s": time.perf_counter() - loaded,
            "target": target,
            "kernels": len(compiled.schedules),
            "winograd_kernels": sum(text.startswith("winograd") for text in compiled.schedules.values()),
        }
        self._executable = compiled.executable
        self._first = np.ascontiguousarray(inputs[:1])
        self._timers: list[Any] | None = None
        self._tensor = tvm.runtime.tensor
        self._function = relax.VirtualMachine(compiled.executable.jit(), tvm.cpu())["network"]
        self._input = self._tensor(self._first)

    def once(self) -> None:
        """Run the first input, and leave the result where it is."""
        self._function(self._input)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one input, ``(1, ...)``."""
        return np.asarray(self._function(self._tensor(inputs)).numpy())

    def sample_kernels(self, runs: int) -> float:
        """Time the kernels one by one, those left out that change the layout at the network's edges."""
        if self._timers is None:
            from planner.artefact import Artefact

            timers = Artefact(self._executable).kernel_timers("network", self._first, number=runs)
            self._timers = [timer for name, timer in timers if not any(edge in name for edge in _EDGES)]
        return sum(timer() for timer in self._timers) / 1e6


def _entry(task: Task) -> Any:
    """Read what is to be compiled."""
    import onnx

    import planner
    from planner.segments import Entry

    if task.classifier:
        graph = planner.load(task.model, name="network").graph
        return Entry(name="network", model=graph.model, nodes={layer.name: layer.nodes for layer in graph.layers})
    model = onnx.load(task.model)
    return Entry(name="network", model=model, nodes={"layer": [node.name for node in model.graph.node]})


class OnnxRuntimeRunner(Runner):
    """ONNX Runtime with all its graph optimisations; inputs and outputs bound, which saves it copies."""

    def __init__(self, task: Task, inputs: NDArray[np.float32]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        start = time.perf_counter()
        self._session = onnxruntime.InferenceSession(task.model, options, providers=["CPUExecutionProvider"])
        self.facts = {"compile_s": time.perf_counter() - start, "onnxruntime": version("onnxruntime")}
        self._model, self._exact = task.model, None
        self._name = self._session.get_inputs()[0].name
        self._binding = self._session.io_binding()
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(inputs[:1]))
        self._binding.bind_ortvalue_input(self._name, self._value)
        self._binding.bind_output(self._session.get_outputs()[0].name)

    def once(self) -> None:
        """Run the first input, and leave the result where it is."""
        self._session.run_with_iobinding(self._binding)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one input, ``(1, ...)``."""
        if self._exact is None:
            # Its integer kernels saturate on some processors: what is exact is the network without optimisations.
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 3
            self._exact = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
        return np.asarray(self._exact.run(None, {self._name: inputs})[0])


class OpenVinoRunner(Runner):
    """OpenVINO for one request at a time, in float32 where the network is."""

    def __init__(self, task: Task, inputs: NDArray[np.float32]) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": task.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16, which it takes by itself where it can, is another precision
        }
        start = time.perf_counter()
        model = core.read_model(task.model)
        model.reshape(list(inputs[:1].shape))
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.facts = {"compile_s": time.perf_counter() - start, "openvino": version("openvino")}
        self._request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(inputs[:1])))

    def once(self) -> None:
        """Run the first input, and leave the result where it is."""
        self._request.infer()

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one input, ``(1, ...)``."""
        return np.array(next(iter(self._request.infer(inputs).values())))


_RUNTIMES = {"tvm": TvmRunner, "onnxruntime": OnnxRuntimeRunner, "openvino": OpenVinoRunner}


class Local:
    """A runner in this process."""

    def __init__(self, task: Task) -> None:
        """Compile or load."""
        self._inputs = np.load(task.inputs)
        self._runner = _RUNTIMES[task.runtime](task, self._inputs)
        self.facts = self._runner.facts

    def sample(self, runs: int) -> float:
        """Time some runs in a row; milliseconds a run."""
        return self._runner.sample(runs)

    def sample_kernels(self, runs: int) -> float:
        """Time the kernels one by one; their sum in milliseconds."""
        return self._runner.sample_kernels(runs)

    def outputs(self, count: int) -> NDArray[np.float32]:
        """Run the first inputs one by one; ``(count, ...)``."""
        return np.concatenate([self._runner.run(image[None]).reshape(1, -1) for image in self._inputs[:count]])


def main() -> int:
    """Serve one task over standard input and output."""
    side = Local(Task(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(side.facts) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order, count = line.split()
        orders = {"sample": side.sample, "kernels": side.sample_kernels, "outputs": lambda n: side.outputs(n).tolist()}
        answer = orders[order](int(count))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
