"""Measuring a build in a process of its own: what ``planner.verify`` starts.

``python -m planner.remeasure BUILD DATA OUTPUT`` loads the artefact and its exact control, times them in turn beside
what onnxruntime takes for the exact network, counts their bytes, and judges both on the test images.  Figures go to
OUTPUT as JSON; nothing is compared with a promise here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels import write_aside
from planner.artefact import Artefact
from planner.reference import Reference
from planner.tvm_config import FILE_NAME, BuildConfig, NetworkConfig

if TYPE_CHECKING:
    from planner.dataset import Dataset

ROUNDS = 25
MOST_RUNS = 40
"""Single runs in a round; fewer for slow networks."""
ROUND_NS = 40e6
"""Time that one network may take in one round."""


def remeasure(build: Path, data: Dataset, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure every network of a build beside its exact control.

    Args:
        build: Folder of the build.
        data: Its test images are used.
        rounds: Rounds in which network, control and onnxruntime are timed in turn.

    Returns:
        For each network its latencies in nanoseconds, its bytes, and its accuracy, as JSON values.
    """
    config = BuildConfig.read(build / FILE_NAME)
    artefact, control = Artefact.load(build / config.module), Artefact.load(build / config.exact_module)
    inputs, labels = data.inputs("test"), data.test.labels
    found = {}
    for network in config.networks:
        with Reference(build / network.exact_onnx, inputs[:1], config.threads) as reference:
            latency = _latency(network.name, artefact, control, reference, inputs[:1], rounds, config.latency_quantile)
        found[network.name] = {
            **latency,
            **_bytes(config, network, artefact, inputs[:1]),
            **_accuracy(network.name, artefact, control, inputs, labels),
        }
    return found


def _latency(
    name: str,
    artefact: Artefact,
    control: Artefact,
    reference: Reference,
    inputs: Any,
    rounds: int,
    quantile: float,
) -> dict[str, Any]:
    first = float(np.median(artefact.latencies(name, inputs, runs=5)))
    runs = max(1, min(MOST_RUNS, int(ROUND_NS / first)))
    samplers = {
        "network": lambda: artefact.latencies(name, inputs, runs=runs),
        "control": lambda: control.latencies(name, inputs, runs=runs),
        "onnxruntime": lambda: reference.latencies(max(1, runs // 2)),
    }
    samples: dict[str, list[Any]] = {what: [] for what in samplers}
    for index in range(rounds):
        turn = list(samplers) if index % 2 == 0 else list(reversed(samplers))
        for what in turn:
            if what != "onnxruntime" or reference.takes_part(index, rounds):
                samples[what].append(samplers[what]())
    found: dict[str, Any] = {"runs": rounds * runs}
    for what, parts in samples.items():
        times = np.concatenate(parts)
        found[what] = {
            "p50_ns": float(np.median(times)),
            "p99_ns": float(np.quantile(times, 0.99)),
            "quantile_ns": float(np.quantile(times, quantile)),
            "medians_ns": [float(np.median(part)) for part in parts],
        }
    return found


def _bytes(config: BuildConfig, network: NetworkConfig, artefact: Artefact, inputs: Any) -> dict[str, Any]:
    trace = artefact.trace(network.name, inputs)
    ran = {step.kernel for step in trace.steps}
    workspace = max((k.workspace_bytes for k in config.kernels if k.name in ran), default=0)
    return {
        "weight_bytes": trace.weight_bytes,
        "arena_bytes": trace.activation_bytes + workspace,
    }


def _accuracy(name: str, artefact: Artefact, control: Artefact, inputs: Any, labels: Any) -> dict[str, Any]:
    from planner.accuracy import compare, hits

    logits, exact = artefact.run(name, inputs), control.run(name, inputs)
    cost = compare(logits, exact, labels)
    return {
        "images": len(labels),
        "top1": 100.0 * float(hits(logits, labels, exact).mean()),
        "exact_top1": 100.0 * float(hits(exact, labels, exact).mean()),
        "top1_change": cost.top1_change,
        "top1_change_std": cost.top1_change_std,
        "loss": cost.loss_raw,
        "loss_std": cost.loss_std,
    }


def main(arguments: list[str]) -> int:
    """Measure, and write the figures."""
    from planner import dataset

    build, data, output = arguments
    figures = remeasure(Path(build), dataset.read(data))
    write_aside(output, json.dumps(figures, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
