"""Whether the weights of an artefact take the bytes that the table promises, for plans that mix everything.

    python benchmarks/mixed_bytes.py --models quick --plans 50

Each layer takes a random choice of those that are asked for, layers of a class of channels agreeing on its share.  What
is promised is the sum over layers of what `planner.measure` would put into the table; beside it stands what the
constants of the built artefact take.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

import planner
from planner.artefact import Artefact
from planner.calibration import Calibration
from planner.choices import applicable
from planner.compiler import compile_networks, host_target
from planner.devices import open_device
from planner.masks.costs import random_plan
from planner.measuring.builds import Builds
from planner.measuring.store import Store
from planner.rewrite import apply
from planner.segments import Entry

IMAGES = 64


def differences(network: str, approximations: Sequence[str] | str, plans: int, seed: int) -> list[int]:
    """Return by how many bytes each artefact exceeds its promise.

    Args:
        network: A shipped network.
        approximations: What layers may choose from.
        plans: How many plans are built.
        seed: Seed of the plans.
    """
    model = planner.load(planner.shipped(f"models/{network}.onnx"), data=planner.shipped("fashion_mnist.npz"))
    images = model.data().inputs("calibration")[:IMAGES]
    calibration = Calibration(model.graph, images)
    choices = applicable(model.graph, approximations)
    builds = Builds(model, choices, calibration, open_device("tvm", threads=1), Store(None))
    builds.compile(lambda what, done, of: _say(f"{what} {done}/{of}"))
    random = np.random.default_rng(seed)
    found = []
    for number in range(plans):
        plan = random_plan(model.graph, choices, random)
        rewritten = apply(model.graph, plan, calibration, refit=False)
        entry = Entry(name=network, model=rewritten.model, nodes=rewritten.nodes)
        artefact = Artefact(compile_networks([entry], host_target(1)).executable)
        promised = sum(builds.weight_bytes(*place) for place in plan.items())
        built = artefact.trace(network, images[:1]).weight_bytes
        found.append(built - promised)
        _say(f"{network} plan {number + 1}: {promised:,} promised, {built:,} built, {len(set(plan.values()))} choices")
    return found


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Build plans and count their bytes; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["quick", "resnet8", "vggs"])
    parser.add_argument("--approximations", type=lambda text: text.split(","), help="default: what usually pays")
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(arguments_given)
    os.environ["TVM_NUM_THREADS"] = "1"
    broken = 0
    for network in arguments.models:
        found = differences(network, arguments.approximations or "default", arguments.plans, arguments.seed)
        wrong = [value for value in found if value]
        broken += len(wrong)
        _say(f"{network}: {len(found) - len(wrong)} of {len(found)} plans to the byte {wrong or ''}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
