"""Compiling the networks of a build folder, and writing down how: the part of a build that can be repeated."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import InputError
from planner.segments import Entry, Network

if TYPE_CHECKING:
    from planner.artefact import Artefact
    from planner.compiler import Compiled
    from planner.schedules import Options
    from planner.tvm_config import KernelConfig

__all__ = ["EXACT_MODULE", "MODULE", "Compilation", "Recipe", "compile_folder"]

logger = logging.getLogger(__name__)

MODULE = "model.so"
EXACT_MODULE = "exact.so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How networks are compiled.

    Attributes:
        target: TVM target.
        options: What the kernels may do.
        schedules: How each kernel of the module is scheduled; chosen here if None.
        exact_schedules: The same for the exact build.
        search_s: Seconds to measure schedules of the module, where they are chosen here.
    """

    target: Mapping[str, Any]
    options: Options
    schedules: Mapping[str, str] | None = None
    exact_schedules: Mapping[str, str] | None = None
    search_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came out of the compiler: kernels, those of the exact build, and facts about each network."""

    kernels: tuple[KernelConfig, ...]
    exact_kernels: tuple[KernelConfig, ...]
    facts: Mapping[str, dict[str, Any]]


Saved = tuple[str, str, Mapping[str, Sequence[str]]]
"""A network on disk: its name, its file relative to the folder, the nodes of each layer."""


def compile_folder(folder: Path, networks: Sequence[Saved], exact: Sequence[Saved], recipe: Recipe) -> Compilation:
    """Compile saved networks and their exact controls, and look at what came out.

    Args:
        folder: Where they are saved, and where the modules are written.
        networks: The networks as planned.
        exact: The same networks, exact.
        recipe: How they are compiled.

    Returns:
        Kernels and facts, as the build config has them.

    Raises:
        InputError: There is no linker, or a schedule that was written down does not fit.
    """
    from planner import compiler, linking
    from planner.artefact import Artefact

    linking.linker()  # a missing one is better known before minutes of work
    entries, controls = _entries(folder, networks), _entries(folder, exact)
    logger.info("compiling %s", ", ".join(e.name for e in entries))
    compiled = compiler.compile_networks(
        entries, recipe.target, options=recipe.options, chosen=recipe.schedules, search_s=recipe.search_s
    )
    _check_complete(compiled, recipe.schedules)
    compiler.export(compiled, folder / MODULE)
    # The control is what the table was measured with: no further options, and no search.
    control = compiler.compile_networks(controls, recipe.target, chosen=recipe.exact_schedules)
    _check_complete(control, recipe.exact_schedules)
    compiler.export(control, folder / EXACT_MODULE)
    artefact = Artefact.load(folder / MODULE)
    facts = {entry.name: _facts(artefact, entry, compiled) for entry in entries}
    return Compilation(_kernels(compiled, entries), _kernels(control, controls), facts)


def _check_complete(compiled: Compiled, schedules: Mapping[str, str] | None) -> None:
    """Refuse a module with kernels that were not there when schedules were written down."""
    unknown = sorted(set(compiled.schedules) - set(compiled.schedules if schedules is None else schedules))
    if unknown:
        raise InputError(f"kernel {unknown[0]!r}: no schedule was written down for it; another version made the build?")


def _entries(folder: Path, networks: Sequence[Saved]) -> list[Entry]:
    import onnx

    return [Entry(name=name, model=onnx.load(folder / file), nodes=nodes) for name, file, nodes in networks]


def _facts(artefact: Artefact, entry: Entry, compiled: Compiled) -> dict[str, Any]:
    network = Network(entry)
    inputs = np.zeros(network.shape(network.input), np.float32)
    trace = artefact.trace(entry.name, inputs)
    own = {step.kernel for step in trace.steps}
    workspace = max((size for name, size in compiled.workspaces.items() if name in own), default=0)
    return {
        "weight_bytes": trace.weight_bytes,
        "weights_sha256": artefact.weights_sha256(entry.name, inputs),
        "arena_bytes": trace.activation_bytes + workspace,
    }


def _kernels(compiled: Compiled, entries: Sequence[Entry]) -> tuple[KernelConfig, ...]:
    from planner.schedules import naming
    from planner.tvm_config import KernelConfig

    found = []
    for name, schedule in sorted(compiled.schedules.items()):
        place = naming.owner(name)
        entry = entries[place[0]] if place else entries[0]
        found.append(
            KernelConfig(
                name=name,
                network=entry.name if place else "",
                layer=entry.layers[place[1]] if place else "",
                schedule=schedule,
                workspace_bytes=compiled.workspaces.get(name, 0),
            )
        )
    return tuple(found)
