"""Which tensors of a network must lose the same channels, and which layers make, read or pass those on.

A channel that a layer does not make is missing wherever it would have gone: behind poolings and activations, in sums,
in parts of concatenations, in the columns of the next weights.  Channels are followed one by one through the operators,
those that meet in a sum are one, and tensors that have channels in common form a class: all of it keeps the same share.
What is not understood keeps its channels, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

if TYPE_CHECKING:
    from planner.choices import Choice
    from planner.graph import LayerGraph

__all__ = ["ChannelClass", "Masks", "masks_of"]

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClass:
    """Describe tensors that lose the same channels.

    Attributes:
        name: Name of the layer that first makes its channels; of its first tensor where none does.
        tensors: Names of the tensors, in topological order.
        producers: Layers whose outputs are its channels: rows of their weights go with the channels.
        consumers: Layers that multiply its channels by weights: columns of theirs go.
        passers: Layers whose anchor reads and writes it channel by channel: poolings, sums, depthwise convolutions.
        families: Channels that are made together, ``[family][channel]``.  Each family keeps the same share, as do the
            parts of a concatenation.
        places: For each tensor the channel at each position of its axis 1.
        reason: Why it keeps all its channels; empty where it need not.

    >>> ChannelClass(name="x", tensors=("x",), families=(np.arange(3),), places={}).count("0.75")
    2
    """

    name: str
    tensors: tuple[str, ...]
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    passers: tuple[str, ...] = ()
    families: tuple[Indices, ...] = field(repr=False, compare=False)
    places: Mapping[str, Indices] = field(repr=False, compare=False)
    reason: str = ""

    def __post_init__(self) -> None:
        """Check that there are channels."""
        if not sum(map(len, self.families)):
            raise InputError(f"class {self.name!r} has no channels")

    @property
    def is_sum(self) -> bool:
        """Whether a channel is the sum of what several layers make."""
        return len(self.producers) > len(self.families)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(len(family) for family in self.families)

    def counts(self, share: str) -> tuple[int, ...]:
        """Return how many channels of each family a share keeps: the nearest number, halves rounded to the even one.

        One is always left, and one is always taken from a family of two or more.
        """
        return tuple(
            max(1, min(len(family) - 1, round(float(share) * len(family)))) if len(family) > 1 else 1
            for family in self.families
        )

    def count(self, share: str) -> int:
        """Return how many channels a share keeps."""
        return sum(self.counts(share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Hold the classes of a network, and which of them each layer reads and writes.

    Attributes:
        network: Name of the network.
        classes: All classes, in topological order.
        reads: The class that each layer's anchor reads; layers whose anchor reads nothing are left out.
        writes: The class that each layer writes.
    """

    network: str
    classes: tuple[ChannelClass, ...]
    reads: Mapping[str, ChannelClass]
    writes: Mapping[str, ChannelClass]

    def __post_init__(self) -> None:
        """Check that each layer writes a class of this network."""
        names = {item.name for item in self.classes}
        if not {item.name for item in (*self.reads.values(), *self.writes.values())} <= names:
            raise InputError(f"model {self.network!r}: layers read or write classes that do not exist")

    @property
    def prunable(self) -> tuple[ChannelClass, ...]:
        """The classes that can lose channels."""
        return tuple(item for item in self.classes if not item.reason)

    def shares(self, choices: Mapping[str, Choice]) -> dict[str, str]:
        """Return the share of each class that loses channels, having checked that its layers agree.

        Args:
            choices: The choice of every layer.

        Returns:
            ``{class: share}``.

        Raises:
            InputError: Layers of one class ask for unlike shares, or for one that the class cannot keep.
        """
        asked: dict[str, dict[str, str]] = {}
        for layer, choice in choices.items():
            for side, share in ((self.reads, choice.reads), (self.writes, choice.writes)):
                if layer not in side:
                    if share:
                        raise InputError(f"model {self.network!r}, layer {layer!r}: it reads no channels")
                    continue
                found = side[layer]
                if share:
                    self._check(found, layer, str(choice), share)
                before = asked.setdefault(found.name, {}).get(layer, share)
                if before != share:
                    raise InputError(
                        f"model {self.network!r}, layer {layer!r}, choice {str(choice)!r}: it reads and writes the "
                        f"channels of {found.name!r}; expected one share on both sides"
                    )
                asked[found.name][layer] = share
        for name, by_layer in asked.items():
            if len(set(by_layer.values())) > 1:
                listed = ", ".join(f"{layer} {share or '1'}" for layer, share in by_layer.items())
                raise InputError(
                    f"model {self.network!r}: the layers of class {name!r} must keep the same share of its channels, "
                    f"not {listed}"
                )
        return {name: share for name, by_layer in asked.items() for share in set(by_layer.values()) if share}

    def _check(self, found: ChannelClass, layer: str, choice: str, share: str) -> None:
        label = f"model {self.network!r}, layer {layer!r}, choice {choice!r}"
        if found.reason:
            raise InputError(f"{label}: class {found.name!r} keeps its channels: {found.reason}")
        if not _is_share(share):
            raise InputError(f"{label}: mask {share!r}; expected a share between 0 and 1, such as 0.75")


def _is_share(text: str) -> bool:
    """Tell whether a text is a share, written the one way that shares are written."""
    try:
        value = float(text)
    except ValueError:
        return False
    return 0 < value < 1 and f"{value:g}" == text


@lru_cache(maxsize=8)
def masks_of(graph: LayerGraph) -> Masks:
    """Find the classes of a network's channels.

    Args:
        graph: The network.

    Returns:
        Its classes, those that cannot lose channels included, each with the reason.
    """
    from planner.masks.channels import follow

    return follow(graph)
