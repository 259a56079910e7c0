"""How far reality is from the accuracy that plans are predicted to keep: random plans, judged on the whole test set.

    python benchmarks/predicted_accuracy.py --models quick,resnet8 --plans 15 --store losses.store --rows accuracy.jsonl
    python benchmarks/predicted_accuracy.py --rows accuracy.jsonl --page docs/predicted-accuracy.md

Predictions come from single choices, measured on validation images (`planner.measuring.losses`), in five ways for
top-1 and three for the loss; what plans promise is named first:

- ``expected``: the sum of what each choice alone is expected to cost, the exact network saying how likely the old and
  the new answer are right; ``with Q``: and what choices do together (`costmodels.interactions`), at the network's slope
  of top-1 to loss; ``counted``: the sum of what labels say of each alone.
- ``summed``, ``summed, counted``: the changes of the class scores of all choices are added to the exact network's on
  each validation image, and the answers compared, likewise with the exact network's likelihoods or with labels.

Plans are drawn so that what they are predicted to lose spreads evenly over 0 to 3 points: each is drawn until its
``expected`` lies in the next of as many equal parts as there are plans.  A plan keeps all its layers exact, or all that
are offered it int8, but for a random share of them, which take random choices; half of the plans remove channels of one
class or two.  The test set is looked at for the measured column only.

A row is written as soon as it is known; a run that was stopped goes on with the plans that are missing.
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

import planner
from costmodels import Interactions
from planner.accuracy import Evaluator, compare
from planner.calibration import Calibration
from planner.choices import EXACT, Choice, applicable
from planner.masks.choices import with_masks
from planner.masks.classes import masks_of
from planner.masks.costs import is_masked
from planner.measuring.losses import Losses, choice_losses
from planner.measuring.store import Store
from planner.predicting import entries_of
from planner.rewrite import apply

MODELS = ("quick", "resnet8", "vggs", "vgg16q")
MOST = 3.0
"""Points that plans may lose."""
SHARES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Of the layers, those that take a random choice."""
PATIENCE = 4000
TOP1 = ("expected", "with Q", "counted", "summed", "summed, counted")
LOSS = ("with Q", "additive", "summed")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Oracle:
    """Predicts what plans lose, in several ways, from what single choices lose."""

    losses: Losses
    interactions: Interactions
    likely: Any

    def expected(self, plan: Mapping[str, str]) -> float:
        """Return the change of top-1 that plans promise, points."""
        return self.interactions.together(self.entries(plan)).top1_change

    def entries(self, plan: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the single measurements that a plan is made of."""
        known = self.losses.costs
        return [entry for layer, choice in plan.items() for entry in entries_of(layer, choice) if entry in known]

    def all(self, plan: Mapping[str, str]) -> Row:
        """Return every prediction."""
        entries, found = self.entries(plan), self.losses
        together = self.interactions.together(entries)
        changes = [found.changes[entry].astype(np.float32) for entry in entries]
        seen = min((len(change) for change in changes), default=len(found.exact))  # fewer where one was hopeless
        exact, labels = found.exact[:seen], found.labels[:seen]
        added = compare(
            exact + sum((change[:seen] for change in changes), np.zeros_like(exact)),
            exact,
            labels,
            likely=self.likely[:seen],
        )
        return {
            "top1": {
                "expected": together.top1_change,
                "with Q": together.top1_change + self.interactions.slope * together.added,
                "counted": sum(found.costs[entry].top1_change for entry in entries),
                "summed": added.top1_expected,
                "summed, counted": added.top1_change,
            },
            "top1_std": together.top1_std,
            "loss": {"with Q": together.loss, "additive": together.loss - together.added, "summed": added.loss_raw},
            "loss_std": together.loss_std,
        }


def drawn(
    model: planner.Model, choices: Mapping[str, Sequence[str]], oracle: Oracle, *, count: int, seed: int
) -> Iterator[dict[str, str]]:
    """Draw plans that are expected to lose from nothing to 3 points; the same for the same seed and count."""
    for number in range(count):
        random = np.random.default_rng([seed, number])
        low, high = MOST * number / count, MOST * (number + 1) / count
        best: tuple[float, dict[str, str]] | None = None
        for _ in range(PATIENCE):
            plan = _draw(model, choices, random)
            loses = -oracle.expected(plan)
            miss = max(low - loses, loses - high, 0.0)
            if best is None or miss < best[0]:
                best = miss, plan
            if miss == 0.0 and oracle.entries(plan):
                break
        if best is not None:
            yield best[1]


def _draw(model: planner.Model, choices: Mapping[str, Sequence[str]], random: np.random.Generator) -> dict[str, str]:
    """Draw one plan."""
    graph = model.graph
    classes = [found.name for found in masks_of(graph).prunable]
    levels = sorted({Choice.parse(name).writes for names in choices.values() for name in names} - {""})
    shares = {}
    if classes and levels and random.random() < 0.5:
        some = random.permutation(classes)[: int(random.integers(1, 2, endpoint=True))]
        shares = {str(name): str(random.choice(levels)) for name in some}
    masked = with_masks(graph, shares)
    base, share = str(random.choice([EXACT, "int8"])), float(random.choice(SHARES))
    plan = {}
    for layer, names in choices.items():
        sides = masked[layer].partition(":")[1:]
        plain = [Choice.parse(name) for name in names if not is_masked(name)]
        fitting = [name for name in (f"{choice}{''.join(sides)}" for choice in plain) if name in names]
        usual = [name for name in fitting if name.partition(":")[0] == base]
        plan[layer] = str(random.choice(fitting)) if random.random() < share or not usual else usual[0]
    return plan


def rows(name: str, arguments: argparse.Namespace, known: Sequence[Row]) -> Iterator[Row]:
    """Measure the plans of one network that are missing."""
    model = planner.load(Path(arguments.networks) / f"{name}.onnx", data=arguments.data)
    data, choices = model.data(), applicable(model.graph, arguments.approximations)
    with Store(arguments.store) as store:
        losses = choice_losses(model, choices, store, refit=True, tell=_tell)
    oracle = Oracle(losses=losses, interactions=losses.interactions(), likely=_likely(losses))
    plans = list(drawn(model, choices, oracle, count=arguments.plans, seed=arguments.seed))
    calibration = Calibration.of(model.graph, data)
    judge = Evaluator(model.graph, data.inputs("test"), data.test.labels)
    done = {json.dumps(row["choices"], sort_keys=True) for row in known if row["model"] == name}
    for number, plan in enumerate(plans):
        if json.dumps(plan, sort_keys=True) in done:
            continue
        measured = judge.cost(apply(model.graph, plan, calibration).model)
        yield {
            "model": name,
            "number": number,
            "seed": arguments.seed,
            "approximations": arguments.approximations,
            "choices": plan,
            "images": measured.images,
            "top1_change": measured.top1_change,
            "top1_change_std": measured.top1_change_std,
            "loss": measured.loss_raw,
            "loss_std": measured.loss_std,
            "predicted": oracle.all(plan),
        }


def _likely(losses: Losses) -> Any:
    from planner.judging import calibrated

    return calibrated(losses.exact, losses.labels)


def _tell(what: str, done: int, whole: int) -> None:
    if done % 20 == 0 or done == whole:
        print(f"{what} {done}/{whole}", file=sys.stderr, flush=True)


def summary(found: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Sum up each network's plans that lose up to 3 points, and all of them."""
    kept = [row for row in found if row["top1_change"] >= -MOST]
    named = {name: [row for row in kept if row["model"] == name] for name in dict.fromkeys(r["model"] for r in kept)}
    return {name: _errors(some) for name, some in {**named, "all": kept}.items() if some}


def _errors(found: Sequence[Row]) -> dict[str, Any]:
    out: dict[str, Any] = {"plans": len(found), "noise": _median(row["top1_change_std"] for row in found)}
    for what, ways, measured in (("top1", TOP1, "top1_change"), ("loss", LOSS, "loss")):
        for way in ways:
            errors = np.array([row["predicted"][what][way] - row[measured] for row in found])
            out[f"{what} {way}"] = {
                "median": float(np.median(np.abs(errors))),
                "p95": float(np.quantile(np.abs(errors), 0.95)),
                "bias": float(errors.mean()),
            }
    pulls = [
        abs(row["predicted"]["top1"]["expected"] - row["top1_change"])
        / np.hypot(row["predicted"]["top1_std"], row["top1_change_std"])
        for row in found
    ]
    out["within_two"] = float(np.mean(np.array(pulls) <= 2))
    return out


def _median(values: Iterator[float]) -> float:
    return float(np.median(list(values)))


def tables(found: Sequence[Row]) -> str:
    """Set the summary as tables in Markdown: median of absolute errors, and what 95 % of plans stay within."""
    sums = summary(found)
    lines = []
    for what, ways, form in (("top1", TOP1, "{:.2f}"), ("loss", LOSS, "{:.4f}")):
        unit = "points of top-1" if what == "top1" else "loss, nats"
        lines += [f"Errors of the predicted {unit}: median, and 95 % of plans within.", ""]
        lines.append(f"| network | plans | {' | '.join(ways)} | {'error of the test set' if what == 'top1' else ''} |")
        lines.append(f"|---|--:|{'--:|' * len(ways)}--:|")
        for name, errors in sums.items():
            cells = [
                f"{form.format(errors[f'{what} {way}']['median'])}, {form.format(errors[f'{what} {way}']['p95'])}"
                for way in ways
            ]
            last = f"{errors['noise']:.2f}" if what == "top1" else ""
            lines.append(f"| {name} | {errors['plans']} | {' | '.join(cells)} | {last} |")
        lines.append("")
    whole = sums["all"]
    lines.append(
        f"{100 * whole['within_two']:.0f} % of the measured changes lie within twice the stated error of what plans "
        f"promise ({TOP1[0]}), the test set's own error counted in; on the mean the promise is "
        f"{whole[f'top1 {TOP1[0]}']['bias']:+.2f} points off."
    )
    return "\n".join(lines)


def page(found: Sequence[Row], path: Path, command: str) -> None:
    """Write tables and the picture of all plans."""
    picture = path.with_suffix(".svg")
    _scatter(found, picture)
    outside = sum(row["top1_change"] < -MOST for row in found)
    text = (
        "# Predicted and measured accuracy\n\n"
        f"{len(found)} random plans, measured on {found[0]['images']:,} test images; {outside} of them lose more than "
        f"{MOST:g} points and are left out of the tables.  How plans are drawn and what the columns mean stands at the "
        "head of `benchmarks/predicted_accuracy.py`.\n\n"
        f"{tables(found)}\n\n![Predicted and measured change of top-1]({picture.name})\n\n    {command}\n"
    )
    path.write_text(text, encoding="utf-8")


def _scatter(found: Sequence[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "predicted accuracy"
    figure, axes = plt.subplots(figsize=(5.5, 5.5))
    for name in dict.fromkeys(row["model"] for row in found):
        some = [row for row in found if row["model"] == name]
        axes.errorbar(
            [row["predicted"]["top1"]["expected"] for row in some],
            [row["top1_change"] for row in some],
            xerr=[row["predicted"]["top1_std"] for row in some],
            yerr=[row["top1_change_std"] for row in some],
            fmt="o",
            ms=4,
            lw=0.7,
            label=name,
        )
    ends = [min(-MOST, *axes.get_xlim(), *axes.get_ylim()), 0.3]
    axes.plot(ends, ends, color="#888888", lw=0.8)
    axes.set_xlabel("predicted change of top-1, points")
    axes.set_ylabel("measured change of top-1, points")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--networks", default="data/models", help="folder of the ONNX files")
    parser.add_argument(
        "--data", default="data/full/fashion-mnist", help="labelled images; all of the test set is used"
    )
    parser.add_argument("--plans", type=int, default=15)
    parser.add_argument("--approximations", default="default", help="what plans are drawn from, names with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, help="keeps the losses of single choices")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="write this page from the rows, and measure nothing")
    arguments = parser.parse_args(argv)
    lines = arguments.rows.read_text(encoding="utf-8").splitlines() if arguments.rows.exists() else []
    found = [json.loads(line) for line in lines]
    if arguments.page is not None:
        models = ",".join(dict.fromkeys(row["model"] for row in found))
        command = f"python benchmarks/predicted_accuracy.py --models {models} --plans {arguments.plans} --rows ROWS"
        page(found, arguments.page, command)
        return 0
    with arguments.rows.open("a", encoding="utf-8") as stream:
        for name in arguments.models.split(","):
            for row in rows(name, arguments, found):
                found.append(row)
                stream.write(json.dumps(row) + "\n")
                stream.flush()
    print(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
