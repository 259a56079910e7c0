"""Measure networks and kernels, and write the tables of docs/performance.md.

    python benchmarks/performance.py --out docs/performance.md

Without ``--networks`` and ``--kernels`` everything is measured, which takes a quarter of an hour and wants a machine
that does nothing else; with them, records that networks.py and kernels.py wrote before are put into tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models import FAMOUS, NAMES
from timing import geometric_mean

from costmodels import write_aside

HERE = Path(__file__).parent
Record = Mapping[str, Any]

_HOW = """\
Medians of {rounds} rounds, in each of which every program has its turn; ± is half the distance of the quartiles. With
one thread all programs of a network run in one process, with more each in a process of its own (OpenVINO always).
`speedup` is ONNX Runtime's float32 time over ours. `difference` is the greatest difference of outputs before the
softmax, relative to the largest: of float32 networks to ONNX Runtime without graph optimisations, of int8 networks to
the same int8 network there. Networks that are not shipped have random weights."""
_PRECISIONS = """\
`float32` has Winograd's algorithm where the heuristics choose it, `float32 direct` has not; `int8` is ONNX Runtime's
own static quantisation of the network, per channel, run by all."""
_LAYERS = """\
Networks of one layer. `kernel alone` leaves out what brings input and output into our own layout. The roofline is the
longer of two times: the layer's arithmetic at the machine's float32 peak (OpenBLAS's, or that of the fastest float32
kernel below), and moving weights, input and output once at the speed of a copy. Integers, Winograd's algorithm and
operands that stay in the cache can go beyond it. Here `difference` is to ONNX Runtime's float32 output, so that of
integers is what rounding costs."""
_LIMITS = """\
OpenBLAS multiplies 1024x1024 matrices at {gemm_gflops:.0f} GFLOP/s; the peak taken is {peak_gflops:.0f} GFLOP/s. A copy
reads and writes {copy_gbps:.0f} GB/s."""


def _measure(script: str, *options: str) -> list[Record]:
    """Run one of the other benchmarks in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "records.json"
        command = [sys.executable, str(HERE / script), *options, "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        records: list[Record] = json.loads(out.read_text(encoding="utf-8"))
    return records


def _read(paths: Iterable[str]) -> list[Record]:
    return [record for path in paths for record in json.loads(Path(path).read_text(encoding="utf-8"))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table in Markdown, the first column to the left, all others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _ms(record: Record, key: str) -> str:
    return f"{record[key]:.3f}" if key in record else "-"


def _spread(record: Record, key: str, median: str) -> str:
    """Give half the distance of the quartiles as a share of the median."""
    low, high = record[key]
    return f"{50 * (high - low) / record[median]:.1f} %"


def networks(records: Sequence[Record]) -> list[str]:
    """Put networks into one table for each number of threads and each precision."""
    lines = []
    kinds = dict.fromkeys((r["threads"], r["precision"], r["target"]["mcpu"]) for r in records)
    for threads, precision, mcpu in kinds:
        found = [
            r for r in records if (r["threads"], r["precision"], r["target"]["mcpu"]) == (threads, precision, mcpu)
        ]
        int8 = precision == "int8"
        lines += ["", f"### {precision}, {threads} thread{'s' if threads > 1 else ''}, compiled for {mcpu}", ""]
        extra = ["its int8, ms"] if int8 else ["Winograd kernels"]
        head = ["network", "ours, ms", "±", "ONNX Runtime float32, ms", "±", "speedup", *extra, "OpenVINO, ms"]
        rows = [
            [
                r["model"],
                _ms(r, "tvm_ms"),
                _spread(r, "tvm_quartiles_ms", "tvm_ms"),
                _ms(r, "onnxruntime_ms"),
                _spread(r, "onnxruntime_quartiles_ms", "onnxruntime_ms"),
                f"**{r['speedup']:.2f}**",
                _ms(r, "onnxruntime_int8_ms") if int8 else f"{r['winograd_kernels']} of {r['kernels']}",
                _ms(r, "openvino_ms"),
                f"{r['compile_s']:.1f}",
                f"{r['greatest_relative_difference']:.0e}",
            ]
            for r in found
        ]
        lines += table([*head, "compiled in, s", "difference"], rows)
        famous = [r["speedup"] for r in found if r["model"] in FAMOUS]
        worst = min(found, key=lambda r: r["speedup"])
        summary = f"Worst: {worst['model']}, {worst['speedup']:.2f}."
        if famous:
            summary = (
                f"Geometric mean over {len(famous)} of {', '.join(FAMOUS)}: **{geometric_mean(famous):.3f}**. {summary}"
            )
        lines += ["", summary]
    return lines


def kernels(records: Sequence[Record]) -> list[str]:
    """Put single layers into one table for each number of threads."""
    lines = []
    for threads in dict.fromkeys(r["threads"] for r in records):
        found = [r for r in records if r["threads"] == threads]
        limits = found[0]["roofline"]
        lines += [
            "",
            f"### {threads} thread{'s' if threads > 1 else ''}",
            "",
            _LIMITS.format(**limits),
            "",
        ]
        head = ["layer", "precision", "ours, ms", "kernel alone, ms", "±", "ONNX Runtime float32, ms", "its int8, ms"]
        rows = [
            [
                r["kernel"],
                r["precision"],
                _ms(r, "tvm_ms"),
                _ms(r, "kernel_ms"),
                _spread(r, "kernel_quartiles_ms", "kernel_ms"),
                _ms(r, "onnxruntime_ms"),
                _ms(r, "onnxruntime_int8_ms") if r["precision"] == "int8" else "-",
                f"{r['speedup']:.2f}",
                f"{r['gflops']:.0f}",
                f"{r['share']:.2f} ({r['bound']})",
                f"{r['greatest_relative_difference']:.0e}",
            ]
            for r in found
        ]
        lines += table([*head, "speedup", "GFLOP/s", "of the roofline", "difference"], rows)
    return lines


def page(network_records: Sequence[Record], kernel_records: Sequence[Record]) -> str:
    """Write the page."""
    every = [*network_records, *kernel_records]
    machines = dict.fromkeys((r["machine"], r["cores"]) for r in every)
    versions = dict.fromkeys(tuple(r["versions"].items()) for r in every)
    openvino = dict.fromkeys(f"OpenVINO {r['openvino']}" for r in network_records if "openvino" in r)
    rounds = sorted({r["rounds"] for r in every})
    lines = [
        "# Performance",
        "",
        "Written by `python benchmarks/performance.py`, which measures what is below; do not edit it.",
        "",
        *(f"Machine: {machine}, {cores} cores." for machine, cores in machines),
        *(f"Versions: {', '.join(f'{name} {number}' for name, number in found)}." for found in versions),
        *(f"Beside them {name}." for name in openvino),
        "",
        _HOW.format(rounds=" or ".join(map(str, rounds))),
        "",
        "## Networks",
        "",
        _PRECISIONS,
        *networks(network_records),
    ]
    if kernel_records:
        lines += [
            "",
            "## Layers",
            "",
            _LAYERS,
            *kernels(kernel_records),
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is not given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/performance.md", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--networks", nargs="*", metavar="JSON", help="records of networks.py, instead of measuring")
    parser.add_argument("--kernels", nargs="*", metavar="JSON", help="records of kernels.py, instead of measuring")
    parser.add_argument("--rounds", default="20", help="samples of each program (default: %(default)s)")
    parser.add_argument(
        "--openvino", metavar="PYTHON", nargs="?", const=sys.executable, help="time OpenVINO too, as in networks.py"
    )
    arguments = parser.parse_args()
    beside = ["--openvino", arguments.openvino] if arguments.openvino else []
    if arguments.networks is None:
        options = ["--models", ",".join(NAMES), "--rounds", arguments.rounds, *beside]
        network_records = _measure("networks.py", *options, "--precision", "float32,float32 direct,int8")
        network_records += _measure("networks.py", *options, "--threads", "2")
    else:
        network_records = _read(arguments.networks)
    if arguments.kernels is None:
        kernel_records = _measure("kernels.py", "--rounds", arguments.rounds)
        kernel_records += _measure("kernels.py", "--rounds", arguments.rounds, "--threads", "2")
    else:
        kernel_records = _read(arguments.kernels)
    write_aside(arguments.out, page(network_records, kernel_records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
