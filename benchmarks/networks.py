"""How fast our TVM builds run beside ONNX Runtime: both in one process, in turn, one thread.

    python benchmarks/networks.py --json networks.json

Medians over rounds and their quartiles; each sample is ten runs of one network.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import planner
from planner.devices import open_device
from planner.segments import Entry


def compare(path: Path, rounds: int) -> dict[str, object]:
    """Time one exact network on both devices, in turn."""
    graph = planner.load(path).graph
    entry = Entry(name=graph.name, model=graph.model, nodes={layer.name: layer.nodes for layer in graph.layers})
    programs = {name: open_device(name).program(entry) for name in ("tvm", "onnxruntime")}
    image = np.random.default_rng(0).standard_normal(graph.input_shape).astype(np.float32)
    ours, theirs = (program.run(image) for program in programs.values())
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for index in range(rounds):
        names = list(programs) if index % 2 == 0 else list(reversed(programs))
        for name in names:
            samples[name].append(programs[name].sample() / 1e6)
    quartiles = {name: np.quantile(times, (0.25, 0.5, 0.75)) for name, times in samples.items()}
    return {
        "model": graph.name,
        "threads": 1,
        "precision": "float32",
        "tvm_ms": float(quartiles["tvm"][1]),
        "tvm_quartiles_ms": [float(q) for q in quartiles["tvm"][::2]],
        "onnxruntime_ms": float(quartiles["onnxruntime"][1]),
        "onnxruntime_quartiles_ms": [float(q) for q in quartiles["onnxruntime"][::2]],
        "speedup": float(quartiles["onnxruntime"][1] / quartiles["tvm"][1]),
        "greatest_difference": float(np.abs(ours - theirs).max()),
        "rounds": rounds,
    }


def main() -> int:
    """Compare and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="quick,resnet8,vggs", help="shipped networks or ONNX files")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", metavar="FILE", help="where to write the records")
    arguments = parser.parse_args()
    records = []
    for name in arguments.models.split(","):
        path = Path(name) if name.endswith(".onnx") else planner.shipped(f"models/{name}.onnx")
        records.append(compare(path, arguments.rounds))
        record = records[-1]
        sys.stdout.write(
            f"{record['model']}: {record['tvm_ms']:.4f} ms, ONNX Runtime {record['onnxruntime_ms']:.4f} ms, "
            f"{record['speedup']:.2f} times as fast\n"
        )
    mean = float(np.exp(np.mean([np.log(r["speedup"]) for r in records])))
    sys.stdout.write(f"geometric mean {mean:.2f} over {len(records)} networks, {arguments.rounds} rounds\n")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
