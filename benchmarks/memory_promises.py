"""Whether the arena that is put together for a plan from its choices is the one that its network has, to the byte.

    python benchmarks/memory_promises.py --models quick,resnet8,vggs,vgg16q --plans 200 --json promises.json

Layers are learnt as a measuring run learns them, but for the builds, which are outlined instead of compiled.  Then
random plans are put together, and outlined: lowered, fused, scheduled and planned.  With ``--built 10`` as many of them
are also compiled, and what the artefact was seen to allocate stands beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from random_plans import draw

import planner
from planner import compiler, rewrite
from planner.artefact import Artefact
from planner.calibration import Calibration
from planner.choices import EXACT, applicable
from planner.masks.costs import is_masked, mask_builds
from planner.measuring.conversions import patterns
from planner.measuring.memory import study
from planner.measuring.structure import Structures
from planner.segments import Entry, Network

MODELS = ("quick", "resnet8", "vggs", "vgg16q")
IMAGES = 16
"""Calibration images: bytes do not depend on the values of weights."""
MIXES = 24
"""Random plans that a measuring run compares before it promises anything."""


def measured(name: str, *, plans: int, built: int, seed: int) -> dict[str, Any]:
    """Learn one network, then hold random plans against it."""
    from costmodels.composing import compose

    model = planner.load(f"data/models/{name}.onnx", data="data/fashion_mnist.npz")
    choices = applicable(model.graph)
    calibration = Calibration(model.graph, model.data().inputs("calibration")[:IMAGES], equalise=False)
    structures, target = Structures(calibration), compiler.host_target()

    def outlined(plan: Mapping[str, str]) -> Any:
        return compiler.outline(structures.entry(plan), target)

    start = time.perf_counter()
    wanted = _wanted(model, choices)
    for plan in wanted:
        structures.remember(rewrite.apply(model.graph, plan, calibration, refit=False))
    rewritten = time.perf_counter()
    seen = [(plan, outlined(plan)) for plan in wanted]
    looked = time.perf_counter()
    scripts = study(
        model.graph, choices, seen, outlined, mixes=MIXES, seed=seed, tell=lambda done, of: _say(f"{name}: {done}/{of}")
    )
    learnt = time.perf_counter()
    if scripts is None:
        raise SystemExit(f"{name}: its operators are not such as memory scripts describe")
    rows = []
    for number, plan in enumerate(draw(model.graph, choices, count=plans, seed=seed + 1)):
        composed = compose(scripts, plan)
        row = {"composed": composed.bytes, "exact": composed.exact, "planned": outlined(plan).arena_bytes}
        if number < built:
            row["built"] = _built(structures.entry(plan), target)
        rows.append(row)
    known = sum(len(by_forms) for layer in scripts.layers for by_forms in layer.known.values())
    return {
        "model": name,
        "plans": len(rows),
        "exact": sum(row["exact"] for row in rows),
        "wrong": sum(row["exact"] and row["composed"] != row["planned"] for row in rows),
        "guessed_too_low": sum(not row["exact"] and row["composed"] < row["planned"] for row in rows),
        "built": sum("built" in row for row in rows),
        "built_wrong": sum("built" in row and row["exact"] and row["built"] != row["composed"] for row in rows),
        "slack_bytes": scripts.slack_bytes,
        "scripts": known,
        "seconds": {"rewriting": rewritten - start, "builds": looked - rewritten, "learning": learnt - looked},
        "rows": rows,
    }


def _wanted(model: planner.Model, choices: Mapping[str, tuple[str, ...]]) -> list[dict[str, str]]:
    """Return the plans that a measuring run builds: each choice wherever it applies, mixed types, and masks."""
    names = dict.fromkeys(name for offered in choices.values() for name in offered if not is_masked(name))
    everywhere = [{layer: name if name in offered else EXACT for layer, offered in choices.items()} for name in names]
    return [*everywhere, *patterns(model.graph, choices), *mask_builds(model.graph, choices)]


def _built(entry: Entry, target: Mapping[str, Any]) -> int:
    """Compile a network, run it, and count what it allocated."""
    compiled = compiler.compile_networks([entry], target)
    network = Network(entry)
    trace = Artefact(compiled.executable).trace(entry.name, np.zeros(network.shape(network.input), np.float32))
    return trace.activation_bytes + max(compiled.workspaces.values(), default=0)


def _say(text: str) -> None:
    sys.stderr.write(f"\r{text:<60}")


def main() -> None:
    """Measure the networks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="networks, joined by commas")
    parser.add_argument("--plans", type=int, default=200, help="random plans of each")
    parser.add_argument("--built", type=int, default=0, help="how many of them to compile and run as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all rows")
    arguments = parser.parse_args()
    found = []
    for name in arguments.models.split(","):
        found.append(measured(name, plans=arguments.plans, built=arguments.built, seed=arguments.seed))
        _say("")
        row = found[-1]
        print(
            f"{name}: {row['wrong']} of {row['exact']} exact promises wrong, "
            f"{row['plans'] - row['exact']} of {row['plans']} guessed ({row['guessed_too_low']} too low), "
            f"{row['built_wrong']} of {row['built']} builds wrong; "
            f"{row['scripts']} scripts, learnt in {row['seconds']['learning']:.0f} s",
            flush=True,
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
