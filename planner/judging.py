"""How a network's answers are judged against the exact network's: what is lost for each image.

With labels the loss is the cross-entropy added; without, the divergence from the exact network's answers (the exact
network then stands for the truth, and top-1 is the share of images on which both answer alike).  A user may bring any
other loss as a function.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.dataset import UNKNOWN
from planner.errors import InputError

__all__ = ["Judge", "Metric", "calibrated", "cross_entropy", "divergence", "log_softmax"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.int64]
Metric = Callable[[Float32, Labels], Any]
"""Given class scores ``[image][class]`` and labels ``[image]``, -1 where they are not known, it returns a figure for
each image, of which less is better."""

_WIDEST = 4.0
_STEPS = 60


def log_softmax(scores: NDArray[np.floating[Any]]) -> Float64:
    """Return the logarithms of the probabilities that class scores stand for, ``[image][class]``.

    >>> log_softmax(np.zeros((1, 4), np.float32)).round(4).tolist()
    [[-1.3863, -1.3863, -1.3863, -1.3863]]
    """
    wide = scores.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    found: Float64 = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def cross_entropy(scores: Float32, labels: Labels) -> Float64:
    """Return the cross-entropy of each image, in natural logarithms.

    >>> cross_entropy(np.zeros((1, 4), np.float32), np.array([2])).round(4).tolist()
    [1.3863]
    """
    found: Float64 = -log_softmax(scores)[np.arange(len(labels)), labels]
    return found


def divergence(scores: Float32, reference: Float32) -> Float64:
    """Return the Kullback-Leibler divergence of each image's answer from the exact network's, in nats.

    >>> divergence(np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)).tolist()
    [0.0]
    """
    exact = log_softmax(reference)
    found: Float64 = (np.exp(exact) * (exact - log_softmax(scores))).sum(axis=1)
    return np.maximum(found, 0.0)


def calibrated(reference: Float32, labels: Labels) -> Float64:
    """Return how likely each class is for each image, ``[image][class]``: the exact network's word, tempered.

    The temperature is the one under which its answers fit the labels best (Guo, Pleiss, Sun and Weinberger, *On
    calibration of modern neural networks*, ICML 2017), found by golden section.  Where there are no labels it is 1.

    Args:
        reference: Class scores of the exact network.
        labels: Right classes, or -1 where they are not known.
    """
    if labels[0] == UNKNOWN:
        return np.exp(log_softmax(reference))
    low, high = -np.log(_WIDEST), np.log(_WIDEST)
    ratio = (np.sqrt(5.0) - 1) / 2

    def misfit(place: float) -> float:
        return float(cross_entropy(reference / np.float32(np.exp(place)), labels).mean())

    for _ in range(_STEPS):
        one, other = high - ratio * (high - low), low + ratio * (high - low)
        if misfit(one) < misfit(other):
            high = other
        else:
            low = one
        if high - low < 1e-3:
            break
    return np.exp(log_softmax(reference / np.float32(np.exp((low + high) / 2))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Say what is lost, image by image.

    Attributes:
        metric: The user's own loss; None for cross-entropy, or divergence where there are no labels.

    >>> Judge().name(np.array([3])), Judge().name(np.array([-1]))
    ('cross-entropy', 'divergence')
    """

    metric: Metric | None = field(default=None)

    def name(self, labels: Labels) -> str:
        """Return what the loss is called: for the user's own, the name of the function."""
        if self.metric is not None:
            return str(getattr(self.metric, "__qualname__", type(self.metric).__qualname__))
        return "divergence" if labels[0] == UNKNOWN else "cross-entropy"

    @property
    def digest(self) -> str:
        """What tells one metric from another: the SHA-256 of its source where that can be read; nothing without one."""
        if self.metric is None:
            return ""
        try:
            text = inspect.getsource(self.metric)
        except (OSError, TypeError):  # built in, or of a class of its own
            code = getattr(self.metric, "__code__", None)
            text = code.co_code.hex() + repr(code.co_consts) if code else repr(type(self.metric))
        where = getattr(self.metric, "__module__", "")
        return hashlib.sha256(f"{where} {self.name(np.zeros(1, np.int64))} {text}".encode()).hexdigest()

    def is_nats(self) -> bool:
        """Tell whether what is lost is counted in nats."""
        return self.metric is None

    def lost(self, scores: Float32, reference: Float32, labels: Labels) -> Float64:
        """Return what is lost on each image against the exact network.

        Args:
            scores: Class scores of the network, ``[image][class]``.
            reference: Class scores of the exact one.
            labels: Right classes, -1 where they are not known.

        Raises:
            InputError: The user's metric does not give one finite number for each image.
        """
        if self.metric is not None:
            return self._figures(scores, labels) - self._figures(reference, labels)
        if labels[0] == UNKNOWN:
            return divergence(scores, reference)
        return cross_entropy(scores, labels) - cross_entropy(reference, labels)

    def _figures(self, scores: Float32, labels: Labels) -> Float64:
        if self.metric is None:
            raise InputError("there is no metric to ask")
        found = np.asarray(self.metric(scores.copy(), labels.copy()))
        if found.shape != labels.shape or found.dtype.kind not in "fiub" or not np.isfinite(found).all():
            raise InputError(
                f"the metric {self.name(labels)!r} gave {found.dtype} of shape {found.shape}, or what is not finite; "
                f"expected a finite number for each of {len(labels)} images"
            )
        return found.astype(np.float64)
