"""Networks as the compiler takes them, and the compiler's answer beside onnxruntime's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np

from planner import graph as graphs
from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target
from planner.segments import Entry, Network

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from planner.compiler import Compiled

OLD = {"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 1}
"""Four lanes: no AVX at all."""
HASWELL = {"kind": "llvm", "mcpu": "haswell", "num-cores": 1}
"""Eight lanes: AVX2."""


def raw(model: onnx.ModelProto, name: str = "net") -> Entry:
    """Take a model as it is, every node a layer of its own."""
    return Entry(name=name, model=model, nodes={node.name: (node.name,) for node in model.graph.node})


def whole(model: onnx.ModelProto, folder: Path, name: str = "net") -> Entry:
    """Take a model the way measuring and building do: read, folded, cut into layers."""
    graph = graphs.read(networks.saved(model, folder, name), name=name)
    return Entry(name=name, model=graph.model, nodes={layer.name: layer.nodes for layer in graph.layers})


def compiled(entry: Entry, target: dict[str, Any] | None = None) -> tuple[Compiled, Artefact]:
    """Compile one network, for this machine if no target is named, and load it."""
    found = compile_networks([entry], target or host_target())
    return found, Artefact(found.executable)


def image(entry: Entry, seed: int = 0) -> np.ndarray:
    """Return one random input of a network."""
    network = Network(entry)
    shape = network.shape(network.input)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_as_onnxruntime(entry: Entry, target: dict[str, Any] | None = None, tolerance: float = 2e-5) -> None:
    """Compare a compiled network with onnxruntime, which runs it with none of its optimisations."""
    images = np.concatenate([image(entry, seed) for seed in (0, 1)])
    expected = networks.run(entry.model, images)
    _, artefact = compiled(entry, target)
    got = artefact.run(entry.name, images)
    assert got.shape == expected.shape
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())
