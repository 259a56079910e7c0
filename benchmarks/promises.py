"""Whether plans keep their bounds once built: each shipped network alone, then all three under one memory bound.

    make data && python benchmarks/promises.py --out promises/

Networks are measured, planned at 0.6 of the exact build's latency and 0.5 of its memory, built, and verified on the
full test set of 10,000 images.  Writes ``promises.md`` and the cost tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import planner
from planner.compare import relative_budget

NAMES = ("quick", "resnet8", "vggs")


def main() -> int:
    """Measure, plan, build, verify; the status is 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="promises", help="folder of the results")
    parser.add_argument("--data", default="data/full", help="Fashion-MNIST with its full test set")
    parser.add_argument("--latency", type=float, default=0.6)
    parser.add_argument("--memory", type=float, default=0.5)
    arguments = parser.parse_args()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    sample = planner.shipped("fashion_mnist.npz")
    models = {name: planner.load(planner.shipped(f"models/{name}.onnx"), data=sample) for name in NAMES}
    whole = planner.measure(list(models.values()), store=out / "three.store")
    whole.write(out / "three.json")
    rows = [
        "| network | p50 us: bound, predicted, measured | of exact | memory KiB: the same | top-1 points | kept |",
        "|---|---|---|---|---|---|",
    ]
    ok = True
    for names in (*((name,) for name in NAMES), NAMES):
        table = dataclasses.replace(
            whole,
            models=tuple(whole.model(name) for name in names),
            provenance={
                **whole.provenance,
                "models": {name: whole.provenance["models"][name] for name in names},
            },
        )
        table.write(out / f"{'three' if len(names) > 1 else names[0]}.json")
        budget = relative_budget(table, latency=arguments.latency, memory=arguments.memory)
        done = planner.deploy(table, budget, [models[n] for n in names], out=out / "-".join(names), data=arguments.data)
        done.plan.write(out / f"{'-'.join(names)}.plan.json")
        done.report.write(out / f"{'-'.join(names)}.report.json")
        sys.stdout.write(f"{done.plan}\n\n{done.report}\n\n")
        ok = ok and done.report.ok
        *latencies, memory = done.report.promises
        rows += [
            f"| {network.name}{'' if len(names) == 1 else ' of three'} "
            f"| {promise.bound / 1e3:.1f}, {promise.predicted / 1e3:.1f}, {promise.measured / 1e3:.1f} "
            f"| {network.p50_ns / network.control_p50_ns:.3f} "
            f"| {memory.bound / 1024:.1f}, {memory.predicted / 1024:.1f}, {memory.measured / 1024:.1f} "
            f"| {network.top1_change:+.2f} ± {network.top1_change_std:.2f} "
            f"| {'yes' if promise.kept and memory.kept else 'NO'}, {done.rounds} build(s) |"
            for promise, network in zip(latencies, done.report.networks, strict=True)
        ]
    text = "\n".join(rows) + "\n"
    (out / "promises.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
