"""How fast single layers run beside ONNX Runtime, and how near to what the machine can do.

    python benchmarks/kernels.py --threads 1 --json kernels.json

Each layer is a network of its own, so what both runtimes take to bring its input into their own layout counts in
``tvm_ms`` and ``onnxruntime_ms``; ``kernel_ms`` is our kernels alone, as they run inside a network.  ``roofline_ms``
is the time for its arithmetic at the machine's float32 peak (OpenBLAS's product of matrices, or the fastest float32
kernel here if that is faster) or for reading and writing its weights, input and output once at the speed of a copy,
whichever is longer; ``share`` is ``roofline_ms / kernel_ms``, and can exceed 1 where integers are computed with or the
cache holds the operands.
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

import layers
import numpy as np
import onnx
import roofline
from quantised import quantise, weight_bits
from runners import Task
from timing import Times, in_turn, provenance, start

from costmodels import write_aside

INPUTS = 4


def _files(layer: layers.Layer, wanted: list[str], folder: Path) -> dict[str, Path]:
    """Write a layer in each form that it is asked for and has; by the form's name."""
    model, exact = layers.float32(layer), folder / "float32.onnx"
    onnx.save(model, exact)
    inputs = np.random.default_rng(1).standard_normal((INPUTS, *layer.input_shape[1:])).astype(np.float32)
    np.save(folder / "inputs.npy", inputs)
    files = {"float32": exact}
    if "int8" in wanted:
        files["int8"] = folder / "int8.onnx"
        quantise(model, files["int8"], inputs, bits=weight_bits(""))
    for form, store in layers.STORED.items():
        stored = store(layer) if form in wanted else None
        if stored is not None:
            files[form] = folder / f"{form.replace(' ', '_')}.onnx"
            onnx.save(stored, files[form])
    return files


def compare(layer: layers.Layer, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one layer in all its forms."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = _files(layer, arguments.precision, folder)

        def task(runtime: str, form: str) -> Task:
            inputs = str(folder / "inputs.npy")
            model = str(files[form])
            return Task(runtime=runtime, model=model, inputs=inputs, threads=arguments.threads, classifier=False)

        tasks = {"onnxruntime": task("onnxruntime", "float32")}
        if "int8" in files:
            tasks["onnxruntime int8"] = task("onnxruntime", "int8")
        if "winograd" in arguments.precision and layer.winograd:
            tasks["winograd"] = dataclasses.replace(task("tvm", "float32"), winograd=True)
        tasks |= {form: task("tvm", form) for form in files if form in arguments.precision}
        sides = start(tasks, stack)
        samplers: dict[str, Callable[[int], float]] = {side: found.sample for side, found in sides.items()}
        for form, found in sides.items():
            if not form.startswith("onnxruntime"):
                samplers[f"{form} kernel"] = found.sample_kernels
        times = in_turn(samplers, arguments.rounds)
        outputs = {side: sides[side].outputs(INPUTS) for side in sides if side != "onnxruntime int8"}
        weights = {form: layers.constant_bytes(onnx.load(file)) for form, file in files.items()}
    exact = outputs["onnxruntime"]
    records = []
    for form in times.keys() & {*layers.STORED, "float32", "winograd", "int8"}:
        record = _record(layer, form, arguments, times)
        record["greatest_relative_difference"] = float(np.abs(outputs[form] - exact).max() / np.abs(exact).max())
        record["moved_bytes"] = weights.get(form, weights["float32"]) + 4 * (layer.input_size + exact[0].size)
        record |= {key: sides[form].facts[key] for key in ("compile_s", "target")} | provenance()
        records.append(record)
    return sorted(records, key=lambda record: PRECISIONS.index(record["precision"]))


PRECISIONS = ("float32", "winograd", "int8", *layers.STORED)


def _record(layer: layers.Layer, form: str, arguments: argparse.Namespace, times: dict[str, Times]) -> dict[str, Any]:
    kernel_ms, theirs = times[f"{form} kernel"].median_ms, times["onnxruntime"]
    record = {
        "kernel": layer.name,
        "threads": arguments.threads,
        "precision": form,
        "tvm_ms": times[form].median_ms,
        "kernel_ms": kernel_ms,
        "kernel_quartiles_ms": times[f"{form} kernel"].quartiles_ms,
        "onnxruntime_ms": theirs.median_ms,
        "onnxruntime_quartiles_ms": theirs.quartiles_ms,
        "speedup": theirs.median_ms / times[form].median_ms,
        "gflops": 2 * layer.macs / kernel_ms / 1e6,
        "macs": layer.macs,
        "rounds": arguments.rounds,
    }
    if "onnxruntime int8" in times:
        record["onnxruntime_int8_ms"] = times["onnxruntime int8"].median_ms
    return record


def under_roofline(records: list[dict[str, Any]], limits: dict[str, float]) -> None:
    """Add the roofline to records, once it is known how fast the fastest of them is."""
    exact = [record["gflops"] for record in records if record["precision"] == "float32"]
    peak = max([limits["gemm_gflops"], *exact])
    for record in records:
        compute_ms = 2 * record["macs"] / peak / 1e6
        move_ms = record["moved_bytes"] / limits["copy_gbps"] / 1e6
        record["roofline_ms"] = max(compute_ms, move_ms)
        record["bound"] = "compute" if compute_ms >= move_ms else "memory"
        record["share"] = record["roofline_ms"] / record["kernel_ms"]
        record["roofline"] = {**limits, "peak_gflops": peak}


def line(record: dict[str, Any]) -> str:
    """Write one record as a line."""
    return ", ".join(
        [
            f"{record['kernel']:26} {record['precision']:15} {record['tvm_ms']:8.4f} ms",
            f"kernel {record['kernel_ms']:8.4f}",
            f"ONNX Runtime {record['onnxruntime_ms']:8.4f}",
            f"speedup {record['speedup']:.2f}",
            f"{record['gflops']:6.1f} GFLOP/s",
            f"{record['share']:.2f} of the {record['bound']} roofline",
            f"difference {record['greatest_relative_difference']:.1e}",
        ]
    )


def options() -> argparse.ArgumentParser:
    """Give the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [layer.name for layer in layers.LAYERS]
    parser.add_argument(
        "--kernels", type=lambda text: text.split(","), default=names, help=f"some of {','.join(names)} (default: all)"
    )
    parser.add_argument(
        "--precision",
        type=lambda text: text.split(","),
        default=list(PRECISIONS),
        help=f"some of {','.join(PRECISIONS)} (default: all)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each program")
    parser.add_argument("--json", metavar="FILE", help="where to write the records")
    return parser


def main() -> int:
    """Compare and report."""
    parser = options()
    arguments = parser.parse_args()
    known = {layer.name: layer for layer in layers.LAYERS}
    for given, existing in ((arguments.kernels, known), (arguments.precision, PRECISIONS)):
        unknown = [name for name in given if name not in existing]
        if unknown:
            parser.error(f"no {unknown[0]!r}; expected some of {', '.join(existing)}")
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)
    limits = roofline.measure(arguments.threads)
    records: list[dict[str, Any]] = []
    for name in arguments.kernels:
        sys.stderr.write(f"{name}\n")
        sys.stderr.flush()
        records += compare(known[name], arguments)
    under_roofline(records, limits)
    if arguments.json:
        write_aside(arguments.json, json.dumps(records, indent=1) + "\n")
    sys.stdout.write("\n".join(map(line, records)) + "\n")
    sys.stdout.write(
        f"OpenBLAS 1024x1024x1024 {limits['gemm_gflops']:.1f} GFLOP/s, memory copy {limits['copy_gbps']:.1f} GB/s, "
        f"{arguments.threads} thread(s)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
