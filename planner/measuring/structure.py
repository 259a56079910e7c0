"""Networks as far as their structure goes: put together from layers that were rewritten elsewhere, in no time.

What a plan needs in memory does not depend on the values of weights.  So a layer's nodes under a choice are taken from
any network in which it was rewritten so; only what turns its tensors from one format into another is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.activations.boundaries import join
from planner.calibration import arrays_of, opset_of
from planner.choices import formats
from planner.draft import Draft
from planner.layering import in_order
from planner.segments import Entry

if TYPE_CHECKING:
    import onnx

    from planner.calibration import Calibration
    from planner.rewrite import Rewritten

__all__ = ["Structures"]


class Structures:
    """Layers of one network as they were rewritten, to put other networks together from."""

    def __init__(self, calibration: Calibration) -> None:
        """Nothing is known yet.

        Args:
            calibration: The network on calibration images: gives the grids of tensors of bytes.
        """
        self._calibration = calibration
        self._graph = calibration.graph
        self._bodies: dict[tuple[str, str], tuple[onnx.NodeProto, ...]] = {}
        self._arrays: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}

    def remember(self, rewritten: Rewritten) -> None:
        """Keep the layers of a rewritten network that are not known yet."""
        new = [place for place in rewritten.choices.items() if place not in self._bodies]
        if not new:
            return
        arrays = arrays_of(rewritten.model)
        for layer, choice in new:
            body = rewritten.bodies[layer]
            self._bodies[layer, choice] = body
            read = {name for node in body for name in node.input}
            self._arrays[layer, choice] = {name: arrays[name] for name in read if name in arrays}

    def missing(self, choices: Mapping[str, str]) -> list[tuple[str, str]]:
        """List layers with those of their choices that are not known."""
        return [place for place in choices.items() if place not in self._bodies]

    def entry(self, choices: Mapping[str, str]) -> Entry:
        """Put a network together.

        Args:
            choices: The choice of every layer, each one that is known.

        Returns:
            The network: operators and shapes as under a rewriting, weights as they were where they were first seen.
        """
        graph = self._graph
        stored: dict[str, str] = {}
        arrays: dict[str, NDArray[Any]] = {}
        nodes: dict[str, list[onnx.NodeProto]] = {}
        for layer in graph.layers:
            choice = choices[layer.name]
            reads, writes = (side.dtype for side in formats(graph, layer.name, choice))
            joined = join(
                layer,
                self._bodies[layer.name, choice],
                stored=stored,
                reads=reads,
                writes=writes,
                grid=self._calibration.grid,
            )
            nodes[layer.name] = in_order(joined.nodes)
            arrays |= self._arrays[layer.name, choice] | joined.arrays
            stored |= dict.fromkeys(layer.outputs if writes != "float32" else (), writes)
        draft = Draft(
            where=graph.name,
            nodes=[node for names in nodes.values() for node in names],
            arrays=arrays,
            input_name=graph.input_name,
            input_shape=graph.input_shape,
            output_name=graph.output_name,
            opset=opset_of(graph.model),
            shapes={graph.output_name: tuple(np.array(graph.shapes[graph.output_name]).tolist())},
        )
        return Entry(
            name=graph.name,
            model=draft.to_model(),
            nodes={layer: tuple(node.name for node in names) for layer, names in nodes.items()},
        )
