"""Problems and tables that several tests share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from costmodels import ChoiceCost, CostTable, EdgeCosts, LayerCosts, ModelCosts
from solvers import Pair, Peak, Problem, Row


@st.composite
def small_problems(draw: st.DrawFn, *, largest: int = 30) -> Problem:
    """Draw problems of a few groups with rows, peaks, pairs and ties, some of them infeasible."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    start = np.concatenate([[0], np.cumsum(sizes)])
    options = int(start[-1])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peaks = tuple(_terms(rng, options, largest, f"peak{i}", Peak) for i in range(draw(st.integers(0, 2))))
    pairs = tuple(
        _pair(rng, sizes, u, u + 1 + int(rng.integers(len(sizes) - u - 1)), largest)
        for u in range(len(sizes) - 1)
        if draw(st.booleans())
    )
    rows = [_terms(rng, options, largest, "objective", Row, constant=int(rng.integers(3)))]
    for index in range(draw(st.integers(0, 3))):
        share = draw(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]))
        inside = tuple(int(peak) for peak in range(len(peaks)) if rng.random() < 0.5)
        capacity = int(share * largest * (len(sizes) + len(inside)))
        rows.append(_terms(rng, options, largest, f"row{index}", Row, peaks=inside, capacity=capacity))
    if draw(st.booleans()) and peaks:
        rows[0] = _terms(rng, options, largest, "objective", Row, peaks=(0,))
    pairs = tuple(pair for pair in pairs if all(row < len(rows) for row, _ in pair.costs))
    return Problem(start=start, rows=tuple(rows), peaks=peaks, pairs=pairs)


def _terms(rng, options, largest, name, kind, **more):
    chosen = np.flatnonzero(rng.random(options) < 0.8)
    # Few distinct costs, so that ties are common.
    costs = (
        rng.integers(0, largest, len(chosen))
        if rng.random() < 0.5
        else rng.integers(0, 3, len(chosen)) * (largest // 3)
    )
    return kind(name=name, options=chosen, costs=costs, **more)


def _pair(rng, sizes, source, target, largest):
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    allowed = rng.random(shape) < 0.8
    costs = [(0, rng.integers(0, largest, shape))]
    if rng.random() < 0.5:
        costs.append((1, rng.integers(0, largest // 2, shape)))
    return Pair(
        source=source,
        target=target,
        source_format=rng.integers(0, shape[0], sizes[source]),
        target_format=rng.integers(0, shape[1], sizes[target]),
        allowed=allowed,
        costs=tuple(costs),
    )


def choice(
    name: str = "exact", latency_ns: int = 1000, weight_bytes: int = 4000, loss: float = 0.0, **more
) -> ChoiceCost:
    """Make a choice."""
    return ChoiceCost(name=name, latency_ns=latency_ns, weight_bytes=weight_bytes, loss=loss, **more)


def two_layers(name: str = "m", **more) -> ModelCosts:
    """Make a model of two layers, each exact or cheaper; the best plan for every budget can be seen by eye.

    Exact: 3000 ns, 3000 bytes of weights, peak 900, loss 0. conv1 cheaper saves 600 ns, 500 bytes for 0.01;
    conv2 cheaper saves 1000 ns, 1500 bytes for 0.03.
    """
    return ModelCosts(
        name=name,
        layers=(
            LayerCosts(
                name="conv1",
                choices=(
                    choice("exact", 1000, 1000, 0.0, activation_bytes=900),
                    choice("lowrank@0.5", 400, 500, 0.01, activation_bytes=800),
                ),
            ),
            LayerCosts(
                name="conv2",
                choices=(
                    choice("exact", 2000, 2000, 0.0, activation_bytes=700),
                    choice("int8", 1000, 500, 0.03, activation_bytes=600),
                ),
            ),
        ),
        **more,
    )


def small_table(**more) -> CostTable:
    """Make a table of one model, ``two_layers``."""
    return CostTable(models=(two_layers(**more),))


def chain_edges(names: list[str]) -> tuple[EdgeCosts, ...]:
    """Connect layers in a row."""
    return tuple(EdgeCosts(source=u, target=v) for u, v in itertools.pairwise(names))


def every_plan(table: CostTable) -> Iterator[dict[str, dict[str, str]]]:
    """Yield all combinations of choices, allowed or not."""
    places = [(m.name, la.name, [c.name for c in la.choices]) for m in table.models for la in m.layers]
    for picked in itertools.product(*(names for _, _, names in places)):
        found: dict[str, dict[str, str]] = {}
        for (model, layer, _), name in zip(places, picked, strict=True):
            found.setdefault(model, {})[layer] = name
        yield found
