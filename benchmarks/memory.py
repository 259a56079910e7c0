"""What networks need for activations, beside what other plans take; and what a process that runs them really takes.

    python benchmarks/memory.py --page memory.md --json memory.json
    python benchmarks/memory.py --models quick,resnet50 --no-processes
    python benchmarks/memory.py --models "" --instances 200     # only random instances, beside CP-SAT

For each network, in float32 and as ONNX Runtime's int8 form: the storage that the artefact has; the live set, below
which no storage can go; CP-SAT's optimum where the two differ; what TVM's ``StaticPlanBlockMemory`` and whole storages
shared by tensors of all types would take.  Then a fresh process loads the runtime, the module, and runs it a hundred
times.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
import processes
import quantised
from timing import provenance

import planner
from costmodels.arena import ALIGNMENT, Tensor, aligned, pack
from costmodels.memory import MemoryScript
from planner import compiler
from planner.segments import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """The activations of one network.

    Attributes:
        network: Its name.
        numbers: ``float32`` or ``int8``.
        tensors: How many tensors lie in the storage.
        inplace: How many of them lie where another one did a call before.
        storage_bytes: The storage of the artefact.
        live_bytes: The greatest live set, sizes rounded up as in the storage: its lower bound.
        optimum_bytes: The smallest storage; None where CP-SAT could not prove one in time.
        tvm_bytes: What TVM's own plan allocates, the network's result aside, and the largest workspace.
        shared_bytes: The same where tensors of all types share whole storages, the largest first.
        without_inplace_bytes: The storage where no place is taken over.
    """

    network: str
    numbers: str
    tensors: int
    inplace: int
    storage_bytes: int
    live_bytes: int
    optimum_bytes: int | None
    tvm_bytes: int
    shared_bytes: int
    without_inplace_bytes: int


def optimum(tensors: Sequence[Tensor], seconds: float) -> int | None:
    """Find the smallest storage with CP-SAT's no-overlap of rectangles; None where it is not proven in time.

    A tensor that may take the place of another does: both are one rectangle.
    """
    from ortools.sat.python import cp_model

    follower = {tensor.within: index for index, tensor in enumerate(tensors) if tensor.within is not None}
    model = cp_model.CpModel()
    most = sum(aligned(tensor.bytes) for tensor in tensors) // ALIGNMENT
    peak = model.new_int_var(0, most, "peak")
    places, times = [], []
    for index, tensor in enumerate(tensors):
        size = aligned(tensor.bytes) // ALIGNMENT
        if tensor.within is not None or not size:
            continue
        end = index
        while end in follower:
            end = follower[end]
        start = model.new_int_var(0, most - size, f"start{index}")
        places.append(model.new_fixed_size_interval_var(start, size, f"place{index}"))
        times.append(model.new_fixed_size_interval_var(tensor.born, tensors[end].last - tensor.born + 1, f"t{index}"))
        model.add(start + size <= peak)
    model.add_no_overlap_2d(places, times)
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    return int(solver.objective_value) * ALIGNMENT if status == cp_model.OPTIMAL else None


def shared(tensors: Sequence[Tensor]) -> int:
    """Let tensors share whole storages, the largest first, each where storage grows least; bytes of all storages."""
    sizes: list[int] = []
    held: list[list[Tensor]] = []
    for tensor in sorted(tensors, key=lambda t: (-t.bytes, t.born)):
        free = [place for place, others in enumerate(held) if not any(map(tensor.meets, others))]
        best = min(free, key=lambda place: sizes[place], default=None)
        if best is None:
            best = len(sizes)
            sizes.append(tensor.bytes)
            held.append([])
        held[best].append(tensor)
    return sum(sizes)


def tvm_plan(entry: Entry, target: Mapping[str, Any]) -> int:
    """Sum up what TVM's own plan allocates for a network, its result included."""
    import tvm
    from tvm import relax

    kind, transform = tvm.target.Target(dict(target)), relax.transform
    passes = [
        *(transform.RewriteDataflowReshape(), transform.ToNonDataflow(), transform.RemovePurityChecking()),
        *(transform.CallTIRRewrite(), transform.StaticPlanBlockMemory(), transform.LowerAllocTensor()),
    ]
    with kind:
        planned = tvm.transform.Sequential(passes)(
            compiler.schedule_networks(compiler.fuse_networks([entry], kind), kind)
        )
    return sum(
        int(binding.value.args[0].values[0])
        for block in planned[entry.name].body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.memory.alloc_storage"
    )


def arena(entry: Entry, numbers: str, seconds: float) -> Arena:
    """Lay out the activations of a network in every way."""
    target = compiler.host_target()
    script = compiler.memory_script(entry, target)
    tensors, values, working = script.tensors()
    packing = pack(tensors)
    apart = [Tensor(bytes=t.bytes, born=t.born, last=t.last) for t in tensors]
    workspace = max((script.calls[step].workspace_bytes for step in working), default=0)
    result = sum(value.bytes for value in script.values if value.place == "output")
    return Arena(
        network=entry.name,
        numbers=numbers,
        tensors=len(values),
        inplace=sum(tensor.within is not None for tensor in tensors),
        storage_bytes=packing.bytes,
        live_bytes=packing.live_bytes,
        optimum_bytes=packing.bytes if packing.optimal else optimum(tensors, seconds),
        tvm_bytes=tvm_plan(entry, target) - result + workspace,
        shared_bytes=shared(apart[: len(values)]) + workspace,
        without_inplace_bytes=pack(apart).bytes,
    )


def entry_of(path: Path, name: str) -> Entry:
    """Read a network as building does."""
    graph = planner.load(path).graph
    return Entry(name=name, model=graph.model, nodes={layer.name: layer.nodes for layer in graph.layers})


def process(entry: Entry, script: MemoryScript, folder: Path, inputs: Any) -> dict[str, int]:
    """Build a network, and see what a process that runs it takes."""
    import numpy as np

    from planner.artefact import Artefact

    compiled = compiler.compile_networks([entry], compiler.host_target())
    library, images = folder / "model.so", folder / "image.npy"
    compiler.export(compiled, library)
    np.save(images, inputs[:1])
    trace = Artefact(compiled.executable).trace(entry.name, inputs[:1])
    if trace.activation_bytes != script.bytes:
        raise SystemExit(f"{entry.name}: {script.bytes} bytes promised, {trace.activation_bytes} taken")
    command = [sys.executable, processes.__file__, str(library), entry.name, str(images)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return {
        "weight_bytes": trace.weight_bytes,
        "activation_bytes": trace.activation_bytes,
        "file_bytes": library.stat().st_size,
        **json.loads(answer.stdout),
    }


def instances(count: int, seconds: float, seed: int = 0) -> list[dict[str, Any]]:
    """Pack random tensors, and prove with CP-SAT how good that is."""
    chance = random.Random(seed)  # noqa: S311 -- no secret depends on it
    found = []
    for _ in range(count):
        calls = chance.randint(5, 25)
        tensors = []
        for _ in range(chance.randint(8, 40)):
            born = chance.randrange(calls)
            last = min(calls, born + chance.choice((1, 1, 2, 3, 5, 8)))
            tensors.append(Tensor(bytes=ALIGNMENT * chance.randint(1, 40), born=born, last=last))
        packing = pack(tensors)
        best = packing.bytes if packing.optimal else optimum(tensors, seconds)
        found.append({"tensors": len(tensors), "bytes": packing.bytes, "live": packing.live_bytes, "optimum": best})
    return found


def page(arenas: Sequence[Arena], seen: Mapping[str, Mapping[str, int]], tried: Sequence[Any]) -> str:
    """Write it all as markdown; sizes are KiB."""
    rows = [
        "| network | numbers | tensors (in place) | storage | live set | optimum | apart | TVM's plan | whole |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for a in arenas:
        best = "?" if a.optimum_bytes is None else _kib(a.optimum_bytes)
        sizes = (a.storage_bytes, a.live_bytes)
        others = (a.without_inplace_bytes, a.tvm_bytes, a.shared_bytes)
        cells = (a.network, a.numbers, f"{a.tensors} ({a.inplace})", *map(_kib, sizes), best, *map(_kib, others))
        rows.append(f"| {' | '.join(cells)} |")
    if seen:
        rows += [
            "",
            "| network | weights | activations | resident | back by malloc_trim | pages of the file | rest | file |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for name, p in seen.items():
        promised = (p["weight_bytes"], p["activation_bytes"])
        freed, rest = p["resident_bytes"] - p["kept_bytes"], p["kept_bytes"] - p["mapped_bytes"] - sum(promised)
        sizes = (*promised, p["resident_bytes"], freed, p["mapped_bytes"], rest, p["file_bytes"])
        rows.append(f"| {' | '.join((name, *map(_kib, sizes)))} |")
    if tried:
        proven = [row for row in tried if row["optimum"] is not None]
        best_found = sum(row["bytes"] == row["optimum"] for row in proven)
        worst = max((row["bytes"] / row["optimum"] for row in proven), default=1.0)
        rows.append("")
        rows.append(f"Of {len(tried)} random instances an optimum is proven in {len(proven)}.")
        rows.append(f"Of these {best_found} are packed optimally; the worst is {100 * (worst - 1):.2f} % larger.")
    return "\n".join(rows) + "\n"


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f}"


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Lay out networks, run them, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join((*models.SHIPPED, *models.LIGHT)), help="names or ONNX files")
    parser.add_argument("--numbers", default="float32,int8")
    parser.add_argument("--seconds", type=float, default=60.0, help="for CP-SAT, a network")
    parser.add_argument("--instances", type=int, default=0, help="random instances to pack as well")
    parser.add_argument("--processes", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--page", type=Path, help="where the tables go as markdown")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args(arguments_given)
    arenas: list[Arena] = []
    seen: dict[str, dict[str, int]] = {}
    for name in filter(None, arguments.models.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            subject = models.prepare(name, Path(folder))
            for numbers in arguments.numbers.split(","):
                path = subject.path
                if numbers == "int8":
                    path = Path(folder) / f"{subject.name}.int8.onnx"
                    quantised.quantise(subject.folded, path, subject.inputs)
                entry = entry_of(path, subject.name)
                arenas.append(arena(entry, numbers, arguments.seconds))
                sys.stderr.write(f"{arenas[-1]}\n")
                if arguments.processes:
                    script = compiler.memory_script(entry, compiler.host_target())
                    seen[f"{entry.name} {numbers}"] = process(entry, script, Path(folder), subject.inputs)
    tried = instances(arguments.instances, arguments.seconds)
    text = page(arenas, seen, tried)
    sys.stdout.write(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    if arguments.json:
        figures = {"arenas": [asdict(a) for a in arenas], "processes": seen, "instances": tried, **provenance()}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
