"""What choices cost in accuracy: the loss they add on the same images, and the change of top-1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.batching import batchable
from planner.dataset import UNKNOWN
from planner.errors import InputError
from planner.execution import BATCH, run_model
from planner.judging import Judge, calibrated, cross_entropy

if TYPE_CHECKING:
    import onnx

    from planner.graph import LayerGraph

__all__ = ["Evaluator", "LossCost", "Progress", "compare", "hits", "losses", "scores_of"]

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
        top1_expected: Change of the top-1 accuracy that is expected where only the answers are compared, points: the
            exact network says how likely the old and the new one are right.  It is far less noisy.
        top1_expected_std: Its standard error, over images.
        images: Images that it was judged on; 0 where nothing was judged.
        stopped: Whether it was stopped before all images were judged, because it is hopeless.

    >>> LossCost(loss_raw=-0.001, loss_std=0.002, top1_change=0.1, top1_change_std=0.1, parameter_bytes=64).loss
    0.0
    """

    loss_raw: float
    loss_std: float
    top1_change: float
    top1_change_std: float
    parameter_bytes: int
    top1_expected: float = 0.0
    top1_expected_std: float = 0.0
    images: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Check that the figures are numbers and the errors not negative."""
        figures = (self.loss_raw, self.loss_std, self.top1_change, self.top1_change_std)
        more = (self.top1_expected, self.top1_expected_std)
        least = min(self.loss_std, self.top1_change_std, self.top1_expected_std, self.parameter_bytes)
        if not np.isfinite((*figures, *more)).all() or least < 0:
            raise InputError(
                f"loss figures {figures} and {self.parameter_bytes} bytes; expected finite ones, not below 0"
            )

    @property
    def loss(self) -> float:
        """The loss that planning counts: ``loss_raw``, but not below 0."""
        return max(0.0, self.loss_raw)


losses = cross_entropy


def hits(logits: Float32, labels: NDArray[np.int64], reference: Float32 | None = None) -> NDArray[np.bool_]:
    """Return for each image whether the highest score is the right class's.

    Args:
        logits: Class scores, ``[image][class]``.
        labels: Right classes; -1 where they are not known.
        reference: Class scores of the exact network, whose answers count as right where there are no labels.
    """
    if labels[0] == UNKNOWN:
        if reference is None:
            raise InputError("the images have no labels; expected the exact network's answers to compare with")
        labels = reference.argmax(axis=1)
    right: NDArray[np.bool_] = logits.argmax(axis=1) == labels
    return right


def compare(
    logits: Float32,
    reference: Float32,
    labels: NDArray[np.int64],
    *,
    parameter_bytes: int = 0,
    judge: Judge | None = None,
    likely: Float64 | None = None,
) -> LossCost:
    """Compare a network's answers with another's on the same images.

    Args:
        logits: Class scores of the one, ``[image][class]``.
        reference: Class scores of the other.
        labels: Right classes, or -1 where they are not known: then the loss is the divergence from the other's
            answers, and the change of top-1 the share of images on which both do not answer alike.
        parameter_bytes: What to report as such.
        judge: What is lost on an image; cross-entropy or divergence without.
        likely: How likely each class is for each image, as `planner.judging.calibrated` gives it from the other's
            answers; worked out on these images where it is left out.

    Returns:
        The mean of what is lost and the change of top-1, with paired standard errors.
    """
    increase = (judge or Judge()).lost(logits, reference, labels)
    change = 100.0 * (hits(logits, labels, reference).astype(np.float64) - hits(reference, labels, reference))
    if labels[0] == UNKNOWN:
        expected = change
    else:
        likely = calibrated(reference, labels) if likely is None else likely
        every = np.arange(len(labels))
        expected = 100.0 * (likely[every, logits.argmax(axis=1)] - likely[every, reference.argmax(axis=1)])
    return LossCost(
        loss_raw=float(increase.mean()),
        loss_std=_standard_error(increase),
        top1_change=float(change.mean()),
        top1_change_std=_standard_error(change),
        parameter_bytes=parameter_bytes,
        top1_expected=float(expected.mean()),
        top1_expected_std=_standard_error(expected),
        images=len(labels),
    )


def _standard_error(values: Float64) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def scores_of(model: onnx.ModelProto, outputs: Float32) -> Float32:
    """Return class scores, ``[image][class]``, from what a network gives.

    Where it ends in a softmax, the logarithms of its probabilities are scores as good.
    """
    if model.graph.node[-1].op_type == "Softmax":
        return np.log(np.maximum(outputs, np.float32(_TINY)))
    return outputs


class Evaluator:
    """Run a network's rewritings on labelled images, in batches where the network allows it.

    Attributes:
        graph: The exact network.
        images: Its inputs, ``[image][channel][row][column]``.
        labels: Right classes, ``[image]``, or -1 where they are not known.
    """

    def __init__(self, graph: LayerGraph, images: Float32, labels: NDArray[np.int64], *, threads: int = 1) -> None:
        """Check images and labels against the network; nothing runs yet."""
        if images.shape[1:] != graph.input_shape[1:] or images.shape[:1] != labels.shape:
            expected = ", ".join(str(length) for length in graph.input_shape[1:])
            raise InputError(
                f"images of shape {images.shape} with labels of shape {labels.shape}; "
                f"model {graph.name!r} expects (n, {expected}) and (n,)"
            )
        known = bool(len(labels)) and labels[0] != UNKNOWN
        if not len(labels) or (known and labels.min() < 0) or labels.max() >= graph.classes:
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
        return scores_of(model, run_model(model, self.images, batch=self._batch, threads=self._threads))

    def exact(self) -> Float32:
        """Return the exact network's class scores, computed once."""
        if self._exact is None:
            self._exact = self.logits(self.graph.model)
        return self._exact

    def cost(self, model: onnx.ModelProto, *, parameter_bytes: int = 0) -> LossCost:
        """Return what a network loses against the exact one."""
        return compare(self.logits(model), self.exact(), self.labels, parameter_bytes=parameter_bytes)
