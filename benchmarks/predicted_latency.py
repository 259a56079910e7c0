"""How far reality is from what a table promises: random plans are built and measured beside their predictions.

    python benchmarks/predicted_latency.py --models quick,resnet8 --plans 15 --rows latency.jsonl
    python benchmarks/predicted_latency.py --rows latency.jsonl --page docs/predicted-latency.md

Each plan is rewritten and compiled as an artefact is.  Plans are then timed in turn, each sample between two of the
exact network, in two passes: what the passes differ by is the noise that no prediction can be better than.  What a
sample shows is counted relative to the exact network beside it, and given in nanoseconds of the machine as it was when
the table was measured.  Weight and arena bytes of each artefact stand beside what the table says.

A row is written as soon as it is known; a run that was stopped goes on with the plans that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from random_plans import draw

import planner
from planner.artefact import Artefact
from planner.budget import Budget
from planner.calibration import Calibration
from planner.choices import applicable
from planner.compiler import compile_networks, host_target
from planner.devices import open_device
from planner.figures import figures
from planner.measure import ROUNDS
from planner.measuring.builds import Builds
from planner.measuring.costs import model_costs
from planner.measuring.quiet import Quiet, canary
from planner.measuring.store import Store
from planner.rewrite import apply
from planner.segments import Entry

MODELS = ("quick", "resnet8", "vggs", "vgg16q")
RUNS = 20
"""Runs of a network in each sample."""
QUIET_S = 60.0
"""How long samples are taken again that other work on the machine disturbed."""
Row = dict[str, Any]


def built(model: planner.Model, plan: Mapping[str, str], calibration: Calibration, *, refit: bool) -> Artefact:
    """Rewrite and compile one plan, by itself."""
    rewritten = apply(model.graph, plan, calibration, refit=refit)
    entry = Entry(name="plan", model=rewritten.model, nodes=rewritten.nodes)
    return Artefact(compile_networks([entry], host_target(1)).executable)


def timed(plans: Sequence[Artefact], exact: Artefact, image: Any, rounds: int) -> tuple[list[list[float]], list[float]]:
    """Time plans in turn; what each takes relative to the exact network beside it, and that network's nanoseconds."""
    ratios: list[list[float]] = [[] for _ in plans]
    controls = []
    quiet = Quiet(canary, patience_s=QUIET_S)
    end = time.perf_counter() + QUIET_S
    while min(map(len, ratios)) < rounds:
        for found, artefact in zip(ratios, plans, strict=True):
            before, taken, after = (
                float(np.median(a.latencies("plan", image, runs=RUNS))) for a in (exact, artefact, exact)
            )
            # Of a machine that never rests, what it shows must do.
            if not quiet.disturbed() or time.perf_counter() > end:
                found.append(taken / (0.5 * (before + after)))
                controls += [before, after]
            else:
                quiet.wait()
    return ratios, controls


def measured(name: str, arguments: argparse.Namespace, seen: set[tuple[str, int]]) -> Iterator[Row]:
    """Build and time the plans of one network that are not in the rows yet."""
    model = planner.load(planner.shipped(f"models/{name}.onnx"), data=planner.shipped("fashion_mnist.npz"))
    table = _table(model, arguments)
    costs = table.model(name)
    choices = {layer.name: [choice.name for choice in layer.choices] for layer in costs.layers}
    calibration = Calibration.of(model.graph, model.data())
    image = model.data().inputs("calibration")[:1]
    exact = built(model, dict.fromkeys(choices, "exact"), calibration, refit=False)
    wanted = [
        (number, plan)
        for number, plan in enumerate(draw(model.graph, choices, count=arguments.plans, seed=arguments.seed))
        if (name, number) not in seen
    ]
    for start in range(0, len(wanted), arguments.batch):
        batch = wanted[start : start + arguments.batch]
        artefacts = []
        for number, plan in batch:
            _say(f"{name} plan {number}: building")
            artefacts.append(built(model, plan, calibration, refit=arguments.refit))
        passes = []
        for _ in range(2):
            passes.append(timed(artefacts, exact, image, arguments.rounds))
            time.sleep(arguments.rest)
        for place, (number, plan) in enumerate(batch):
            promised = figures(table, {name: plan}, Budget())
            first, second = (float(np.median(ratios[place])) for ratios, _ in passes)
            trace = artefacts[place].trace("plan", image)
            yield {
                "model": name,
                "plan": number,
                "seed": arguments.seed,
                "choices": plan,
                "predicted_ns": costs.expected_latency_ns(plan),
                "promised_ns": promised.latency_ns[name],
                "measured_ns": 0.5 * (first + second) * costs.exact_latency_ns,
                "passes_ns": [first * costs.exact_latency_ns, second * costs.exact_latency_ns],
                "exact_ns": costs.exact_latency_ns,
                "exact_now_ns": float(np.median(passes[0][1] + passes[1][1])),
                "promised_weight_bytes": promised.weight_bytes[name],
                "weight_bytes": trace.weight_bytes,
                "promised_arena_bytes": promised.arena_bytes,
                "arena_bytes": trace.activation_bytes,
            }


def _table(model: planner.Model, arguments: argparse.Namespace) -> planner.CostTable:
    """Read a network's table, or measure its times and bytes; losses play no part here and are left at 0."""
    path = Path(arguments.tables) / f"{model.name}.json"
    if not path.exists():
        start = time.perf_counter()
        choices = applicable(model.graph)
        with Store(path.with_suffix(".store")) as store:
            builds = Builds(model, choices, Calibration.of(model.graph, model.data()), open_device("tvm"), store)
            builds.compile(_tell)
            memory = builds.memory(0, 0, _tell)
            builds.time(ROUNDS, _tell)
            costs, notes = model_costs(model, choices, builds, {}, memory)
        seconds = time.perf_counter() - start
        _say(f"{model.name}: measured into {path} in {seconds:.0f} s")
        planner.CostTable(models=(costs,), provenance={"seconds": seconds, **notes}, refit=False).write(path)
    return planner.CostTable.read(path)


def summary(rows: Sequence[Row]) -> list[Row]:
    """State for each network, and for all, how far predictions were off, and what the noise was."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["model"]].append(row)
    groups["all"] = list(rows)
    return [{"model": name, **_errors(found)} for name, found in groups.items()]


def _errors(rows: Sequence[Row]) -> Row:
    error = np.array([row["predicted_ns"] / row["measured_ns"] - 1 for row in rows])
    noise = np.array([row["passes_ns"][1] / row["passes_ns"][0] - 1 for row in rows])
    return {
        "plans": len(rows),
        "median_error": float(np.median(np.abs(error))),
        "p95_error": float(np.quantile(np.abs(error), 0.95)),
        "greatest_error": float(np.max(np.abs(error))),
        "bias": float(np.median(error)),
        "median_noise": float(np.median(np.abs(noise))),
        "p95_noise": float(np.quantile(np.abs(noise), 0.95)),
        "weights_exact": sum(row["promised_weight_bytes"] == row["weight_bytes"] for row in rows),
        "arenas_exact": sum(row["promised_arena_bytes"] == row["arena_bytes"] for row in rows),
    }


def table_of(rows: Sequence[Row]) -> str:
    """Set the summary as a table in Markdown."""
    lines = [
        "| network | plans | median error | 95 % within | greatest | bias | noise | noise, 95 % | weights | arenas |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for found in summary(rows):
        shares = [found[key] for key in ("median_error", "p95_error", "greatest_error")]
        noise = [found[key] for key in ("median_noise", "p95_noise")]
        cells = [
            found["model"],
            str(found["plans"]),
            *(f"{100 * value:.2f} %" for value in shares),
            f"{100 * found['bias']:+.2f} %",
            *(f"{100 * value:.2f} %" for value in noise),
            str(found["weights_exact"]),
            str(found["arenas_exact"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(rows: Sequence[Row], page: Path, command: str) -> None:
    """Write the page and its plot, which lies beside it as ``<page>.svg``."""
    plot = page.with_suffix(".svg")
    _plot(rows, plot)
    text = "\n".join(
        [
            "# Predicted and measured latency",
            "",
            "Choices are drawn at random for each layer, masks agreeing; in every third plan most layers stay exact.",
            "Each plan is built as an artefact is, and timed in turn with the exact network in two passes; *noise* is",
            "what the second pass differs by from the first; *bias* the median of signed errors.  The last columns",
            "count artefacts whose weights and arenas take what was promised, to the byte.  One thread.",
            "",
            table_of(rows),
            "",
            f"![Predicted against measured latency of {len(rows)} plans]({plot.name})",
            "",
            f"Made by `{command}`.",
            "",
        ]
    )
    page.write_text(text, encoding="utf-8")


def _plot(rows: Sequence[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6))
    for name in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == name]
        axes.scatter(
            [row["measured_ns"] / 1e3 for row in mine], [row["predicted_ns"] / 1e3 for row in mine], s=14, label=name
        )
    ends = np.array([min(r["measured_ns"] for r in rows) / 1.1e3, max(r["measured_ns"] for r in rows) / 0.9e3])
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.fill_between(ends, 0.92 * ends, 1.08 * ends, color="grey", alpha=0.2, linewidth=0, label="± 8 %")
    axes.set(xscale="log", yscale="log", xlabel="measured, µs", ylabel="predicted, µs")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _tell(what: str, done: int, of: int) -> None:
    if done == of:
        _say(f"{what}: {of}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print or write what all rows show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=[])
    parser.add_argument("--plans", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch", type=int, default=8, help="plans that are timed in turn")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds between the two passes")
    parser.add_argument(
        "--refit", action="store_true", help="refit as plans are; takes longer, and as much time to run"
    )
    parser.add_argument("--tables", default=tempfile.gettempdir(), help="folder with a table of each network")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args(arguments_given)
    os.environ["TVM_NUM_THREADS"] = "1"
    unknown = sorted(set(arguments.models) - set(MODELS))
    if unknown:
        parser.error(f"no network {unknown[0]!r}; expected some of {', '.join(MODELS)}")
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()] if arguments.rows.exists() else []
    seen = {(row["model"], row["plan"]) for row in rows if row["seed"] == arguments.seed}
    for name in arguments.models:
        for row in measured(name, arguments, seen):
            rows.append(row)
            with arguments.rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    if not rows:
        parser.error(f"{arguments.rows} has no rows; expected --models to measure")
    sys.stdout.write(table_of(rows) + "\n")
    if arguments.page:
        shown = " ".join(["python benchmarks/predicted_latency.py", *(arguments_given or sys.argv[1:])])
        write_page(rows, arguments.page, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
