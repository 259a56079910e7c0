"""One choice of the catalogue in all layers of a network that offer it, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import planner
from planner.calibration import Calibration
from planner.choices import MASK, Choice, approximation, modules
from planner.dataset import Dataset
from planner.graph import LayerGraph
from planner.masks.choices import everywhere as masked
from planner.masks.choices import share_of
from planner.masks.classes import masks_of
from planner.rewrite import EXACT, applicable

SHIPPED = ("quick", "resnet8", "vggs", "vgg16q")
ARITHMETIC = "int8"
"""What is composed with every form of storage, beside what the default catalogue composes."""
MASKED = ("exact", "int8", "int4w+int8", "spatial@0.5+int8")
"""Choices that are measured with masks too."""
WHOLE_SUMS = ", sums whole"
"""Behind a choice with masks: classes whose channels are sums of several layers' keep them all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One network, what it is calibrated with, and what its choices are judged by.

    Attributes:
        graph: The exact network.
        calibration: What it does on the calibration images.
        data: All test images, labelled.
        offered: The choices of each layer, those on request and all compositions included.
    """

    graph: LayerGraph
    calibration: Calibration
    data: Dataset
    offered: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.graph.name

    def images(self, count: int | None = None) -> NDArray[np.float32]:
        """Return test images as the network takes them, all or the first so many."""
        return self.data.inputs(self.data.test, first=count)


def subject(network: str, data: Path) -> Subject:
    """Read a network and its images.

    Args:
        network: Name of a shipped network, or the path of an ONNX file.
        data: Folder of the whole data set.
    """
    path = planner.shipped(f"models/{network}.onnx") if network in SHIPPED else Path(network)
    graph = planner.load(path).graph
    whole = planner.dataset.read(data)
    return Subject(
        graph=graph,
        calibration=Calibration.of(graph, whole),
        data=whole,
        offered=applicable(graph, [name for name, module in modules().items() if module.KIND != MASK]),
    )


def names(subject: Subject) -> tuple[str, ...]:
    """Return the choices worth a row: every single one, compositions that usually pay, storage in int8, masks."""
    every = list(dict.fromkeys(choice for offered in subject.offered.values() for choice in offered))
    usual = {choice for offered in applicable(subject.graph, "default").values() for choice in offered}

    def is_wanted(choice: str) -> bool:
        parts = parts_of(choice)
        stored = len(parts) == 2 and parts[-1] == ARITHMETIC and approximation(parts[0]).KIND == "storage"
        return len(parts) < 2 or choice in usual or stored

    shares = [share_of(name) for module in modules().values() if module.KIND == MASK for name in module.CHOICES]
    masks = [f"{base}:{share}>{share}" for base in MASKED if base in every for share in shares]
    if any(item.is_sum for item in masks_of(subject.graph).prunable):
        masks += [f"{choice}{WHOLE_SUMS}" for choice in masks]
    return (*(choice for choice in every if is_wanted(choice)), *masks)


def parts_of(choice: str) -> tuple[str, ...]:
    """Split a composition into single choices; ``exact`` is none.

    >>> parts_of("spatial@0.5+int8"), parts_of("exact+winograd"), parts_of("exact")
    (('spatial@0.5', 'int8'), ('winograd',), ())
    """
    return tuple(part for part in choice.partition(":")[0].split("+") if part != EXACT)


def chosen(subject: Subject, choice: str) -> dict[str, str]:
    """Put a choice everywhere in a network; one with masks in all classes of channels that can lose some.

    Args:
        subject: The network.
        choice: A choice; ``int8:0.75>0.75`` where all classes are to keep three quarters.

    Returns:
        A choice for each layer.
    """
    base, colon, masks = choice.partition(":")
    if not colon:
        return everywhere(subject.offered, choice)
    share = masks.partition(">")[0]
    # What a layer is offered depends on what is left of it.
    ways = [
        masked(subject.graph, share, what, sums=not choice.endswith(WHOLE_SUMS)) for what in (*_parts_left(base), EXACT)
    ]
    return {
        layer: next((way[layer] for way in ways if Choice.parse(way[layer]).parts), ways[-1][layer])
        for layer in ways[0]
    }


def _parts_left(choice: str) -> tuple[str, ...]:
    """Return a composition and what it may come down to: what comes first, its structure, is left the soonest."""
    parts = parts_of(choice)
    return (choice, *("+".join(parts[first:]) for first in range(1, len(parts))), *parts[:-1])


def everywhere(offered: Mapping[str, Iterable[str]], choice: str) -> dict[str, str]:
    """Give each layer a choice where it offers it, or as much of a composition as it offers, or else ``exact``.

    Args:
        offered: The choices of each layer.
        choice: The choice.

    Returns:
        A choice for each layer.

    >>> offered = {"conv1": ("exact", "int8"), "conv2": ("exact", "int8", "int4w+int8"), "pool1": ("exact",)}
    >>> everywhere(offered, "int4w+int8")
    {'conv1': 'int8', 'conv2': 'int4w+int8', 'pool1': 'exact'}
    """
    there = {layer: set(names_of_layer) for layer, names_of_layer in offered.items()}
    return {layer: next((name for name in _parts_left(choice) if name in there[layer]), EXACT) for layer in there}
