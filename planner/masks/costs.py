"""What choices with masks cost: which networks have to be built for it, and whose loss a removed channel is.

Time and bytes of ``a:i>o`` are measured in networks whose classes keep shares in such a pattern that every layer reads
and writes every two of them somewhere.  The accuracy that a class loses with its channels is measured once, the class
alone and what reads it refitted, and booked on the layer that makes them first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from planner.choices import EXACT, Choice, formats
from planner.masks.classes import masks_of

if TYPE_CHECKING:
    from costmodels import Format
    from planner.accuracy import LossCost
    from planner.graph import LayerGraph

__all__ = [
    "is_joined",
    "is_masked",
    "loss_of",
    "mask_builds",
    "pairs_to_measure",
    "random_plan",
    "random_shares",
    "read_format",
]

_WHOLE = "1"


def is_masked(choice: str) -> bool:
    """Tell whether a choice reads or writes fewer channels than there are.

    >>> is_masked("int8:1>0.5"), is_masked("int8")
    (True, False)
    """
    read = Choice.parse(choice)
    return bool(read.reads or read.writes)


def is_joined(graph: LayerGraph, source: str, target: str) -> bool:
    """Tell whether a layer only adds to its output what another one makes, so that it has the channels of that."""
    anchor = graph.layer(target).nodes[0]
    node = next(item for item in graph.model.graph.node if item.name == anchor)
    return not set(graph.layer(source).outputs).intersection(node.input)


def read_format(graph: LayerGraph, layer: str, choice: str, *, joins: bool) -> Format:
    """Return the format in which a layer reads a tensor under a choice.

    Args:
        graph: The network.
        layer: The layer.
        choice: Its choice.
        joins: Whether the layer only adds the tensor to its output.
    """
    reads, writes = formats(graph, layer, choice)
    return replace(reads, mask=writes.mask) if joins else reads


def _parts(choice: str) -> tuple[str, str, str]:
    """Return a choice without masks, and what it reads and writes.

    >>> _parts("int8:1>0.5")
    ('int8', '1', '0.5')
    """
    read = Choice.parse(choice)
    return str(replace(read, reads="", writes="")), read.reads or _WHOLE, read.writes or _WHOLE


def _levels(choices: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the shares that occur, all channels first."""
    found = {_WHOLE: None}
    for offered in choices.values():
        for name in offered:
            found |= dict.fromkeys(_parts(name)[1:])
    return list(found)


def mask_builds(graph: LayerGraph, choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return networks in which every layer takes each of its choices with masks at least once.

    Classes that one layer reads and writes have unlike colours.  A colour is a direction in the space of vectors over a
    field of as many numbers as there are shares, and each vector is a network: by two unlike directions every two
    shares occur together (Bose and Bush, *Orthogonal arrays of strength two and three*, 1952).  Up to four colours and
    three shares that is nine networks.

    Args:
        graph: The network.
        choices: The choices of each layer.

    Returns:
        The choice of every layer in each network, for each choice that has masks in turn; none where nothing has.
    """
    bases = dict.fromkeys(_parts(name)[0] for offered in choices.values() for name in offered if is_masked(name))
    if not bases:
        return []
    levels = _levels(choices)
    colours = _colours(graph)
    seen = {(layer, name) for layer, offered in choices.items() for name in offered if not is_masked(name)}
    found = []
    for base, row in product(bases, _rows(len(levels), max(colours.values(), default=0) + 1)):
        shares = {name: levels[row[colour] % len(levels)] for name, colour in colours.items()}
        chosen = _chosen(graph, choices, shares, base)
        if not seen.issuperset(chosen.items()):
            found.append(chosen)
            seen.update(chosen.items())
    return found


def _colours(graph: LayerGraph) -> dict[str, int]:
    """Number the classes that can lose channels so that no layer reads and writes two of the same number."""
    masks = masks_of(graph)
    beside: dict[str, set[str]] = {found.name: set() for found in masks.prunable}
    for layer in graph.layers:
        ends = {side[layer.name].name for side in (masks.reads, masks.writes) if layer.name in side}
        for name in ends & set(beside):
            beside[name] |= ends - {name}
    colours: dict[str, int] = {}
    for name, others in beside.items():
        taken = {colours[other] for other in others if other in colours}
        colours[name] = next(colour for colour in range(len(beside)) if colour not in taken)
    return colours


def _rows(levels: int, colours: int) -> Iterator[tuple[int, ...]]:
    """Yield numbers for each colour, so that every two numbers of every two colours occur together."""
    prime = next(number for number in range(levels, 2 * levels + 1) if all(number % n for n in range(2, number)))
    length = next(n for n in range(1, colours + 2) if (prime**n - 1) // (prime - 1) >= colours)
    length = max(length, 2)
    directions = [
        vector
        for vector in product(range(prime), repeat=length)
        if next((number for number in vector if number), 0) == 1
    ]
    for row in product(range(prime), repeat=length):
        yield tuple(int(np.dot(direction, row)) % prime for direction in directions[:colours])


def _chosen(
    graph: LayerGraph, choices: Mapping[str, Sequence[str]], shares: Mapping[str, str], base: str
) -> dict[str, str]:
    """Return for each layer the choice with the shares of its classes: the one asked for, or the first of its type."""
    dtype = Choice.parse(base).dtype
    chosen = {}
    for layer, offered in choices.items():
        fitting = list(_fitting(graph, layer, offered, shares))
        alike = [name for name in fitting if Choice.parse(name).dtype == dtype]
        exactly = [name for name in fitting if _parts(name)[0] == base]
        chosen[layer] = [*exactly, *alike, *fitting][0]
    return chosen


def _fitting(graph: LayerGraph, layer: str, offered: Sequence[str], shares: Mapping[str, str]) -> Iterator[str]:
    """Yield the choices of a layer that read and write the shares of its classes."""
    masks = masks_of(graph)
    ends = [side[layer].name if layer in side else "" for side in (masks.reads, masks.writes)]
    wanted = tuple(shares.get(name, _WHOLE) for name in ends)
    return (name for name in offered if _parts(name)[1:] == wanted)


def random_plan(graph: LayerGraph, choices: Mapping[str, Sequence[str]], random: np.random.Generator) -> dict[str, str]:
    """Return a random choice for each layer; the layers of a class agree on its share."""
    return {layer: str(random.choice(list(fit))) for layer, fit in random_shares(graph, choices, random).items()}


def random_shares(
    graph: LayerGraph, choices: Mapping[str, Sequence[str]], random: np.random.Generator
) -> dict[str, tuple[str, ...]]:
    """Return for each layer the choices that fit, where each class keeps a random share of its channels."""
    levels = _levels(choices)
    shares = {found.name: str(random.choice(levels)) for found in masks_of(graph).prunable} if len(levels) > 1 else {}
    return {layer: tuple(_fitting(graph, layer, offered, shares)) for layer, offered in choices.items()}


def pairs_to_measure(graph: LayerGraph, choices: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return what has to be measured for the losses of all choices.

    Args:
        graph: The network.
        choices: The choices of each layer.

    Returns:
        Layers with their choices without masks, and then classes, by the layer that makes their channels first, with
        ``prune@`` and each share that it writes.
    """
    pairs = [(layer, name) for layer, offered in choices.items() for name in offered if not is_masked(name)]
    first = {found.name for found in masks_of(graph).prunable}
    written = {
        (layer, f"prune@{_parts(name)[2]}"): None
        for layer, offered in choices.items()
        for name in offered
        if layer in first and _parts(name)[2] != _WHOLE
    }
    return [*((layer, name) for layer, name in pairs if name != EXACT), *written]


def loss_of(layer: str, choice: str, losses: Mapping[tuple[str, str], LossCost]) -> LossCost | None:
    """Return the loss of a choice: what it loses without masks, and what the class loses that it writes first.

    Args:
        layer: The layer.
        choice: Its choice.
        losses: What was measured of `pairs_to_measure`.

    Returns:
        The sum; its errors as of independent measurements.  None where nothing is lost.
    """
    from planner.accuracy import LossCost

    base, _, writes = _parts(choice)
    parts = [losses[key] for key in ((layer, base), (layer, f"prune@{writes}")) if key in losses]
    if not parts:
        return None
    return LossCost(
        loss_raw=sum(part.loss_raw for part in parts),
        loss_std=float(np.hypot.reduce([part.loss_std for part in parts])),
        top1_change=sum(part.top1_change for part in parts),
        top1_change_std=float(np.hypot.reduce([part.top1_change_std for part in parts])),
        parameter_bytes=parts[0].parameter_bytes,
        top1_expected=sum(part.top1_expected for part in parts),
        top1_expected_std=float(np.hypot.reduce([part.top1_expected_std for part in parts])),
        images=min(part.images for part in parts),
        stopped=any(part.stopped for part in parts),
    )
