"""How fast our TVM builds run whole networks beside ONNX Runtime, and OpenVINO where asked for.

    python benchmarks/networks.py --models quick,resnet50 --threads 1 --json networks.json

One record for each network and precision: ``float32`` (Winograd's algorithm where the heuristics choose it),
``float32 direct`` (without it) and ``int8`` (ONNX Runtime's static per-channel form of the network; weights of 7
bits where the processor has no dot product of bytes).  ``speedup`` is ONNX Runtime's float32 time over ours.  All
programs of a network are timed in turn in one run: with one thread in one process, with more each in a process of its
own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from models import FAMOUS, NAMES, Subject, prepare
from quantised import quantise, weight_bits
from runners import Task
from timing import Side, Times, geometric_mean, in_turn, provenance, start

from costmodels import write_aside

PRECISIONS = ("float32", "float32 direct", "int8")
HEURISTICS = ", heuristics alone"
COMPARED = 4
"""Inputs whose outputs are compared."""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _tasks(subject: Subject, folder: Path, arguments: argparse.Namespace) -> dict[str, Task]:
    """List what is timed for one network, by the name that :func:`_record` knows it by."""
    inputs = folder / "inputs.npy"
    np.save(inputs, subject.inputs)
    float32, int8 = str(subject.path), str(folder / f"{subject.name}.int8.onnx")

    def task(runtime: str, model: str, **more: Any) -> Task:
        return Task(runtime=runtime, model=model, inputs=str(inputs), threads=arguments.threads, **more)

    tasks = {"onnxruntime": task("onnxruntime", float32)}
    if "int8" in arguments.precision:
        quantise(subject.folded, Path(int8), subject.inputs, bits=weight_bits(arguments.mcpu))
        tasks["onnxruntime int8"] = task("onnxruntime", int8)
    for precision in arguments.precision:
        model = int8 if precision == "int8" else float32
        ours = task("tvm", model, mcpu=arguments.mcpu, winograd=precision == "float32")
        tasks[precision] = dataclasses.replace(ours, search_s=arguments.search)
        if arguments.search:
            tasks[f"{precision}{HEURISTICS}"] = ours
    if arguments.openvino:
        tasks["openvino"] = task("openvino", float32)
        if "int8" in arguments.precision:
            tasks["openvino int8"] = task("openvino", int8)
    return tasks


def _record(
    name: str, precision: str, arguments: argparse.Namespace, times: dict[str, Times], sides: dict[str, Side]
) -> dict[str, Any]:
    """Write down one network in one precision."""
    theirs, ours = times["onnxruntime"], times[precision]
    suffix = " int8" if precision == "int8" else ""
    # An int8 network has its own exact answer; ONNX Runtime's is a rounding or two away from it.
    reference = sides["onnxruntime" + suffix].outputs(COMPARED)
    difference = np.abs(sides[precision].outputs(COMPARED) - reference).max() / np.abs(reference).max()
    record = {
        "model": name,
        "threads": arguments.threads,
        "precision": precision,
        "tvm_ms": ours.median_ms,
        "onnxruntime_ms": theirs.median_ms,
        "speedup": theirs.median_ms / ours.median_ms,
        "tvm_quartiles_ms": ours.quartiles_ms,
        "onnxruntime_quartiles_ms": theirs.quartiles_ms,
        "greatest_relative_difference": float(difference),
        "rounds": arguments.rounds,
        **sides[precision].facts,
        **provenance(),
    }
    if precision == "int8":
        record["weight_bits"] = weight_bits(arguments.mcpu)
        record["onnxruntime_int8_ms"] = times["onnxruntime int8"].median_ms
    if "openvino" + suffix in times:
        record["openvino_ms"] = times["openvino" + suffix].median_ms
        record["openvino"] = sides["openvino" + suffix].facts["openvino"]
    if precision + HEURISTICS in times:
        record["heuristics_ms"] = times[precision + HEURISTICS].median_ms
    return record


def compare(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one network in all the precisions asked for."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _say(f"{name}: preparing")
        subject = prepare(name, Path(folder))
        tasks = _tasks(subject, Path(folder), arguments)
        _say(f"{subject.name}: compiling and loading {', '.join(tasks)}")
        sides = start(tasks, stack, arguments.openvino)
        _say(f"{subject.name}: timing {', '.join(sides)}")
        samplers: dict[str, Callable[[int], float]] = {label: side.sample for label, side in sides.items()}
        times = in_turn(samplers, arguments.rounds)
        records = [_record(subject.name, p, arguments, times, sides) for p in PRECISIONS if p in sides]
    for record in records:
        _say(_line(record))
    return records


def _line(record: dict[str, Any]) -> str:
    extras = [
        f"{label} {record[key]:.3f} ms"
        for key, label in (
            ("onnxruntime_int8_ms", "its int8"),
            ("openvino_ms", "OpenVINO"),
            ("heuristics_ms", "heuristics alone"),
        )
        if key in record
    ]
    return (
        f"{record['model']:14} {record['precision']:14} {record['tvm_ms']:9.3f} ms, "
        f"ONNX Runtime float32 {record['onnxruntime_ms']:9.3f} ms, speedup {record['speedup']:.3f}, "
        + "".join(f"{extra}, " for extra in extras)
        + f"compiled in {record['compile_s']:.1f} s, difference {record['greatest_relative_difference']:.1e}"
    )


def summary(records: list[dict[str, Any]]) -> list[str]:
    """State the geometric mean and the worst network of each precision."""
    lines = []
    for precision in PRECISIONS:
        found = [r for r in records if r["precision"] == precision]
        if found:
            mean = geometric_mean([r["speedup"] for r in found])
            worst = min(found, key=lambda r: r["speedup"])
            lines.append(
                f"{precision}, {found[0]['threads']} thread(s): geometric mean of {len(found)} networks {mean:.3f}, "
                f"worst {worst['model']} {worst['speedup']:.3f}"
            )
    return lines


def options() -> argparse.ArgumentParser:
    """Give the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        type=lambda text: text.split(","),
        default=list(FAMOUS),
        help=f"ONNX files, or any of {','.join(NAMES)} (default: {','.join(FAMOUS)})",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="samples of each program")
    parser.add_argument(
        "--precision",
        type=lambda text: text.split(","),
        default=list(PRECISIONS[:2]),
        help=f"any of {','.join(PRECISIONS)} (default: {','.join(PRECISIONS[:2])})",
    )
    parser.add_argument(
        "--search",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="measure other schedules than the heuristics choose for so long, and time the heuristics' choice beside",
    )
    parser.add_argument(
        "--openvino",
        metavar="PYTHON",
        nargs="?",
        const=sys.executable,
        help="time OpenVINO too, which this interpreter has (pip install blinkplan[benchmark]) or the one named",
    )
    parser.add_argument("--mcpu", default="", help="compile ours for another processor, for example haswell")
    parser.add_argument("--json", metavar="FILE", help="where to write the records")
    return parser


def main() -> int:
    """Compare and report."""
    parser = options()
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.precision) - set(PRECISIONS))
    if unknown:
        parser.error(f"no precision {unknown[0]!r}; expected some of {', '.join(PRECISIONS)}")
    if arguments.search and arguments.threads > 1:
        parser.error("schedules are measured on one thread; expected --threads 1 with --search")
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)
    records = []
    for name in arguments.models:
        records += compare(name, arguments)
        if arguments.json:
            write_aside(arguments.json, json.dumps(records, indent=1) + "\n")
    sys.stdout.write("\n".join([*map(_line, records), *summary(records)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
