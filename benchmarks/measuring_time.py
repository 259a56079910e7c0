"""How long measuring takes, beside measuring each choice of each layer by a build and an evaluation of its own.

    python benchmarks/measuring_time.py --models vggs --naive 16 --again

The one side is ``planner.measure`` of each network with the whole default catalogue, into an empty store.  The other
side takes a random subset of all (layer, choice), and for each of them: rewrites the whole network, compiles it, times
it as often as the other side does beside the exact build, and evaluates it on the validation images; what does not
depend on the choice (calibration, the exact build, its logits) it may keep.  Its mean, times the number of
(layer, choice), is what it would take.  ``--again`` then measures a twin of each network, the same layers with other
weights, into the same store: only losses are new.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import planner
from planner.accuracy import Evaluator
from planner.calibration import Calibration
from planner.choices import EXACT, Choice, applicable
from planner.devices import open_device
from planner.graph import LayerGraph
from planner.masks.choices import alone
from planner.masks.classes import masks_of
from planner.masks.costs import is_masked
from planner.model import Model
from planner.rewrite import apply
from planner.segments import Entry

ROUNDS = 25


def naive_seconds(model: Model, count: int, seed: int) -> tuple[list[float], int]:
    """Measure some choices one by one.

    Args:
        model: The network.
        count: How many choices to measure.
        seed: Seed of which.

    Returns:
        Seconds of each, and how many (layer, choice) there are, ``exact`` aside.
    """
    graph, data = model.graph, model.data()
    choices = applicable(graph, "default")
    everything = [(layer, name) for layer, offered in choices.items() for name in offered if name != EXACT]
    device = open_device("tvm", threads=1)
    calibration = Calibration.of(graph, data)
    evaluator = Evaluator(graph, data.inputs(data.validation), data.validation.labels)
    evaluator.exact()
    calibration.exact(graph.layers[0].outputs[0])
    whole = apply(graph, {}, calibration)
    control = device.program(Entry(name=model.name, model=whole.model, nodes=whole.nodes))
    seconds = []
    for layer, name in random.Random(seed).sample(everything, count):  # noqa: S311 -- no secret depends on it
        started = time.perf_counter()
        rewritten = apply(graph, _alone(graph, layer, name), calibration, refit=True)
        program = device.program(Entry(name=model.name, model=rewritten.model, nodes=rewritten.nodes))
        for _ in range(ROUNDS):
            for timed in (control, program):
                timed.sample()
                timed.sample_layers()
        evaluator.cost(rewritten.model)
        seconds.append(time.perf_counter() - started)
    return seconds, len(everything)


def _alone(graph: LayerGraph, layer: str, name: str) -> Mapping[str, str]:
    """Return the choices under which one layer takes a choice, and its neighbours the masks that go with it."""
    if not is_masked(name):
        return alone(graph, layer, name)
    choice, masks = Choice.parse(name), masks_of(graph)
    side, share = (masks.writes, choice.writes) if choice.writes not in {"", "1"} else (masks.reads, choice.reads)
    return alone(graph, side[layer].name, f"prune@{share}")


def twin(model: Model, folder: Path) -> Model:
    """Return the same network with its weights a little changed: the same code, other losses."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.ModelProto()
    proto.CopyFrom(model.graph.model)
    chance = np.random.default_rng(1)
    for item in proto.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype == np.float32:
            moved = array * (1 + np.float32(0.01) * chance.standard_normal(array.shape).astype(np.float32))
            item.CopyFrom(numpy_helper.from_array(moved, item.name))
    path = folder / f"{model.name}_twin.onnx"
    onnx.save(proto, path)
    return planner.load(path, data=model.data())


def main() -> int:
    """Time both sides and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vggs"])
    parser.add_argument("--naive", type=int, default=16, help="choices that are measured one by one")
    parser.add_argument("--again", action="store_true", help="then measure a twin of each network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    rows = []
    with TemporaryDirectory() as folder:
        for name in arguments.models:
            model = planner.load(planner.shipped(f"models/{name}.onnx"), data=planner.shipped("fashion_mnist.npz"))
            store = Path(folder) / f"{name}.store"
            started = time.perf_counter()
            planner.measure([model], store=store, jobs=os.cpu_count() or 1)
            ours = time.perf_counter() - started
            row = {"model": name, "seconds": ours}
            sys.stdout.write(f"{name}: {ours:.1f} s\n")
            sys.stdout.flush()
            if arguments.again:
                other = twin(model, Path(folder))
                started = time.perf_counter()
                planner.measure([other], store=store, jobs=os.cpu_count() or 1)
                row["twin_seconds"] = time.perf_counter() - started
            seconds, count = naive_seconds(model, arguments.naive, arguments.seed)
            row |= {"choices": count, "naive_each": float(np.median(seconds)), "naive_all": np.mean(seconds) * count}
            row["ratio"] = row["naive_all"] / ours
            rows.append(row)
            sys.stdout.write(
                f"{name}: {ours:.1f} s; one by one {row['naive_each']:.2f} s each (median of {len(seconds)}, mean "
                f"{np.mean(seconds):.2f}), {row['naive_all']:.0f} s for {count}: {row['ratio']:.1f} times as long"
                + (f"; a twin {row['twin_seconds']:.1f} s" if arguments.again else "")
                + "\n"
            )
            sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
