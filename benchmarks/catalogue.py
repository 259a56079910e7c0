"""What each choice of the catalogue pays and costs where it is put into all layers that offer it at once.

    make data && python benchmarks/catalogue.py --models quick,vggs --choices int8,lowrank

Each choice is put everywhere, the layers behind it are refitted, and the network is built; what is measured is the
artefact: how long it takes beside the exact artefact in the same rounds, the bytes of its weights, and what its own
outputs on all test images lose, images paired.  Beside it stands ONNX Runtime's static int8 form of the network.

Rows are kept in ``FOLDER/rows.json``, so that a run that was stopped goes on where it was; they are measured anew where
a source of the planner has changed, unless ``--keep`` says otherwise.  ``--steps build`` leaves the timing, which wants
a machine that does nothing else, to a later ``--steps latency``.  ``--page docs/catalogue.md`` writes the tables.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from catalogue_page import write_tables
from catalogue_rows import ROOT, Row, Rows, Timing, state
from everywhere import SHIPPED, Subject, chosen, names, parts_of, subject
from layers import constant_bytes
from numpy.typing import NDArray
from quantised import quantise
from runners import OnnxRuntimeRunner, Runner, Task
from timing import in_turn, processor

import planner
from planner.accuracy import compare, hits
from planner.artefact import Artefact
from planner.choices import modules
from planner.compiler import compile_networks, export, host_target
from planner.errors import InputError
from planner.rewrite import EXACT, apply
from planner.segments import Entry

STEPS = ("build", "latency")
TOGETHER = 8
"""Programs that are timed in turn with the exact one: the machine changes little from one to the next."""
REFERENCES: Mapping[str, int] = {"onnxruntime float32": 0, "onnxruntime int8": 8, "onnxruntime int8, reduce_range": 7}
"""Outside references, and the bits of their weights; 0 for a network that is not quantised."""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Bench:
    """One network on the bench.

    Attributes:
        subject: The network.
        folder: Where its artefacts are kept.
        rows: Where its rows are kept.
        state: Digest of the sources.
    """

    def __init__(self, subject: Subject, folder: Path, rows: Rows, count: int | None) -> None:
        """Build the exact network and run it on the test images."""
        self.subject, self.rows, self.state = subject, rows, state()
        self.folder = folder / subject.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images = subject.images(count)
        self.labels = subject.data.test.labels[: len(self.images)]
        artefact, *_ = self._build(EXACT)
        self.exact_bytes = artefact.trace(subject.name, self.images[:1]).weight_bytes
        self.exact_logits = artefact.run(subject.name, self.images)

    def library(self, choice: str) -> Path:
        """Say where the artefact of a choice is kept."""
        return self.folder / f"{choice.replace('>', '_').replace(':', '_').replace('@', '-')}.so"

    def model(self, reference: str) -> Path:
        """Say where the network of an outside reference is kept."""
        return self.folder / f"{reference.replace(' ', '_').replace(',', '')}.onnx"

    def measure(self, choice: str) -> Row:
        """Build the network with one choice everywhere, and judge its outputs."""
        artefact, seconds, layers = self._build(choice)
        weights = artefact.trace(self.subject.name, self.images[:1]).weight_bytes
        return self._row(choice, artefact.run(self.subject.name, self.images), weights, layers, seconds)

    def refer(self, reference: str) -> Row:
        """Quantise the network by ONNX Runtime, and judge its outputs as ONNX Runtime gives them by default."""
        import onnxruntime

        begin = time.perf_counter()
        path, bits = self.model(reference), REFERENCES[reference]
        if bits:
            quantise(self.subject.graph.model, path, self.subject.calibration.images, bits=bits)
        else:
            onnx.save(self.subject.graph.model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        logits = np.concatenate([session.run(None, {name: image[None]})[0] for image in self.images])
        weights = constant_bytes(onnx.load(path))
        return self._row(reference, logits, weights, 0, time.perf_counter() - begin, reference=True)

    def _build(self, choice: str) -> tuple[Artefact, float, int]:
        """Rewrite, compile and link; give the artefact, the seconds, and how many layers took the choice."""
        subject, begin = self.subject, time.perf_counter()
        taken = chosen(subject, choice)
        rewritten = apply(subject.graph, taken, subject.calibration)
        entry = Entry(name=subject.name, model=rewritten.model, nodes=rewritten.nodes)
        export(compile_networks([entry], host_target(1)), self.library(choice))
        layers = sum(found != EXACT for found in taken.values()) if choice != EXACT else 0
        return Artefact.load(self.library(choice)), time.perf_counter() - begin, layers

    def _row(
        self,
        choice: str,
        logits: NDArray[np.float32],
        weights: int,
        layers: int,
        seconds: float,
        *,
        reference: bool = False,
    ) -> Row:
        cost = compare(logits, self.exact_logits, self.labels)
        return Row(
            network=self.subject.name,
            network_sha256=self.subject.graph.source_digest,
            choice=choice,
            state=self.state,
            layers=layers,
            weight_bytes=weights,
            exact_weight_bytes=self.exact_bytes,
            top1=100 * float(hits(logits, self.labels).mean()),
            exact_top1=100 * float(hits(self.exact_logits, self.labels).mean()),
            top1_change=cost.top1_change,
            top1_change_std=cost.top1_change_std,
            loss=cost.loss_raw,
            loss_std=cost.loss_std,
            images=len(self.labels),
            seconds=seconds,
            reference=reference,
        )

    def time(self, rows: Sequence[Row], rounds: int) -> list[Row]:
        """Time artefacts or references in turn with the exact artefact, called the same way."""
        image = self.images[:1]

        def sampler(row: Row) -> Callable[[int], float]:
            if row.reference:
                task = Task(runtime="onnxruntime", model=str(self.model(row.choice)), inputs="")
                return OnnxRuntimeRunner(task, image).sample
            return self._sampler(self.library(row.choice))

        references = rows[0].reference
        exact = self.library(EXACT)
        samplers = {EXACT: Called(exact, self.subject.name, image).sample if references else self._sampler(exact)}
        times = in_turn(samplers | {f"{row.choice}!": sampler(row) for row in rows}, rounds)
        beside = times[EXACT].samples_ms
        return [replace(row, timing=Timing.of(times[f"{row.choice}!"].samples_ms, beside, processor())) for row in rows]

    def _sampler(self, library: Path) -> Callable[[int], float]:
        artefact, image = Artefact.load(library), self.images[:1]
        return lambda runs: float(np.median(artefact.latencies(self.subject.name, image, runs=runs))) / 1e6


class Called(Runner):
    """An artefact that is called from Python, as ONNX Runtime is."""

    def __init__(self, library: Path, network: str, image: NDArray[np.float32]) -> None:
        """Load it."""
        import tvm
        from tvm import relax

        self._function = relax.VirtualMachine(tvm.runtime.load_module(str(library.resolve())), tvm.cpu())[network]
        self._input = tvm.runtime.tensor(np.ascontiguousarray(image))

    def once(self) -> None:
        """Run the image, and leave the result where it is."""
        self._function(self._input)


def build(bench: Bench, wanted: Sequence[str], *, keep: bool) -> list[str]:
    """Build and judge what has no row yet; return what was refused."""
    refused = []
    digest = bench.subject.graph.source_digest
    for done, choice in enumerate(wanted, start=1):
        known = bench.rows.find(digest, choice, None if keep else bench.state)
        where = bench.model(choice) if choice in REFERENCES else bench.library(choice)
        if known is not None and known.images == len(bench.images) and where.is_file():
            continue
        try:
            row = bench.refer(choice) if choice in REFERENCES else bench.measure(choice)
        except InputError as error:
            _say(f"REFUSED {bench.subject.name} {choice}: {error}")
            refused.append(f"{bench.subject.name} {choice}")
            continue
        bench.rows.put(row)
        _say(
            f"{row.network} {done}/{len(wanted)} {choice}: {row.layers} layers, {row.bytes_ratio:.3f} of the bytes, "
            f"{row.top1_change:+.2f} ± {row.top1_change_std:.2f} points, {row.seconds:.0f} s"
        )
    return refused


def time_all(bench: Bench, wanted: Sequence[str], rounds: int) -> None:
    """Time what has a row and no time yet."""
    rows = [bench.rows.find(bench.subject.graph.source_digest, choice, None) for choice in wanted]
    for reference in (False, True):
        missing = [row for row in rows if row is not None and row.timing is None and row.reference is reference]
        for first in range(0, len(missing), TOGETHER):
            for row in bench.time(missing[first : first + TOGETHER], rounds):
                bench.rows.put(row)
                if row.timing is not None:
                    low, high = row.timing.quartiles
                    _say(f"{row.network} {row.choice}: {row.timing.ratio:.3f} ({low:.3f} to {high:.3f}) of the time")


def select(subject: Subject, asked: Sequence[str] | None) -> list[str]:
    """List the choices and references asked for: whole names, or names of approximations for all of theirs.

    What no layer of this network is offered is left out.

    Raises:
        SystemExit: A name is of no choice at all.
    """
    every = [*names(subject), *REFERENCES]
    if asked is None:
        return every
    singles = {choice for module in modules().values() for choice in module.CHOICES}
    composed = {choice for offered in subject.offered.values() for choice in offered}
    unknown = [
        name
        for name in asked
        if name not in {*every, *modules(), "onnxruntime"} and not singles.issuperset(parts_of(name))
    ]
    if unknown:
        raise SystemExit(f"no choice {unknown[0]!r} of {subject.name}; expected some of {', '.join(every)}")

    def is_wanted(choice: str) -> bool:
        # A name ends at a comma on the command line; what stands behind it says more of the same choice.
        named = choice.partition(",")[0]
        return named in asked or named.partition("@")[0].partition(" ")[0] in asked

    chosen = [choice for choice in every if is_wanted(choice)]
    return [EXACT, *(c for c in dict.fromkeys([*chosen, *(c for c in asked if c in composed)]) if c != EXACT)]


def options() -> argparse.ArgumentParser:
    """Give the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    comma = str.split
    parser.add_argument(
        "--models",
        type=lambda text: comma(text, ","),
        default=list(SHIPPED),
        help=f"ONNX files, or any of {','.join(SHIPPED)} (default: all of them)",
    )
    parser.add_argument(
        "--choices", type=lambda text: comma(text, ","), help="choices, or approximations for all theirs (default: all)"
    )
    parser.add_argument(
        "--steps", type=lambda text: comma(text, ","), default=list(STEPS), help=f"of {','.join(STEPS)}"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "full", help="folder with Fashion-MNIST")
    parser.add_argument("--images", type=int, help="only so many test images, to try something out")
    parser.add_argument("--rounds", type=int, default=20, help="samples of each program")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "catalogue", help="of artefacts and rows")
    parser.add_argument("--json", type=Path, help="where rows are kept (default: rows.json in the folder)")
    parser.add_argument("--keep", action="store_true", help="keep rows that older sources made")
    parser.add_argument("--page", type=Path, help="write the tables of all rows between the marks of this file")
    return parser


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Measure what is asked for and missing, and write the tables."""
    parser = options()
    arguments = parser.parse_args(arguments_given)
    unknown = sorted(set(arguments.steps) - set(STEPS) - {""})
    if unknown:
        parser.error(f"no step {unknown[0]!r}; expected some of {', '.join(STEPS)}")
    os.environ["TVM_NUM_THREADS"] = "1"
    rows, refused = Rows(arguments.json or arguments.folder / "rows.json"), []
    for network in arguments.models if any(arguments.steps) else ():
        bench = Bench(subject(network, arguments.data), arguments.folder, rows, arguments.images)
        wanted = select(bench.subject, arguments.choices)
        if "build" in arguments.steps:
            refused += build(bench, wanted, keep=arguments.keep)
        if "latency" in arguments.steps:
            time_all(bench, wanted, arguments.rounds)
    if arguments.page:
        graphs = [planner.load(planner.shipped(f"models/{name}.onnx")).graph for name in SHIPPED]
        write_tables(arguments.page, list(rows), graphs)
    if refused:
        _say(f"refused: {', '.join(refused)}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
