"""Channels removed from whole classes of tensors, with the weights that read them refitted to what is left.

Which channels go is decided by optimal brain surgeon.  With G the second moments of a layer's inputs, removing a block
b of its columns W_b and correcting all others as well as can be adds tr(W_b·((G⁻¹)_bb)⁻¹·W_bᵀ) to the squared error of
its outputs (Hassibi and Stork, *Second order derivatives for network pruning: optimal brain surgeon*, NIPS 1993; of
groups of columns: Frantar and Alistarh, *Optimal brain compression*, NeurIPS 2022, section 4).  The channel that costs
least is removed, G⁻¹ and W are brought up to date, and so on.  Layers that read the same channel add up, each in shares
of its outputs' variance.  That channels can go from a trained network without training it again, if what reads them is
fitted by least squares, is from Kwon et al., *A fast post-training pruning framework for transformers* (NeurIPS 2022).

Masks stand behind the colon of a choice's name, ``int8:0.75>0.5``; `planner.masks.classes` tells which tensors share
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.errors import InputError
from planner.refit import ridge

if TYPE_CHECKING:
    from planner.calibration import Calibration
    from planner.linear import Linear, Moments
    from planner.masks.classes import ChannelClass

__all__ = ["CHOICES", "KIND", "Criterion", "apply", "kept", "offer", "removals", "without"]

KIND = "mask"
CHOICES = ("prune@0.75", "prune@0.5")

Criterion = Literal["surgeon", "norm"]
"""By what channels are chosen: by what their removal costs after correction, or by the size of what makes them."""

Indices = NDArray[np.int64]
Float64 = NDArray[np.float64]

_CAUTION = 0.1
"""Ridge while channels are chosen, as a share of the ridge of a fit: more of it keeps channels that say nothing."""
_FREE = 1e-9
_LEAST = 1e-30


def offer(view: LayerView) -> Offer:
    """Offer all shares: whether the classes of a layer can keep them is a matter of the network, not of the layer.

    See `planner.masks.choices.mask_offers`.
    """
    return Offer(choices=CHOICES) if min(view.output_shape[1:2], default=0) > 1 else Offer(reason="it has one channel")


def apply(context: Context, choice: str) -> Replacement:
    """Refuse: masks are dealt with before a layer is handed to approximations.

    Raises:
        InputError: Always.
    """
    raise InputError(f"layer {context.view.name!r}: {choice} is no part of a choice; expected masks like :0.75>0.5")


def removals(calibration: Calibration, found: ChannelClass, criterion: Criterion = "surgeon") -> Indices:
    """Return the channels of a class in the order in which they go, all of them.

    Args:
        calibration: The exact network's activations; it keeps the answer.
        found: The class.
        criterion: By what they are chosen.

    Returns:
        Channels of the class, the cheapest first.  Families take turns, so that each has lost the same share.
    """
    key = (found.name, criterion)
    if key not in calibration.removals:
        order = _by_norm(calibration, found) if criterion == "norm" else _by_surgeon(calibration, found)
        calibration.removals[key] = order
    return calibration.removals[key]


def kept(calibration: Calibration, found: ChannelClass, share: str, criterion: Criterion = "surgeon") -> Indices:
    """Return the channels that a class keeps, in ascending order; fewer are always among more."""
    order = removals(calibration, found, criterion)
    left: list[int] = []
    for family, count in zip(found.families, found.counts(share), strict=True):
        left.extend(order[np.isin(order, family)][-count:].tolist())
    return np.sort(np.array(left, np.int64))


def without(linear: Linear, moments: Moments, columns: Indices) -> Linear:
    """Return a layer that reads fewer inputs, its weights fitted to give on them what it gave on all.

    Args:
        linear: The layer, of one group.
        moments: Moments of all its inputs.
        columns: The products that are left, ascending.

    Returns:
        The layer with the weights V that minimise the mean square of V·u[columns] - W·u plus a ridge toward its own.
    """
    depth = linear.depth
    bias = np.zeros(linear.outputs) if linear.bias is None else linear.bias.astype(np.float64)
    full = np.concatenate([linear.matrix.astype(np.float64), bias[:, None]], axis=1)
    used = columns if linear.bias is None else np.append(columns, depth)
    rows = slice(0, depth if linear.bias is None else depth + 1)
    gram = moments.gram[0]
    old = full[:, used]
    small = gram[np.ix_(used, used)]
    strength = np.full(len(used), _FREE)
    strength[: len(columns)] += ridge(len(columns), moments) * np.diagonal(small)[: len(columns)].mean()
    miss = full[:, rows] @ gram[rows][:, used] - old @ small
    new = old + np.linalg.solve(small + np.diag(strength), miss.T).T
    weight = np.ascontiguousarray(new[:, : len(columns)], dtype=np.float32)
    channels = len(columns) * linear.weight.shape[1] // depth
    return replace(
        linear,
        weight=weight.reshape(linear.outputs, channels, *linear.weight.shape[2:]),
        bias=None if linear.bias is None else new[:, -1].astype(np.float32),
    )


def _by_norm(calibration: Calibration, found: ChannelClass) -> Indices:
    """Order channels by the squares of the weights that make them, as magnitude pruning does."""
    size = np.zeros(found.channels)
    for layer in found.producers:
        linear, tensor = calibration.views[layer].linear, calibration.anchor(layer).output[0]
        if linear is not None:
            np.add.at(size, found.places[tensor], np.square(linear.matrix.astype(np.float64)).sum(axis=1))
    return _in_turns(found, lambda alive: int(alive[np.argmin(size[alive])]))


def _by_surgeon(calibration: Calibration, found: ChannelClass) -> Indices:
    readers = [_Reader(calibration, found, layer) for layer in found.consumers]

    def cheapest(alive: Indices) -> int:
        channel = int(alive[np.argmin(sum(reader.costs(alive) for reader in readers))])
        for reader in readers:
            reader.remove(channel)
        return channel

    return _in_turns(found, cheapest)


def _in_turns(found: ChannelClass, cheapest: Callable[[Indices], int]) -> Indices:
    """Remove channels one after another, always from families that have the greatest share left."""
    left = [set(family.tolist()) for family in found.families]
    sizes = [len(family) for family in found.families]
    order: list[int] = []
    while len(order) < found.channels:
        shares = [len(channels) / size for channels, size in zip(left, sizes, strict=True)]
        alive = [sorted(channels) for channels, share in zip(left, shares, strict=True) if share == max(shares)]
        channel = cheapest(np.array(sorted(item for channels in alive for item in channels), np.int64))
        order.append(channel)
        for channels in left:
            channels.discard(channel)
    return np.array(order, np.int64)


class _Reader:
    """A layer that reads the channels of a class, while they are removed.

    Attributes:
        columns: Columns that each channel owns, ``[channel][column]``; none where the layer does not read it.
        ridge: What is added to the second moments, so that other weights change no more than is worth it.
        inverse: The inverse of the second moments of its inputs and 1, ``[column][column]``.
        weights: Its weights, corrected for what was removed, ``[output][column]``.
    """

    def __init__(self, calibration: Calibration, found: ChannelClass, layer: str) -> None:
        """Begin with all channels; weights are divided by the deviation of the layer's outputs."""
        linear = calibration.views[layer].linear
        if linear is None:
            raise InputError(f"layer {layer!r} has no weights that read channels")
        moments, size = calibration.moments(layer), linear.depth
        gram = moments.gram[0].copy()
        diagonal = np.arange(size)
        self.ridge = _CAUTION * ridge(size, moments) * float(np.diagonal(gram)[:size].mean()) + _FREE
        gram[diagonal, diagonal] += self.ridge
        gram[size, size] += _FREE
        weights = linear.matrix.astype(np.float64)
        spread = float(((weights @ moments.covariance[0]) * weights).sum())
        places = found.places[calibration.anchor(layer).input[0]]
        columns = diagonal.reshape(len(places), size // len(places))
        self.columns: list[Indices] = [columns[places == channel].ravel() for channel in range(found.channels)]
        self.inverse: Float64 = np.linalg.inv(gram)
        self.weights: Float64 = np.pad(weights, ((0, 0), (0, 1))) / np.sqrt(max(spread, _LEAST))

    def costs(self, alive: Indices) -> Float64:
        """Return what the outputs' squared error grows by without each of some channels."""
        found = np.zeros(len(alive))
        lengths = np.array([len(self.columns[channel]) for channel in alive])
        for length in set(lengths.tolist()) - {0}:
            some = np.flatnonzero(lengths == length)
            blocks = np.stack([self.columns[alive[place]] for place in some])
            inner = np.linalg.inv(self.inverse[blocks[:, :, None], blocks[:, None, :]])
            inner -= self.ridge * np.eye(length)  # what is removed misses nothing by being far from its own weights
            weights = self.weights[:, blocks].swapaxes(0, 1)
            found[some] = ((weights @ inner) * weights).sum(axis=(1, 2))
        return found

    def remove(self, channel: int) -> None:
        """Take a channel away, and correct the weights of the others for it."""
        gone = self.columns[channel]
        if not len(gone):
            return
        solved = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone])
        self.weights -= self.weights[:, gone] @ solved
        self.inverse -= self.inverse[:, gone] @ solved
        self.columns[channel] = gone[:0]
        left = np.sort(np.concatenate([*self.columns, np.array([len(self.inverse) - 1])]))
        if 2 * len(left) <= len(self.inverse):
            moved = np.zeros(len(self.inverse), np.int64)
            moved[left] = np.arange(len(left))
            self.columns = [moved[columns] for columns in self.columns]
            self.inverse, self.weights = self.inverse[np.ix_(left, left)], self.weights[:, left]
