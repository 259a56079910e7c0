"""Whether two measurements of the same networks agree, and whether plans made from either are as good by the other.

    python benchmarks/repeatability.py measure first.json --models quick resnet8
    python benchmarks/repeatability.py measure later.json --models quick resnet8          # an hour later
    python benchmarks/repeatability.py measure loaded.json --models quick resnet8 --load  # beside another process
    python benchmarks/repeatability.py compare first.json later.json loaded.json --page docs/repeatability.md

Each measurement starts from an empty store.  Two latencies agree where they differ by at most twice the root of the sum
of their squared spreads as the tables state them.  Plans are made from each table under bounds that are shares of its
own exact build, and judged by the other: once by their loss, once by the latency of the fastest plan within a loss.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import planner
from costmodels import CostTable
from planner.figures import figures

WITHIN = 2.0
LATENCIES = (0.35, 0.4, 0.5, 0.6, 0.8)
LOSSES = (0.005, 0.01, 0.02, 0.05)
_LOAD = "import numpy as np\na = np.ones((600, 600))\nwhile True:\n    a @ a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """State how far two tables agree.

    Attributes:
        tables: Names of the two.
        costs: Latencies compared: one for each choice of each layer that is in both.
        within: Share of them that agree within the stated spreads.
        median: Median relative difference.
        greatest: Greatest relative difference.
        bytes_equal: Whether all bytes are the same.
        losses_equal: Whether all losses are the same.
        loss_regret: For each plan, by which share its loss exceeds that of the plan made from the judging table.
        latency_regret: The same of the latency of the fastest plan within a loss.
    """

    tables: tuple[str, str]
    costs: int
    within: float
    median: float
    greatest: float
    bytes_equal: bool
    losses_equal: bool
    loss_regret: tuple[float, ...]
    latency_regret: tuple[float, ...]

    def row(self) -> str:
        """Write a line of the table."""
        regrets = [f"{100 * max(values):.2f} %" for values in (self.loss_regret, self.latency_regret)]
        return (
            f"| {' / '.join(self.tables)} | {self.costs} | {100 * self.within:.1f} % | {100 * self.median:.2f} % "
            f"| {100 * self.greatest:.1f} % | {'yes' if self.bytes_equal else 'NO'} "
            f"| {'yes' if self.losses_equal else 'NO'} | {regrets[0]} | {regrets[1]} |"
        )


def compare(one: CostTable, other: CostTable, names: tuple[str, str]) -> Agreement:
    """Compare two tables of the same networks."""
    differences, agreed, same_bytes, same_losses = [], [], True, True
    for model in one.models:
        twin = other.model(model.name)
        for where, choice in ((layer.name, choice) for layer in model.layers for choice in layer.choices):
            again = twin.layer(where).choice(choice.name)
            apart = abs(model.scaled_ns(choice) - twin.scaled_ns(again))
            spread = np.hypot(model.scale * (choice.latency_std_ns or 0.0), twin.scale * (again.latency_std_ns or 0.0))
            agreed.append(apart <= WITHIN * spread)
            differences.append(apart / max(model.scaled_ns(choice), 1))
            same_bytes &= (choice.weight_bytes, choice.activation_bytes) == (again.weight_bytes, again.activation_bytes)
            same_losses &= choice.loss == again.loss
    regrets = [_regrets(a, b) for a, b in ((one, other), (other, one))]
    return Agreement(
        tables=names,
        costs=len(agreed),
        within=float(np.mean(agreed)),
        median=float(np.median(differences)),
        greatest=float(np.max(differences)),
        bytes_equal=same_bytes,
        losses_equal=same_losses,
        loss_regret=tuple(regret for found, _ in regrets for regret in found),
        latency_regret=tuple(regret for _, found in regrets for regret in found),
    )


def _regrets(source: CostTable, judge: CostTable) -> tuple[list[float], list[float]]:
    """Plan from one table, and say by how much the plans are worse than the judge's own by what the judge holds."""
    losses, latencies = [], []
    for model in source.models:
        alone = [planner.CostTable(models=(t.model(model.name),), refit=t.refit) for t in (source, judge)]
        exact = [table.models[0].exact_latency_ns or 0 for table in alone]
        for share in LATENCIES:
            budgets = [planner.Budget(latency_ms=round(share * ns / 1e6, 6)) for ns in exact]
            made, own = (_plan(table, budget, "loss") for table, budget in zip(alone, budgets, strict=True))
            if made is not None and own is not None and own.loss > 0:
                losses.append(float(figures(alone[1], made.choices, budgets[1]).loss) / own.loss - 1)
        for loss in LOSSES:
            budget = planner.Budget(loss=loss)
            made, own = (_plan(table, budget, "latency") for table in alone)
            if made is not None and own is not None:
                judged = figures(alone[1], made.choices, budget).latency_ns[model.name]
                latencies.append(judged / own.latency_ns[model.name] - 1)
    return losses, latencies


def _plan(table: CostTable, budget: planner.Budget, objective: str) -> planner.Plan | None:
    try:
        return planner.plan(table, budget, objective=objective, explains=False)  # type: ignore[arg-type]
    except planner.InfeasibleError:
        return None


def _measure(path: Path, names: Sequence[str]) -> None:
    data = planner.shipped("fashion_mnist.npz")
    models = [planner.load(planner.shipped(f"models/{name}.onnx"), data=data) for name in names]
    started = time.perf_counter()
    table = planner.measure(models, jobs=os.cpu_count() or 1)
    table.write(path)
    sys.stdout.write(f"{path}: {', '.join(names)} in {time.perf_counter() - started:.0f} s\n")


@contextlib.contextmanager
def _loaded(wanted: bool) -> Iterator[None]:
    """Keep one core busy with something else for as long as this lasts."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", _LOAD], env={"OPENBLAS_NUM_THREADS": "1"}) as other:  # noqa: S603
        try:
            yield
        finally:
            other.kill()


def main() -> int:
    """Measure, or compare what was measured; the status is 1 where the tables do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("table", type=Path)
    measuring.add_argument("--models", nargs="+", default=["quick"])
    measuring.add_argument("--load", action="store_true", help="keep one core busy with another process meanwhile")
    comparing = commands.add_parser("compare")
    comparing.add_argument("tables", nargs="+", type=Path)
    comparing.add_argument("--page", type=Path, help="write the result as markdown")
    comparing.add_argument("--json", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        with _loaded(arguments.load):
            _measure(arguments.table, arguments.models)
        return 0
    tables = {path.stem: CostTable.read(path) for path in arguments.tables}
    found = [compare(tables[a], tables[b], (a, b)) for a, b in itertools.combinations(tables, 2)]
    text = "\n".join(
        [
            (
                "| tables | latencies | within the stated spread | median difference | greatest | bytes equal "
                "| losses equal | plans: loss over the judge's own | latency over the judge's own |"
            ),
            "|---|---|---|---|---|---|---|---|---|",
            *(agreement.row() for agreement in found),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.page:
        measured = {name: table.provenance.get("measured", "") for name, table in tables.items()}
        stated = "\n".join(f"- {name}: measured {when}" for name, when in measured.items())
        arguments.page.write_text(f"# Measured twice\n\n{__doc__}\n{stated}\n\n{text}\n", encoding="utf-8")
    if arguments.json:
        values = [{field: getattr(agreement, field) for field in Agreement.__slots__} for agreement in found]
        arguments.json.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return 0 if all(a.within >= 0.95 and a.bytes_equal for a in found) else 1


if __name__ == "__main__":
    sys.exit(main())
