"""What choices lose together that they do not lose alone.

To second order, a softmax whose scores change by d loses g·d + ½ dᵀ(diag p - ppᵀ)d, so two choices that change the
scores by d_l and d_m lose, besides what each loses alone, Q_lm = E[d_lᵀ(diag p - ppᵀ)d_m]: the matrix of Gauss and
Newton, seen from the output (Martens, *New insights and perspectives on the natural gradient method*, JMLR 2020,
section 8).  It needs no measurement of two choices at once.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodels.errors import TableError

__all__ = ["Alone", "Interactions", "Together", "interactions"]

Float64 = NDArray[np.float64]

_FULL = 32767
"""A correlation of 1, as it is written."""
_VERSION = 1
_FIGURES = ("loss", "loss_std", "top1", "top1_std", "sizes")
_MILD = 4.0
"""Points beyond which a choice says nothing about small changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """State what some choices lose together.

    Attributes:
        loss: What is lost, nats or the unit of the user's metric: the sum of what each loses alone, and ``added``.
        loss_std: Its standard error.
        added: What is lost beyond the sum; changes that make up for each other make it negative.
        top1_change: Change of the top-1 accuracy that is expected, points; negative is worse.
        top1_std: Its standard error.

    >>> Together(loss=0.03, loss_std=0.01, added=0.005, top1_change=-1.0, top1_std=0.2).added
    0.005
    """

    loss: float
    loss_std: float
    added: float
    top1_change: float
    top1_std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Hold Q for every two of a model's choices, as correlations and sizes, and what each choice does alone.

    Attributes:
        entries: Layers and choices, in the order of the rows: choices without masks, and ``prune@`` with the share of
            the class whose channels the layer is the first to make.
        loss: What each loses alone, as measured; noise can make it negative.
        loss_std: Its standard error.
        top1: Change of the top-1 accuracy that is expected of each alone, points.
        top1_std: Its standard error.
        sizes: Square root of Q of each with itself, nats to the half; 0 where losses are not counted in nats.
        packed: Correlations Q_lm / (sizes_l sizes_m) above the diagonal, row by row, as little-endian 16-bit integers
            of 1/32767, in base64.
        version: Version of this form.

    >>> alone = Alone(loss=0.5, loss_std=0.1, top1=-1.0, top1_std=0.5, change=np.array([[1.0, -1.0]]))
    >>> both = interactions({("a", "x"): alone, ("b", "x"): alone}, np.zeros((1, 2)))
    >>> both.together([("a", "x"), ("b", "x")]).loss
    2.0
    """

    entries: tuple[tuple[str, str], ...]
    loss: tuple[float, ...]
    loss_std: tuple[float, ...]
    top1: tuple[float, ...]
    top1_std: tuple[float, ...]
    sizes: tuple[float, ...]
    packed: str = field(repr=False)
    version: int = 1

    def __post_init__(self) -> None:
        """Refuse what does not hang together."""
        for name in _FIGURES:
            object.__setattr__(self, name, tuple(float(number) for number in getattr(self, name)))
        object.__setattr__(self, "entries", tuple((str(layer), str(choice)) for layer, choice in self.entries))
        count = len(self.entries)
        if self.version != _VERSION:
            raise TableError(f"the interactions have version {self.version!r}; expected {_VERSION}")
        if len(set(self.entries)) < count:
            raise TableError("a choice has two rows of interactions; expected one")
        figures = [number for name in _FIGURES for number in getattr(self, name)]
        least = min((*self.sizes, *self.loss_std, *self.top1_std), default=0.0)
        if not all(math.isfinite(number) for number in figures) or least < 0:
            raise TableError("figures of the interactions are not finite, or sizes or errors are negative")
        if {len(getattr(self, name)) for name in _FIGURES} != {count}:
            raise TableError(f"the interactions list {count} choices; expected as many of {', '.join(_FIGURES)}")
        try:
            held = len(base64.b64decode(self.packed, validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise TableError("the correlations of the interactions are not base64") from None
        if held != count * (count - 1):
            raise TableError(f"{held} bytes of correlations of {count} choices; expected {count * (count - 1)}")

    @property
    def correlations(self) -> Float64:
        """Correlations of every two choices' changes, ``[row][row]``, 1 on the diagonal."""
        return _unpacked(self.packed, len(self.entries))

    def rows(self, chosen: Iterable[tuple[str, str]]) -> list[int]:
        """Return the rows of choices; those without a row change nothing.

        Args:
            chosen: Layers and choices, as in ``entries``.
        """
        places = {entry: row for row, entry in enumerate(self.entries)}
        return [places[entry] for entry in chosen if entry in places]

    def together(self, chosen: Iterable[tuple[str, str]]) -> Together:
        """Return what choices lose together.

        Args:
            chosen: Layers and choices, as in ``entries``; each layer once.
        """
        rows = self.rows(chosen)
        loss, loss_std, top1, top1_std, sizes = (np.array(getattr(self, name))[rows] for name in _FIGURES)
        correlations = self.correlations[np.ix_(rows, rows)]
        whole = sizes[:, None] * correlations * sizes
        added = float((whole.sum() - np.trace(whole)) / 2)
        # What two choices do to the same images alike, they err in alike; the rest is taken as independent.
        alike = np.maximum(correlations, 0.0)
        return Together(
            loss=float(loss.sum()) + added,
            loss_std=float(np.sqrt(loss_std @ alike @ loss_std)),
            added=added,
            top1_change=float(top1.sum()),
            top1_std=float(np.sqrt(top1_std @ alike @ top1_std)),
        )

    @property
    def slope(self) -> float:
        """Points of top-1 for each nat of ½Q, fitted through the origin.

        Both are quadratic in small changes: an image whose two best classes are m apart in score loses, where a change
        of d turns them round, about m/4 of the chance to be right, and it is turned round for m < d.
        """
        halves, top1 = np.square(self.sizes) / 2, np.array(self.top1)
        used = top1 > -_MILD
        square = float(np.sum(halves[used] ** 2))
        return float(np.sum(halves[used] * top1[used])) / square if square > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alone:
    """State what one choice does alone.

    Attributes:
        loss: What it loses.
        loss_std: Its standard error.
        top1: Change of the top-1 accuracy that is expected, points.
        top1_std: Its standard error.
        change: By how much it changes the class scores, ``[image][class]``; the first images where it was judged on
            no more.

    >>> Alone(loss=0.5, loss_std=0.1, top1=-1.0, top1_std=0.5, change=np.zeros((1, 2))).loss
    0.5
    """

    loss: float
    loss_std: float
    top1: float
    top1_std: float
    change: NDArray[np.floating[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        """Check the form of the change."""
        if self.change.ndim != 2 or not len(self.change):
            raise TableError(f"changes of shape {self.change.shape}; expected [image][class]")


@lru_cache(maxsize=16)
def _unpacked(packed: str, count: int) -> Float64:
    found = np.eye(count)
    above = np.frombuffer(base64.b64decode(packed), "<i2") / _FULL
    found[np.triu_indices(count, 1)] = above
    whole: Float64 = found + np.triu(found, 1).T
    whole.setflags(write=False)
    return whole


def interactions(
    alone: Mapping[tuple[str, str], Alone], exact: NDArray[np.floating[Any]], *, nats: bool = True
) -> Interactions:
    """Work out Q from what single choices do to the class scores.

    Args:
        alone: What each choice of each layer does.
        exact: Class scores of the exact network on the same images, ``[image][class]``.
        nats: Whether losses are counted in nats, as cross-entropy and divergence are; for others Q says nothing of
            the size of what is added, and only the correlations are kept.

    Returns:
        The interactions.
    """
    scores = exact.astype(np.float64)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    whole = np.zeros((len(alone), likely.size), np.float32)
    seen = np.zeros(len(alone))
    for row, single in enumerate(alone.values()):
        seen[row] = len(single.change)
        p, d = likely[: len(single.change)], single.change.astype(np.float64)
        # With the mean under p taken off, Q is a plain product: E[dᵀ diag(p) d].
        centred = np.sqrt(p) * (d - (p * d).sum(axis=1, keepdims=True))
        whole[row, : centred.size] = centred.ravel()
    products = (whole @ whole.T).astype(np.float64) / np.maximum(np.minimum(seen[:, None], seen), 1)
    sizes = np.sqrt(np.diagonal(products))
    scale = np.where(sizes > 0, sizes, 1.0)
    correlations = np.clip(products / scale[:, None] / scale, -1.0, 1.0)
    above = np.round(correlations[np.triu_indices(len(alone), 1)] * _FULL).astype("<i2")

    def brief(numbers: Iterable[float]) -> tuple[float, ...]:
        return tuple(float(f"{number:.6g}") for number in numbers)

    return Interactions(
        entries=tuple(alone),
        loss=brief(single.loss for single in alone.values()),
        loss_std=brief(single.loss_std for single in alone.values()),
        top1=brief(single.top1 for single in alone.values()),
        top1_std=brief(single.top1_std for single in alone.values()),
        sizes=brief(sizes if nats else 0.0 * sizes),
        packed=base64.b64encode(above.tobytes()).decode("ascii"),
    )
