"""Timing several programs beside one another: in turn, many times, so that all see the same machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import runners
from numpy.typing import NDArray

SAMPLE_MS = 30.0
"""What a sample should take: small networks run several times a sample."""
MOST_RUNS = 200
REST_S = 0.25
"""What a process is given to go quiet in before another one has its turn: idle threads of TVM spin for 0.14 s."""


class Side(Protocol):
    """Something that can be timed."""

    facts: Mapping[str, Any]

    def sample(self, runs: int) -> float:
        """Time some runs in a row; milliseconds a run."""

    def sample_kernels(self, runs: int) -> float:
        """Time the kernels one by one; their sum in milliseconds."""

    def outputs(self, count: int) -> NDArray[np.float32]:
        """Run the first inputs one by one; ``(count, ...)``."""


class Remote:
    """A runner in a process of its own, that sleeps while others have their turn."""

    def __init__(self, task: runners.Task, python: str = sys.executable) -> None:
        """Start the process and wait until it has compiled or loaded."""
        threads = str(task.threads)
        self._process = subprocess.Popen(  # noqa: S603
            [python, runners.__file__, json.dumps(dataclasses.asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TVM_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        )
        self.facts = self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"a process under measurement ended with status {self._process.wait()}")
        return json.loads(line)

    def _ask(self, order: str) -> Any:
        if self._process.stdin is None:
            raise RuntimeError("the process under measurement was started without a pipe")
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._answer()

    def sample(self, runs: int) -> float:
        """Time some runs in a row; milliseconds a run."""
        time.sleep(REST_S)
        return float(self._ask(f"sample {runs}"))

    def sample_kernels(self, runs: int) -> float:
        """Time the kernels one by one; their sum in milliseconds."""
        time.sleep(REST_S)
        return float(self._ask(f"kernels {runs}"))

    def outputs(self, count: int) -> NDArray[np.float32]:
        """Run the first inputs one by one; ``(count, ...)``."""
        return np.array(self._ask(f"outputs {count}"), np.float32)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Samples of one program.

    Attributes:
        samples_ms: One a round.
    """

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median."""
        return float(np.median(self.samples_ms))

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """The lower and the upper quartile."""
        low, high = np.quantile(self.samples_ms, (0.25, 0.75))
        return float(low), float(high)


def in_turn(samplers: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, Times]:
    """Time programs in turn, each round starting with another one.

    Args:
        samplers: Functions that time some runs in a row; milliseconds a run.
        rounds: Samples of each.

    Returns:
        Their samples, by name.
    """
    slowest = max(sampler(1) for sampler in samplers.values())
    runs = max(1, min(MOST_RUNS, round(SAMPLE_MS / slowest)))
    names = list(samplers)
    found: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(samplers[name](runs))
    return {name: Times(samples_ms=tuple(samples)) for name, samples in found.items()}


def geometric_mean(values: list[float]) -> float:
    """Give the geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def start(tasks: Mapping[str, runners.Task], stack: ExitStack, openvino: str | None = None) -> dict[str, Side]:
    """Compile or load what is to be timed.

    Args:
        tasks: By name, what is to be run.
        stack: Ends the processes that are started.
        openvino: The interpreter that has OpenVINO.

    Returns:
        Sides by the names of their tasks: in this process where one thread is all there is.
    """
    sides: dict[str, Side] = {}
    for name, task in tasks.items():
        if task.threads == 1 and task.runtime != "openvino":
            sides[name] = runners.Local(task)
        else:
            remote = Remote(task, openvino if openvino and task.runtime == "openvino" else sys.executable)
            stack.callback(remote.close)
            sides[name] = remote
    return sides


def provenance() -> dict[str, Any]:
    """Say where and with what was measured."""
    packages = ("blinkplan", "apache-tvm", "onnxruntime", "numpy")
    return {
        "machine": processor(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def processor() -> str:
    """Name the processor of this machine."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
