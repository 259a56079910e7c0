"""Grids of a network's tensors: which method places them, chosen by what the rounded network makes of its logits.

The methods of :mod:`planner.activations.ranges` disagree, and which is right depends on the network.  Each places the
grids of all tensors on calibration images; the network with its tensors and weights rounded is then run on validation
images, and the method is taken whose logits stay nearest to the exact ones, by the divergence of the classes'
probabilities (Kullback and Leibler).  Labels are not needed, and an image counts even where no answer changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.activations.boundaries import Rounding
from planner.activations.grids import LEVELS, Grid, rounded_weights
from planner.activations.ranges import DEFAULT, METHODS, Histogram, grid_of
from planner.errors import InputError
from planner.layering import in_order

if TYPE_CHECKING:
    import onnx

    from planner.calibration import Calibration
    from planner.graph import LayerGraph

__all__ = ["BEST", "TensorGrids", "divergence", "roots"]

Float32 = NDArray[np.float32]

BEST = "best"
"""Stands for the method that suits a network best: `planner.activations.ranges.DEFAULT` where no images decide."""

_IMAGES = 512
"""Validation images that a method is judged by."""
_KEEP_VALUES = frozenset({"MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose results are among what they read."""


def roots(graph: LayerGraph) -> dict[str, str]:
    """Return for each tensor between layers the one whose values it holds: itself, unless its layer only picks some.

    Both have the same grid, so that a maximum of bytes is that of the numbers, and no kernel has to round again.
    """
    nodes = {node.name: node for node in graph.model.graph.node}
    found = {graph.input_name: graph.input_name}
    for layer in graph.layers:
        operators = [nodes[name] for name in layer.nodes]
        keeps = all(node.op_type in _KEEP_VALUES for node in operators) and len(layer.inputs) == 1
        for tensor in layer.outputs:
            found[tensor] = found[layer.inputs[0]] if keeps else tensor
    return found


def divergence(logits: Float32, reference: Float32) -> float:
    """Return how far classes' probabilities are from those of a reference: the mean over images, natural units.

    >>> divergence(np.array([[0.0, 1.0]], np.float32), np.array([[5.0, 6.0]], np.float32))
    0.0
    """

    def logarithms(scores: Float32) -> NDArray[np.float64]:
        shifted = scores.reshape(len(scores), -1).astype(np.float64)
        shifted = shifted - shifted.max(axis=1, keepdims=True)
        result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return result

    right, got = logarithms(reference), logarithms(logits)
    return float(np.sum(np.exp(right) * (right - got), axis=1).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """Validation images and what the exact network says of them."""

    images: Float32
    logits: Float32


class TensorGrids:
    """Place and keep the grids of a network's tensors.

    Attributes:
        method: A method of `planner.activations.ranges`, or ``best``.
        validation: Images that it is chosen by, ``[image]...``, or None.
    """

    def __init__(self, calibration: Calibration, validation: Float32 | None, method: str) -> None:
        """Remember whose tensors they are; nothing runs yet.

        Raises:
            InputError: There is no such method, or the images do not suit the network.
        """
        if method not in {*METHODS, BEST}:
            raise InputError(f"unknown calibration method {method!r}; there are: {', '.join([BEST, *METHODS])}")
        shape = calibration.images.shape[1:]
        if validation is not None and (
            not len(validation) or validation.shape[1:] != shape or validation.dtype != np.float32
        ):
            raise InputError(
                f"model {calibration.graph.name!r}: validation images are {validation.dtype} of shape "
                f"{validation.shape}; expected float32, each of the shape {shape}"
            )
        self.method = method
        self._calibration = calibration
        self.validation = validation
        self._roots = roots(calibration.graph)
        self._histograms: dict[str, Histogram] = {}
        self._grids: dict[tuple[str, str, str], Grid] = {}
        self._chosen: dict[str, str] = {}
        self._distances: dict[tuple[str, str], float] = {}
        self._judged: _Judged | None = None

    def grid(self, tensor: str, dtype: str) -> Grid:
        """Return the grid of a tensor in a quantised format."""
        return self._placed(self._roots[tensor], dtype, self.chosen(dtype))

    def chosen(self, dtype: str) -> str:
        """Return the method that places the grids of a format."""
        if self.method != BEST:
            return self.method
        if self.validation is None:
            return DEFAULT
        if dtype not in self._chosen:
            self._chosen[dtype] = min(METHODS, key=lambda method: self.judge(dtype, method))
        return self._chosen[dtype]

    @property
    def can_judge(self) -> bool:
        """Whether there are validation images."""
        return self.validation is not None

    def distance(self, dtype: str) -> float:
        """Return how far the method that is taken leads the rounded network's logits from the exact ones."""
        return self.judge(dtype, self.chosen(dtype))

    def judge(self, dtype: str, method: str) -> float:
        """Return how far a method takes the rounded network's logits from the exact ones; see `divergence`.

        Raises:
            InputError: There are no validation images.
        """
        if (dtype, method) not in self._distances:
            judged = self._reference()
            grids = {root: self._placed(root, dtype, method) for root in dict.fromkeys(self._roots.values())}
            self._distances[dtype, method] = divergence(self._rounded(judged.images, grids, dtype), judged.logits)
        return self._distances[dtype, method]

    def _placed(self, root: str, dtype: str, method: str) -> Grid:
        key = (root, dtype, method)
        if key not in self._grids:
            if root not in self._histograms:
                self._histograms[root] = Histogram.of(self._calibration.exact(root))
            self._grids[key] = grid_of(self._histograms[root], LEVELS[dtype], method)
        return self._grids[key]

    def _reference(self) -> _Judged:
        if self._judged is None:
            if self.validation is None:
                raise InputError(f"model {self._calibration.graph.name!r}: no validation images to judge grids by")
            images, graph = self.validation[:_IMAGES], self._calibration.graph
            logits = self._run(list(graph.model.graph.node), self._calibration.arrays, images)
            self._judged = _Judged(images=images, logits=logits)
        return self._judged

    def _rounded(self, images: Float32, grids: Mapping[str, Grid], dtype: str) -> Float32:
        """Run the network with every tensor between layers, and every weight, rounded."""
        calibration = self._calibration
        graph, nodes = calibration.graph, list(calibration.graph.model.graph.node)
        rounding = Rounding("rounded")
        names = {}
        for tensor, grid in grids.items():
            if tensor != graph.output_name:
                names[tensor] = f"{tensor}.real"
                rounding.quantise(tensor, f"{tensor}.bytes", grid, dtype)
                rounding.dequantise(f"{tensor}.bytes", names[tensor], grid)
        weights = {}
        by_name = {node.name: node for node in nodes}
        for layer in graph.layers:
            view = calibration.views.get(layer.name)
            if view is not None and view.linear is not None:
                name = by_name[layer.nodes[0]].input[1]
                weights[name] = rounded_weights(calibration.arrays[name])
        copies = []
        for node in nodes:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.input[:] = [names.get(name, name) for name in node.input]
            copies.append(copy)
        return self._run(in_order([*copies, *rounding.nodes]), calibration.arrays | weights | rounding.arrays, images)

    def _run(self, nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, NDArray[Any]], images: Float32) -> Float32:
        graph = self._calibration.graph
        scores = self._calibration.run(nodes, arrays, {graph.input_name: images}, [graph.output_name])
        logits = scores[graph.output_name].reshape(len(images), -1)
        if graph.model.graph.node[-1].op_type == "Softmax":
            return np.log(np.maximum(logits, np.finfo(np.float32).tiny))
        return logits
