"""Networks whose weights take 15 % and 10 % of their float32 bytes: how each layer is stored, and what that loses.

    make data && python benchmarks/storage.py --models quick,resnet8,vggs --shares 0.15,0.1 --json storage.json

Each layer takes one of the forms of storage of the catalogue.  What a form takes is counted in artefacts that have it
wherever it is offered; what it loses in one layer alone, everything behind it refitted, is how far the answers on
the calibration and validation images are from the exact network's (Kullback-Leibler divergence, nats; no labels).  Of
all mixtures whose bytes keep the bound, that of the least sum is built, and all test images are run by the artefact.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from everywhere import SHIPPED, Subject, everywhere, subject
from numpy.typing import NDArray
from performance import table

from planner.accuracy import Evaluator, compare
from planner.artefact import Artefact
from planner.choices import modules
from planner.compiler import compile_networks, host_target
from planner.devices import open_device
from planner.errors import InputError
from planner.rewrite import EXACT, Rewritten, applicable, apply
from planner.segments import Entry

KIND = "storage"
"""What approximations are called that only change how weights are stored."""
SHARES = (0.15, 0.1)
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One form of one layer's weights.

    Attributes:
        choice: Its name.
        weight_bytes: What the layer's constants take in an artefact.
        divergence: How far answers are from exact ones where this layer alone is stored so, nats.
    """

    choice: str
    weight_bytes: int
    divergence: float


def divergence(logits: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Return the mean Kullback-Leibler divergence of answers from the exact network's, nats.

    >>> divergence(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))
    0.0
    """

    def logarithms(scores: NDArray[np.float32]) -> NDArray[np.float64]:
        shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
        found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return found

    right, found = logarithms(exact), logarithms(logits)
    return float((np.exp(right) * (right - found)).sum(axis=1).mean())


def forms_of(network: Subject) -> dict[str, list[Stored]]:
    """Measure what each form takes and loses in each layer."""
    offered = applicable(network.graph, [name for name, module in modules().items() if module.KIND == KIND])
    names = list(dict.fromkeys(choice for choices in offered.values() for choice in choices))
    device = open_device("tvm", threads=1)
    taken = {}
    for name in names:
        found = apply(network.graph, everywhere(offered, name), network.calibration, refit=False)
        taken[name] = device.program(_entry(network, found)).footprint.weight_bytes
    data = network.data
    images = np.concatenate([data.inputs("calibration"), data.inputs("validation")])
    labels = np.concatenate([data.calibration.labels, data.validation.labels])
    judge = Evaluator(network.graph, images, labels)
    measured = {}
    for layer, choices in offered.items():
        measured[layer] = [Stored(choice=EXACT, weight_bytes=taken[EXACT][layer], divergence=0.0)]
        for choice in choices[1:]:
            found = apply(network.graph, {layer: choice}, network.calibration)
            lost = divergence(judge.logits(found.model), judge.exact())
            measured[layer].append(Stored(choice=choice, weight_bytes=taken[choice][layer], divergence=lost))
            tell(f"{network.name} {layer} {choice}: {taken[choice][layer]} bytes, {lost:.6f} nats")
    return measured


def mixture(measured: Mapping[str, Sequence[Stored]], bound_bytes: int) -> dict[str, str]:
    """Choose a form for each layer: of those that keep a bound of bytes, the one of the least sum of divergences.

    Args:
        measured: What there is for each layer.
        bound_bytes: What all layers may take.

    Returns:
        A choice for each layer.

    Raises:
        InputError: Even the smallest forms take more.

    >>> small, large = (Stored(choice=c, weight_bytes=b, divergence=d) for c, b, d in (("s", 2, 0.3), ("l", 8, 0.1)))
    >>> mixture({"one": [small, large], "two": [small, large]}, 10)
    {'one': 's', 'two': 'l'}
    """
    front: list[tuple[int, float, tuple[str, ...]]] = [(0, 0.0, ())]
    for forms in measured.values():
        sums = [
            (taken + form.weight_bytes, lost + form.divergence, (*chosen, form.choice))
            for taken, lost, chosen in front
            for form in forms
            if taken + form.weight_bytes <= bound_bytes
        ]
        front = list(_undominated(sums))
    if not front:
        least = sum(min(form.weight_bytes for form in forms) for forms in measured.values())
        raise InputError(f"a bound of {bound_bytes} bytes; the smallest forms take {least}")
    chosen = min(front, key=lambda point: point[1])[2]
    return dict(zip(measured, chosen, strict=True))


def _undominated(
    points: Sequence[tuple[int, float, tuple[str, ...]]],
) -> Iterator[tuple[int, float, tuple[str, ...]]]:
    """Give the points that no other one beats in bytes and in divergence."""
    least = np.inf
    for point in sorted(points, key=lambda point: point[:2]):
        if point[1] < least:
            least = point[1]
            yield point


def _entry(network: Subject, found: Rewritten) -> Entry:
    return Entry(name=network.name, model=found.model, nodes=found.nodes)


def record(network: Subject, measured: Mapping[str, Sequence[Stored]], share: float) -> dict[str, Any]:
    """Build the best mixture within a share of the float32 bytes, and measure the artefact."""
    reference = network.graph.parameter_bytes
    chosen = mixture(measured, int(share * reference))
    found = apply(network.graph, chosen, network.calibration)
    artefact = Artefact(compile_networks([_entry(network, found)], host_target()).executable)
    images, labels = network.images(), network.data.test.labels
    exact = Evaluator(network.graph, images, labels).exact()
    logits = artefact.run(network.name, images)
    cost = compare(logits, exact, labels)
    taken = artefact.trace(network.name, images[:1]).weight_bytes
    predicted = sum(
        form.weight_bytes for layer, forms in measured.items() for form in forms if form.choice == chosen[layer]
    )
    return {
        "model": network.name,
        "share": share,
        "float32_bytes": reference,
        "bound_bytes": int(share * reference),
        "predicted_bytes": predicted,
        "artefact_bytes": taken,
        "counted_bytes": sum(found.parameter_bytes.values()),
        "test_images": len(labels),
        "exact_top1": float(100 * (exact.argmax(axis=1) == labels).mean()),
        "top1": float(100 * (logits.argmax(axis=1) == labels).mean()),
        "loss_points": -cost.top1_change,
        "loss_points_std": cost.top1_change_std,
        "cross_entropy_increase": cost.loss_raw,
        "divergence": divergence(logits, exact),
        "choices": chosen,
    }


def lines(records: Sequence[Mapping[str, Any]]) -> str:
    """Write records as a table."""
    rows = [
        [
            r["model"],
            f"{100 * r['share']:.0f} %",
            f"{r['artefact_bytes']:,}",
            f"{100 * r['artefact_bytes'] / r['float32_bytes']:.2f} %",
            f"{r['exact_top1']:.2f} %",
            f"{r['top1']:.2f} %",
            f"{r['loss_points']:.2f} ± {r['loss_points_std']:.2f}",
        ]
        for r in records
    ]
    return "\n".join(table(["network", "bound", "bytes", "share", "exact", "stored", "points lost"], rows))


def tell(line: str) -> None:
    """Say how far the work is."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Networks stored in a share of their bytes.")
    parser.add_argument("--models", default=",".join(SHIPPED), help="shipped networks or ONNX files")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="shares of the float32 bytes")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "full", help="folder of the whole data set")
    parser.add_argument("--json", type=Path, help="where to write the records")
    options = parser.parse_args(arguments)
    records = []
    for name in options.models.split(","):
        network = subject(name, options.data)
        measured = forms_of(network)
        for share in map(float, options.shares.split(",")):
            records.append(record(network, measured, share))
            tell(lines(records[-1:]))
    print(lines(records))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
