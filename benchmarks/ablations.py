"""What each ingredient of the approximations is worth: the same choice everywhere, with it and without.

    make data && python benchmarks/ablations.py --models quick,vggs --ablations data,refit

Variants differ in one argument; each is put everywhere its choice is offered, as in catalogue.py, and judged on all
test images with images paired, both against the exact network and against the variant that is built otherwise.  What is
judged is the rewritten network's exact arithmetic: how weights are found is in question here, and not how they are run.

Rows are kept in ``FOLDER/ablations.json`` as those of catalogue.py are.  ``--page docs/catalogue.md`` writes tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from catalogue_page import between
from catalogue_rows import ROOT, state
from everywhere import SHIPPED, Subject, chosen, names, parts_of, subject
from numpy.typing import NDArray
from performance import table

from costmodels import write_aside
from planner.accuracy import Evaluator, compare
from planner.activations.ranges import METHODS
from planner.activations.tensor_grids import BEST
from planner.approximations.base import Context, Replacement
from planner.approximations.prune import Criterion
from planner.calibration import Calibration
from planner.choices import Choice, approximation
from planner.epilogue import Epilogue
from planner.linear import Moments
from planner.rewrite import EXACT, apply

Instead = Mapping[str, Callable[[Context, str], Replacement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to do what a choice says.

    Attributes:
        name: What the tables call it.
        refit: Whether the layers behind are refitted.
        instead: Other ways to apply single choices, by their names.
        method: How the grids of quantised tensors are placed.
        equalise: Whether channels are equalised first; None for where the validation images say so.
        criterion: By what the channels that go are chosen.
    """

    name: str
    refit: bool = True
    instead: Instead = dataclasses.field(default_factory=dict)
    method: str = BEST
    equalise: bool | None = None
    criterion: Criterion = "surgeon"

    def model(self, subject: Subject, choice: str) -> onnx.ModelProto:
        """Rewrite a network under a choice everywhere."""
        calibration = subject.calibration
        if self.method != BEST or self.equalise is not None:
            calibration = Calibration(
                subject.graph,
                calibration.images,
                validation=calibration.grids.validation,
                method=self.method,
                equalise=self.equalise or False,
            )
        return apply(
            subject.graph,
            chosen(subject, choice),
            calibration,
            refit=self.refit,
            instead=self.instead,
            criterion=self.criterion,
        ).model


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One question.

    Attributes:
        name: Its name on the command line.
        question: What is asked, for the tables.
        choices: The choices of a network that it is asked of.
        variants: The variants of a choice; the last is what the product does.
    """

    name: str
    question: str
    choices: Callable[[Subject], Sequence[str]]
    variants: Callable[[str], Sequence[Variant]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One variant of one choice in one network.

    Attributes:
        network: Name of the network.
        network_sha256: Of its file.
        state: Digest of the sources.
        ablation: Name of the ablation.
        choice: The choice.
        variant: Name of the variant.
        images: Test images.
        top1_change: Change of top-1 against the exact network, points.
        top1_change_std: Its standard error, images paired.
        loss: Increase of the mean cross-entropy against the exact network.
        behind: Change of top-1 against what the product does, points.
        behind_std: Its standard error, images paired.
    """

    network: str
    network_sha256: str
    state: str
    ablation: str
    choice: str
    variant: str
    images: int
    top1_change: float
    top1_change_std: float
    loss: float
    behind: float
    behind_std: float


def straight(context: Context) -> Context:
    """Show an approximation a layer that nothing follows: no activation cuts anything off."""
    return dataclasses.replace(context, epilogue=Epilogue())


def white(context: Context) -> Context:
    """Show an approximation inputs without a mean or correlations, and no activation: it knows nothing of the data."""
    linear = context.linear
    gram = np.broadcast_to(np.eye(linear.depth + 1), (linear.groups, linear.depth + 1, linear.depth + 1)).copy()
    count = 2 * len(context.present)
    moments = Moments(gram=gram, cross=None, rows=count, images=len(context.present))
    return dataclasses.replace(context, statistics=lambda: moments, epilogue=Epilogue())


def shown(choice: str, show: Callable[[Context], Context]) -> Instead:
    """Apply a choice's first part to a layer that is shown otherwise than it is."""
    part = parts_of(choice)[0]
    return {part: lambda context, name: approximation(part).apply(show(context), name)}


def uncorrected(choice: str) -> Instead:
    """Apply each part of a choice, and leave the biases as they were before it."""

    def one(part: str) -> Callable[[Context, str], Replacement]:
        def applied(context: Context, name: str) -> Replacement:
            new, before = approximation(part).apply(context, name), context.replacement
            arrays = dict(new.arrays)
            old = {node.output[0]: node for node in before.nodes if node.op_type in {"Conv", "Gemm"}}
            for node in new.nodes:
                same = old.get(node.output[0])
                if node.op_type in {"Conv", "Gemm"} and same is not None and len(node.input) > 2:
                    had = len(same.input) > 2 and same.input[2]
                    arrays[node.input[2]] = (
                        before.arrays[same.input[2]] if had else np.zeros_like(arrays[node.input[2]])
                    )
            return dataclasses.replace(new, arrays=arrays)

        return applied

    return {part: one(part) for part in parts_of(choice)}


def _offered(*wanted: str) -> Callable[[Subject], Sequence[str]]:
    return lambda subject: [choice for choice in wanted if choice in names(subject)]


def _lossy(subject: Subject) -> Sequence[str]:
    """List single choices that change values, masks included: compositions are made of them."""
    return [
        choice
        for choice in names(subject)
        if Choice.parse(choice.partition(",")[0]).changes_values and "+" not in choice
    ]


ABLATIONS = (
    Ablation(
        name="data",
        question="Low rank: most of the weights, of the outputs' variance on calibration images, or of what is left of "
        "them behind the activation",
        choices=_offered("lowrank@0.5", "spatial@0.5"),
        variants=lambda choice: (
            Variant(name="plain SVD", refit=False, instead=shown(choice, white)),
            Variant(name="whitened", refit=False, instead=shown(choice, straight)),
            Variant(name="whitened, behind the activation", refit=False),
            Variant(name="plain SVD, refit", instead=shown(choice, white)),
            Variant(name="whitened, refit", instead=shown(choice, straight)),
            Variant(name="whitened, behind the activation, refit"),
        ),
    ),
    Ablation(
        name="bias",
        question="Bias correction",
        choices=_offered("int8w", "int4w", "intw@3", "int8", "int4w+int8"),
        variants=lambda choice: (
            Variant(name="none", refit=False, instead=uncorrected(choice)),
            Variant(name="corrected", refit=False),
            Variant(name="none, refit", instead=uncorrected(choice)),
            Variant(name="corrected, refit"),
        ),
    ),
    Ablation(
        name="rounding",
        question="Error-compensated rounding by the second moments of the inputs, or each weight to the nearest",
        choices=_offered("int4w", "intw@3", "cluster@16", "cluster@8"),
        variants=lambda choice: (
            Variant(name="nearest", instead=shown(choice, white)),
            Variant(name="compensated"),
        ),
    ),
    Ablation(
        name="calibration",
        question="Where the grids of activations end: at the greatest value, at a percentile, where the squared error "
        "or the divergence is least, or by the method that keeps the logits best on validation images",
        choices=_offered("int8", "int8@u7"),
        variants=lambda _: (*(Variant(name=method, method=method) for method in METHODS), Variant(name="best of them")),
    ),
    Ablation(
        name="equalisation",
        question="Cross-layer equalisation: of no channels, of all that can be, or where it keeps the logits better",
        choices=_offered("int8", "int8@u7"),
        variants=lambda _: (
            Variant(name="none", equalise=False),
            Variant(name="all", equalise=True),
            Variant(name="where better"),
        ),
    ),
    Ablation(
        name="masks",
        question="Channels that go are those of the least weights, or those whose consumers can best make up for them",
        choices=lambda subject: [choice for choice in names(subject) if choice.startswith(f"{EXACT}:")],
        variants=lambda _: (
            Variant(name="norm", refit=False, criterion="norm"),
            Variant(name="surgeon", refit=False),
            Variant(name="norm, refit", criterion="norm"),
            Variant(name="surgeon, refit"),
        ),
    ),
    Ablation(
        name="refit",
        question="Refitting the layers behind to the exact network's outputs",
        choices=_lossy,
        variants=lambda _: (Variant(name="without", refit=False), Variant(name="refit")),
    ),
)


def measure(subject: Subject, ablation: Ablation, choice: str, judge: Evaluator, digest: str) -> Iterator[Finding]:
    """Judge all variants of a choice."""
    variants = ablation.variants(choice)
    logits = [judge.logits(variant.model(subject, choice)) for variant in variants]
    for variant, scores in zip(variants, logits, strict=True):
        cost, behind = compare(scores, judge.exact(), judge.labels), compare(scores, logits[-1], judge.labels)
        yield Finding(
            network=subject.name,
            network_sha256=subject.graph.source_digest,
            state=digest,
            ablation=ablation.name,
            choice=choice,
            variant=variant.name,
            images=len(judge.labels),
            top1_change=cost.top1_change,
            top1_change_std=cost.top1_change_std,
            loss=cost.loss_raw,
            behind=behind.top1_change,
            behind_std=behind.top1_change_std,
        )


def lines(findings: Sequence[Finding]) -> list[str]:
    """Write a table for each ablation: a row for each variant of each choice, a column for each network."""
    networks = list(dict.fromkeys(finding.network for finding in findings))
    found: list[str] = []
    for ablation in ABLATIONS:
        mine = {(f.choice, f.variant, f.network): f for f in findings if f.ablation == ablation.name}
        if not mine:
            continue
        rows = [
            [f"`{choice}`", variant, *(_cell(mine.get((choice, variant, network))) for network in networks)]
            for choice, variant in dict.fromkeys(key[:2] for key in mine)
        ]
        found += [
            f"**{ablation.question}** (`{ablation.name}`)",
            "",
            *table(["choice", "variant", *networks], rows),
            "",
        ]
    states = ", ".join(sorted({finding.state for finding in findings}))
    return [*found, f"Sources: {states}."]


def _cell(finding: Finding | None) -> str:
    return "-" if finding is None else f"{finding.top1_change:+.2f} ± {finding.top1_change_std:.2f}"


def _read(path: Path) -> list[Finding]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [Finding(**values) for values in found]


def run(arguments: argparse.Namespace, path: Path) -> list[Finding]:
    """Measure what is asked for and missing; return all findings."""
    findings, digest = _read(path), state()
    for network in arguments.models:
        on = subject(network, arguments.data)
        images: NDArray[np.float32] = on.images(arguments.images)
        judge = Evaluator(on.graph, images, on.data.test.labels[: len(images)])
        for ablation in ABLATIONS:
            if ablation.name not in arguments.ablations:
                continue
            for choice in ablation.choices(on):
                key = (on.graph.source_digest, ablation.name, choice)
                known = [f for f in findings if (f.network_sha256, f.ablation, f.choice) == key]
                fresh = known and known[0].images == len(images) and (arguments.keep or known[0].state == digest)
                if fresh or (arguments.choices and choice not in arguments.choices):
                    continue
                new = list(measure(on, ablation, choice, judge, digest))
                findings = [finding for finding in findings if finding not in known] + new
                path.parent.mkdir(parents=True, exist_ok=True)
                write_aside(path, json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1) + "\n")
                values = "; ".join(f"{f.variant} {_cell(f)}" for f in new)
                sys.stderr.write(f"{on.name} {ablation.name} {choice}: {values}\n")
                sys.stderr.flush()
    return findings


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and write the tables."""
    every = [ablation.name for ablation in ABLATIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def comma(text: str) -> list[str]:
        return text.split(",") if text else []

    parser.add_argument("--models", type=comma, default=list(SHIPPED), help=f"default: {','.join(SHIPPED)}")
    parser.add_argument("--ablations", type=comma, default=every, help=f"some of {','.join(every)}")
    parser.add_argument("--choices", type=comma, help="only these choices")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "full", help="folder with Fashion-MNIST")
    parser.add_argument("--images", type=int, help="only so many test images, to try something out")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "catalogue", help="of rows")
    parser.add_argument("--json", type=Path, help="where rows are kept (default: ablations.json in the folder)")
    parser.add_argument("--keep", action="store_true", help="keep rows that older sources made")
    parser.add_argument("--page", type=Path, help="write the tables of all rows between the marks of this file")
    arguments = parser.parse_args(given)
    unknown = sorted(set(arguments.ablations) - set(every))
    if unknown:
        parser.error(f"no ablation {unknown[0]!r}; expected some of {', '.join(every)}")
    findings = run(arguments, arguments.json or arguments.folder / "ablations.json")
    if arguments.page:
        text = between(arguments.page.read_text(encoding="utf-8"), "ablations", lines(findings))
        write_aside(arguments.page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
