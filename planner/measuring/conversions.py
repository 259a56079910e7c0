"""What it costs that layers of unlike formats meet: measured where they do.

Networks are built in which neighbours compute with unlike numbers.  What a layer takes there beyond what it takes among
its like is the cost of turning numbers from one format into another, and belongs to the edges where formats differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from costmodels import Conversion, EdgeCosts
from planner.choices import Choice, formats
from planner.masks.costs import is_joined, read_format

if TYPE_CHECKING:
    from costmodels import Format
    from planner.graph import LayerGraph

__all__ = ["Observation", "edge_costs", "patterns", "representatives"]

_ATTEMPTS = 16
"""Random patterns that are tried for edges on which the regular ones show no conversion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Hold what a layer was seen to take in one build.

    Attributes:
        choices: The choice of every layer in that build.
        layer: The layer.
        excess_ns: Nanoseconds beyond what the same choice takes in the build that its cost was taken from.
    """

    choices: Mapping[str, str]
    layer: str
    excess_ns: float

    def __post_init__(self) -> None:
        """Refuse a layer without a choice."""
        if self.layer not in self.choices:
            raise ValueError(f"layer {self.layer!r} has no choice; there are: {', '.join(self.choices)}")


def representatives(choices: Sequence[str]) -> dict[str, str]:
    """Return, for each type that a layer can compute with, the choice that stands for it: the first.

    >>> representatives(("exact", "lowrank@0.5", "int8", "lowrank@0.5+int8"))
    {'float32': 'exact', 'int8': 'int8'}
    """
    found: dict[str, str] = {}
    for name in choices:
        choice = Choice.parse(name)
        if not (choice.reads or choice.writes):
            found.setdefault(choice.dtype, name)
    return found


def patterns(graph: LayerGraph, choices: Mapping[str, Sequence[str]], *, seed: int = 0) -> list[dict[str, str]]:
    """Return builds in which every edge that can convert one format into another does so.

    Args:
        graph: The network.
        choices: The choices of each layer.
        seed: Seed of the patterns that are tried where taking turns along the network is not enough.

    Returns:
        The choice of every layer in each build: for each two types that layers can compute with, layers take turns.
        Nothing where all layers compute with the same.
    """
    offered = {layer: representatives(names) for layer, names in choices.items()}
    types = sorted({dtype for found in offered.values() for dtype in found})
    depth = _depths(graph)
    random = np.random.default_rng(seed)
    found: list[dict[str, str]] = []
    for pair in combinations(types, 2):
        missing = {
            (edge.source, edge.target, one, other)
            for edge in graph.edges
            for one, other in (pair, pair[::-1])
            if one in offered[edge.source] and other in offered[edge.target]
        }
        # Two of one kind, then two of the other: a conversion is seen at a layer that writes without one at what it
        # reads, and the other way round.
        regular = [{layer: (depth[layer] + start) // 2 % 2 for layer in offered} for start in range(4)]
        tried = [
            dict(zip(offered, random.integers(0, 2, len(offered)).tolist(), strict=True)) for _ in range(_ATTEMPTS)
        ]
        for number, turn in enumerate((*regular, *tried)):
            wanted = {layer: pair[which] for layer, which in turn.items()}
            taken = {
                layer: kind if kind in offered[layer] else next(iter(offered[layer])) for layer, kind in wanted.items()
            }
            seen = {item for item in missing if taken[item[0]] == item[2] and taken[item[1]] == item[3]}
            chosen = {layer: offered[layer][kind] for layer, kind in taken.items()}
            unlike = any(taken[edge.source] != taken[edge.target] for edge in graph.edges)
            if (seen or (number < len(regular) and unlike)) and chosen not in found:
                found.append(chosen)
            missing -= seen
    return found


def _depths(graph: LayerGraph) -> dict[str, int]:
    """Return the length of the longest way to each layer."""
    depth = {layer.name: 0 for layer in graph.layers}
    for layer in graph.layers:
        reached = [depth[edge.source] + 1 for edge in graph.edges if edge.target == layer.name]
        depth[layer.name] = max(reached, default=0)
    return depth


def edge_costs(
    graph: LayerGraph, choices: Mapping[str, Sequence[str]], observations: Sequence[Observation], *, scale: float = 1.0
) -> tuple[EdgeCosts, ...]:
    """Fit the cost of each conversion on each edge to what layers were seen to take.

    Args:
        graph: The network.
        choices: The choices of each layer.
        observations: Layers in the builds of `patterns` and in those that their costs were taken from.
        scale: What the times of single layers are multiplied by inside the network.

    Returns:
        The edges on which formats can differ.  Where one layer's excess comes of several edges, it is divided by
        non-negative least squares.  Of a tensor that keeps a share of its channels that share has to be converted.
    """
    fitted: dict[_Key, float] = defaultdict(float)
    for layer in choices:
        for key, cost in _fit(graph, [seen for seen in observations if seen.layer == layer]).items():
            fitted[key] += cost
    edges = []
    for source, target in dict.fromkeys((edge.source, edge.target) for edge in graph.edges):
        writes = dict.fromkeys(formats(graph, source, name)[1] for name in choices[source])
        joins = is_joined(graph, source, target)
        reads = dict.fromkeys(read_format(graph, target, name, joins=joins) for name in choices[target])
        if len({*writes, *reads}) == 1:
            continue
        conversions = tuple(
            Conversion(
                source_format=one,
                target_format=other,
                latency_ns=int(
                    np.ceil(scale * _share(one) * fitted.get((source, target, one.dtype, other.dtype), 0.0))
                ),
            )
            for one in writes
            for other in reads
            if one.dtype != other.dtype and one.mask == other.mask
        )
        edges.append(EdgeCosts(source=source, target=target, conversions=conversions, joins=joins))
    return tuple(edges)


def _share(one: Format) -> float:
    """Return the share of its channels that a tensor of a format keeps."""
    return float(one.mask) if one.mask else 1.0


_Key = tuple[str, str, str, str]
"""An edge, the type that its tensor is written in, and the one that it is read as."""


def _fit(graph: LayerGraph, seen: Sequence[Observation]) -> dict[_Key, float]:
    """Explain what one layer was seen to take by conversions of what it reads, and of what it writes.

    A compiler may turn numbers in the kernel that makes them as well as in the one that reads them.
    """
    from scipy.optimize import nnls

    met = [_conversions(graph, observation) for observation in seen]
    keys = list(dict.fromkeys(key for found in met for key in found))
    if not keys:
        return {}
    rows = np.array([[float(key in found) for key in keys] for found in met])
    costs, _ = nnls(rows, np.array([max(0.0, observation.excess_ns) for observation in seen]))
    return dict(zip(keys, costs.tolist(), strict=True))


def _conversions(graph: LayerGraph, seen: Observation) -> list[_Key]:
    found = []
    for edge in graph.edges:
        if seen.layer in {edge.source, edge.target}:
            written = formats(graph, edge.source, seen.choices[edge.source])[1].dtype
            read = formats(graph, edge.target, seen.choices[edge.target])[0].dtype
            if written != read:
                found.append((edge.source, edge.target, written, read))
    return list(dict.fromkeys(found))
