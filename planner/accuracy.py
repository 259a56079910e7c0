"""What choices cost in accuracy: the cross-entropy they add on labelled images, and the change of top-1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.batching import batchable
from planner.calibration import Calibration
from planner.errors import InputError
from planner.execution import BATCH, run_model
from planner.masks.choices import alone
from planner.rewrite import EXACT, apply

if TYPE_CHECKING:
    import onnx

    from planner.dataset import Dataset
    from planner.graph import LayerGraph

__all__ = ["Evaluator", "LossCost", "Progress", "compare", "hits", "losses", "measure_losses"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Progress = Callable[[str, str, "LossCost"], None]
"""Called with the layer and the choice that have just been measured, and what was found."""

_TINY = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCost:
    """State what one network loses against another on the same images.

    Attributes:
        loss_raw: Increase of the mean cross-entropy; noise can make it negative.
        loss_std: Its standard error, over images paired with themselves.
        top1_change: Change of the top-1 accuracy, points; negative is worse.
        top1_change_std: Its standard error, paired.
        parameter_bytes: Bytes of the layer's weights, biases and scales under the choice.

    >>> LossCost(loss_raw=-0.001, loss_std=0.002, top1_change=0.1, top1_change_std=0.1, parameter_bytes=64).loss
    0.0
    """

    loss_raw: float
    loss_std: float
    top1_change: float
    top1_change_std: float
    parameter_bytes: int

    def __post_init__(self) -> None:
        """Check that the figures are numbers and the errors not negative."""
        figures = (self.loss_raw, self.loss_std, self.top1_change, self.top1_change_std)
        if not np.isfinite(figures).all() or self.loss_std < 0 or self.top1_change_std < 0 or self.parameter_bytes < 0:
            raise InputError(
                f"loss figures {figures} and {self.parameter_bytes} bytes; expected finite ones, not below 0"
            )

    @property
    def loss(self) -> float:
        """The loss that planning counts: ``loss_raw``, but not below 0."""
        return max(0.0, self.loss_raw)


def losses(logits: Float32, labels: NDArray[np.int64]) -> Float64:
    """Return the cross-entropy of each image.

    Args:
        logits: Class scores before the softmax, ``[image][class]``.
        labels: Right classes, ``[image]``.

    Returns:
        Natural logarithms, ``[image]``.

    >>> losses(np.zeros((1, 4), np.float32), np.array([2])).round(4).tolist()
    [1.3863]
    """
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    total: Float64 = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return total


def hits(logits: Float32, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each image whether the highest score is the right class's."""
    right: NDArray[np.bool_] = logits.argmax(axis=1) == labels
    return right


def compare(logits: Float32, reference: Float32, labels: NDArray[np.int64], *, parameter_bytes: int = 0) -> LossCost:
    """Compare a network's answers with another's on the same images.

    Args:
        logits: Class scores of the one, ``[image][class]``.
        reference: Class scores of the other.
        labels: Right classes.
        parameter_bytes: What to report as such.

    Returns:
        The increase of the mean cross-entropy and the change of top-1, with paired standard errors.
    """
    increase = losses(logits, labels) - losses(reference, labels)
    change = 100.0 * (hits(logits, labels).astype(np.float64) - hits(reference, labels))
    return LossCost(
        loss_raw=float(increase.mean()),
        loss_std=_standard_error(increase),
        top1_change=float(change.mean()),
        top1_change_std=_standard_error(change),
        parameter_bytes=parameter_bytes,
    )


def _standard_error(values: Float64) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


class Evaluator:
    """Run a network's rewritings on labelled images, in batches where the network allows it.

    Attributes:
        graph: The exact network.
        images: Its inputs, ``[image][channel][row][column]``.
        labels: Right classes, ``[image]``.
    """

    def __init__(self, graph: LayerGraph, images: Float32, labels: NDArray[np.int64], *, threads: int = 1) -> None:
        """Check images and labels against the network; nothing runs yet."""
        if images.shape[1:] != graph.input_shape[1:] or images.shape[:1] != labels.shape:
            expected = ", ".join(str(length) for length in graph.input_shape[1:])
            raise InputError(
                f"images of shape {images.shape} with labels of shape {labels.shape}; "
                f"model {graph.name!r} expects (n, {expected}) and (n,)"
            )
        if not len(labels) or labels.min() < 0 or labels.max() >= graph.classes:
            found = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
            raise InputError(f"labels are {found}; model {graph.name!r} has classes 0 to {graph.classes - 1}")
        self.graph = graph
        self.images = images
        self.labels = labels
        self._threads = threads
        self._batch = BATCH if batchable(graph.model, graph.shapes) else 1
        self._exact: Float32 | None = None

    def logits(self, model: onnx.ModelProto) -> Float32:
        """Return a network's class scores, ``[image][class]``.

        Where the network ends in a softmax, the logarithms of its probabilities are scores as good.
        """
        scores = run_model(model, self.images, batch=self._batch, threads=self._threads)
        if model.graph.node[-1].op_type == "Softmax":
            return np.log(np.maximum(scores, np.float32(_TINY)))
        return scores

    def exact(self) -> Float32:
        """Return the exact network's class scores, computed once."""
        if self._exact is None:
            self._exact = self.logits(self.graph.model)
        return self._exact

    def cost(self, model: onnx.ModelProto, *, parameter_bytes: int = 0) -> LossCost:
        """Return what a network loses against the exact one."""
        return compare(self.logits(model), self.exact(), self.labels, parameter_bytes=parameter_bytes)


def measure_losses(
    graph: LayerGraph,
    dataset: Dataset,
    choices: Mapping[str, Sequence[str]],
    *,
    refit: bool = True,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
    threads: int = 1,
) -> dict[tuple[str, str], LossCost]:
    """Measure what each choice of each layer loses, all other layers being exact.

    Args:
        graph: The network.
        dataset: Approximations are calibrated on its calibration images, losses measured on its validation
            images.
        choices: The choices of each layer, as `planner.rewrite.applicable` returns them; ``prune@`` and a share for
            the class of channels that the layer is the first to make.
        refit: Whether the layers behind the approximated one are refitted.
        progress: Called after each choice.
        calibration: The network on the calibration images, where that is at hand already.
        threads: Threads of onnxruntime.

    Returns:
        ``{(layer, choice): cost}``; ``exact`` loses nothing.
    """
    calibration = calibration or Calibration.of(graph, dataset, threads=threads)
    validation = dataset.validation
    evaluator = Evaluator(graph, dataset.inputs(validation), validation.labels, threads=threads)
    measured = {}
    for layer, names in choices.items():
        for choice in names:
            if choice == EXACT:
                model, size = graph.model, graph.layer(layer).parameter_bytes
            else:
                rewritten = apply(graph, alone(graph, layer, choice), calibration, refit=refit)
                model, size = rewritten.model, rewritten.parameter_bytes[layer]
            measured[layer, choice] = (
                compare(evaluator.exact(), evaluator.exact(), evaluator.labels, parameter_bytes=size)
                if choice == EXACT
                else evaluator.cost(model, parameter_bytes=size)
            )
            if progress is not None:
                progress(layer, choice, measured[layer, choice])
    return measured
