"""What the exact network does on the calibration images, computed once and kept."""

from __future__ import annotations

import logging
from collections import Counter
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.activations.equalisation import equalised
from planner.activations.tensor_grids import BEST, TensorGrids
from planner.approximations.base import LayerView
from planner.batching import batchable
from planner.draft import attributes
from planner.epilogue import Epilogue, epilogue_of
from planner.errors import InputError
from planner.execution import BATCH, run_nodes
from planner.linear import ROWS, WEIGHTED, Moments, linear_of, moments, output_rows, sample, unfit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from planner.activations.grids import Grid
    from planner.dataset import Dataset
    from planner.graph import LayerGraph

__all__ = ["KEPT_BYTES", "Calibration", "arrays_of", "opset_of", "views_of"]

_log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
KEPT_BYTES = 2**30
"""Activations of a network that are kept in memory at most; what is more goes to files."""
_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze", "Dropout", "Identity"})


def arrays_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return a model's constants by name."""
    from onnx import numpy_helper

    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX operator set that a model is written in."""
    return int(next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}))


def views_of(graph: LayerGraph, arrays: Mapping[str, NDArray[Any]]) -> tuple[LayerView, ...]:
    """Return what an approximation may know of each layer before anything runs, in topological order."""
    anchors = {node.name: node for node in graph.model.graph.node}
    readers: dict[str, list[str]] = {}
    for node in graph.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    reasons = {layer.name: unfit(anchors[layer.nodes[0]], arrays, readers) for layer in graph.layers}
    weights = {
        layer.name: None if reasons[layer.name] else linear_of(anchors[layer.nodes[0]], arrays)
        for layer in graph.layers
    }
    weighted = [name for name, linear in weights.items() if linear is not None]
    makers = {name: node for node in graph.model.graph.node for name in node.output}
    return tuple(
        LayerView(
            name=layer.name,
            op=layer.op,
            linear=weights[layer.name],
            input_shape=graph.shapes[anchors[layer.nodes[0]].input[0]],
            output_shape=graph.shapes[anchors[layer.nodes[0]].output[0]],
            first=layer.name in weighted[:1],
            last=layer.name in weighted[-1:],
            positions=_positions(graph, makers, anchors[layer.nodes[0]].input[0]),
            input_shapes=tuple(
                graph.shapes[name] for name in anchors[layer.nodes[0]].input if name and name not in arrays
            ),
            attributes=attributes(anchors[layer.nodes[0]]),
            unfit=reasons[layer.name] if layer.op in WEIGHTED else "",
        )
        for layer in graph.layers
    )


def _positions(graph: LayerGraph, makers: Mapping[str, onnx.NodeProto], tensor: str) -> int:
    """Count the places of each channel of the map that was flattened to a tensor; 1 where none was."""
    shape = graph.shapes[tensor]
    while tensor in makers and makers[tensor].op_type in _FLATTENING:
        tensor = makers[tensor].input[0]
    map_shape = graph.shapes[tensor]
    return prod(map_shape[2:]) if len(shape) == 2 < len(map_shape) else 1


class Calibration:
    """Keep the exact network's activations, and sums over them, on the calibration images.

    Everything is computed when it is first asked for. The tensors between layers stay in memory, about four
    bytes times their elements times the number of images; where that is more than `KEPT_BYTES`, in files.

    Attributes:
        graph: The exact network.
        images: Its inputs, ``[image][channel][row][column]``.
        arrays: Its constants by name.
        views: What an approximation may know of each layer, by layer, in topological order.
        opset: ONNX operator set it is written in.
        batch: Images a call it can be run on: 1 where it is not certain that it keeps the images of a batch
            apart.
        last_use: Index of the last layer that reads each tensor between layers.
        grids: The grids that tensors are rounded to in quantised formats.
        rows: Positions of a layer's outputs that sums are taken over, at most.
        removals: In which order the channels of each class go, by its name and by what decides.
    """

    def __init__(
        self,
        graph: LayerGraph,
        images: Float32,
        *,
        validation: Float32 | None = None,
        method: str = BEST,
        equalise: bool | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        rows: int = ROWS,
        threads: int = 1,
    ) -> None:
        """Check the images against the network; nothing runs yet.

        Args:
            graph: The exact network.
            images: Calibration images as the network takes them, ``[image][channel][row][column]``.
            validation: Images that the method is chosen by, likewise; without any ``best`` is the least squared error.
            method: How grids of quantised tensors are placed: a method of `planner.activations.ranges`, or ``best``.
            equalise: Whether a network that computes with bytes is equalised first
                (`planner.activations.equalisation`); None for where the validation images say so.
            arrays: Constants in place of the network's own; they compute the same.
            rows: Positions of a layer's outputs that sums are taken over, at most.
            threads: Threads of onnxruntime.

        Raises:
            InputError: Images do not suit the network, or there is no such method.
        """
        if images.dtype != np.float32 or images.shape[1:] != graph.input_shape[1:]:
            expected = "x".join(str(length) for length in graph.input_shape[1:])
            raise InputError(
                f"calibration images are {images.dtype} of shape {images.shape}; "
                f"model {graph.name!r} expects float32 (n, {expected})"
            )
        if not len(images):
            raise InputError(f"model {graph.name!r}: there are no calibration images")
        self.graph = graph
        self.images = images
        self.arrays = arrays_of(graph.model) if arrays is None else dict(arrays)
        self.views = {view.name: view for view in views_of(graph, self.arrays)}
        self.opset = opset_of(graph.model)
        self.batch = BATCH if batchable(graph.model, graph.shapes) else 1
        self.last_use = {tensor: index for index, layer in enumerate(graph.layers) for tensor in layer.inputs}
        self.last_use[graph.output_name] = len(graph.layers)
        self.rows = rows
        self._threads = threads
        self._anchors: dict[str, onnx.NodeProto] = {node.name: node for node in graph.model.graph.node}
        self._exact: dict[str, Float32] = {}
        self._moments: dict[str, Moments] = {}
        self._targets: dict[str, Float32] = {}
        self._epilogues: dict[str, Epilogue] = {}
        self.grids = TensorGrids(self, validation, method)
        self.removals: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._equalise = equalise
        self._equalised: Calibration | None = None

    @classmethod
    def of(cls, graph: LayerGraph, dataset: Dataset, *, rows: int = ROWS, threads: int = 1) -> Calibration:
        """Take a data set's calibration images, and its validation images to choose by."""
        images, validation = dataset.inputs(dataset.calibration), dataset.inputs(dataset.validation)
        return cls(graph, images, validation=validation, rows=rows, threads=threads)

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The operators of the network, in topological order."""
        return tuple(self.graph.model.graph.node)

    def anchor(self, layer: str) -> onnx.NodeProto:
        """Return the operator that a layer begins with."""
        return self._anchors[self.graph.layer(layer).nodes[0]]

    def is_thinned(self, layer: str) -> bool:
        """Tell whether a layer reads fewer channels than in the exact network."""
        return False

    def run(
        self,
        nodes: Sequence[onnx.NodeProto],
        arrays: Mapping[str, NDArray[Any]],
        feeds: Mapping[str, Float32],
        outputs: Sequence[str],
    ) -> dict[str, Float32]:
        """Run some nodes the way this network can be run; see `planner.execution.run_nodes`."""
        return run_nodes(nodes, arrays, feeds, outputs, opset=self.opset, batch=self.batch, threads=self._threads)

    def exact(self, tensor: str) -> Float32:
        """Return a tensor between layers as the exact network computes it, ``[image][...]``."""
        if not self._exact:
            wanted = [name for layer in self.graph.layers for name in layer.outputs]
            shapes = {name: (len(self.images), *self.graph.shapes[name][1:]) for name in wanted}
            large = 4 * sum(prod(shape) for shape in shapes.values()) > KEPT_BYTES
            values = self._on_disk(shapes) if large else self._run_all(self.images, wanted)
            self._exact = {**values, self.graph.input_name: self.images}
        return self._exact[tensor]

    def _run_all(self, images: Float32, wanted: Sequence[str]) -> dict[str, Float32]:
        return self.run(list(self.graph.model.graph.node), self.arrays, {self.graph.input_name: images}, wanted)

    def _on_disk(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float32]:
        """Compute tensors a few images at a time, into files that go with this object; pages in use are in memory."""
        self._folder = TemporaryDirectory(prefix="blinkplan-")
        _log.info("%s: activations are kept in %s", self.graph.name, self._folder.name)
        found: dict[str, Float32] = {}
        for number, (name, shape) in enumerate(shapes.items()):
            found[name] = np.memmap(Path(self._folder.name) / str(number), np.float32, "w+", shape=shape)
        each = 4 * sum(prod(shape[1:]) for shape in shapes.values())
        step = max(1, min(BATCH, KEPT_BYTES // each))
        for start in range(0, len(self.images), step):
            some = slice(start, start + step)
            for name, values in self._run_all(self.images[some], list(shapes)).items():
                found[name][some] = values.reshape(found[name][some].shape)
        return found

    def in_bytes(self, dtype: str) -> Calibration:
        """Return what a network that computes in a quantised format is made from: this, or the same equalised.

        Both compute the same in float32, to the last bit.
        """
        if self._equalise is False or (self._equalise is None and not self.grids.can_judge):
            return self
        if self._equalised is None:
            arrays = equalised(self.graph, self.views, self.arrays, self.exact)
            if all(arrays[name] is array for name, array in self.arrays.items()):
                self._equalise = False
                return self
            self._equalised = Calibration(
                self.graph,
                self.images,
                validation=self.grids.validation,
                method=self.grids.method,
                equalise=False,
                arrays=arrays,
                rows=self.rows,
                threads=self._threads,
            )
        twin = self._equalised
        better = self._equalise or twin.grids.distance(dtype) < self.grids.distance(dtype)
        return twin if better else self

    def grid(self, tensor: str, dtype: str) -> Grid:
        """Return the grid that a tensor between layers is rounded to in a quantised format."""
        return self.grids.grid(tensor, dtype)

    def epilogue(self, layer: str) -> Epilogue:
        """Return what follows a layer's anchor before another layer reads it."""
        if layer not in self._epilogues:
            readers = Counter(name for node in self._anchors.values() for name in node.input)
            readers[self.graph.output_name] += 1
            nodes = [self._anchors[name] for name in self.graph.layer(layer).nodes]
            self._epilogues[layer] = epilogue_of(nodes, readers, self.arrays)
        return self._epilogues[layer]

    def moments(self, layer: str) -> Moments:
        """Return the second moments of what a layer reads in the exact network."""
        if layer not in self._moments:
            view = self.views[layer]
            if view.linear is None:
                raise InputError(f"layer {layer!r} has no weights")
            inputs, shape = self._inputs(layer), view.output_shape
            self._moments[layer] = moments(view.linear, inputs, output_shape=shape, limit=self.rows)
        return self._moments[layer]

    def targets(self, layer: str) -> Float32:
        """Return a layer's exact anchor outputs at the sampled positions, ``[group][row][output]``."""
        if layer not in self._targets:
            view = self.views[layer]
            if view.linear is None:
                raise InputError(f"layer {layer!r} has no weights")
            positions = sample(view.linear, view.output_shape, len(self.images), rows=self.rows)
            self._targets[layer] = output_rows(view.linear, self._inputs(layer), positions, view.output_shape)
        return self._targets[layer]

    def _inputs(self, layer: str) -> Float32:
        return self.exact(self._anchors[self.graph.layer(layer).nodes[0]].input[0])
