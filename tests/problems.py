"""Problems and tables that several tests share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from costmodels import ChoiceCost, CostTable, EdgeCosts, LayerCosts, ModelCosts
from solvers import Pair, Peak, Problem, Row
from solvers.check import broken, values
from solvers.spread import Spread

Z = (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(329, 200), Fraction(3))


@st.composite
def small_problems(
    draw: st.DrawFn,
    *,
    largest: int = 30,
    groups: tuple[int, int] = (1, 5),
    peaks: bool = True,
    steps: bool = True,
    pairs: bool = True,
    ties: bool = True,
    forbidden: bool = True,
    spreads: bool = True,
    then: bool = True,
) -> Problem:
    """Draw problems of a few groups with every feature that is not switched off, some of them infeasible.

    Capacities are drawn about what some choice comes to: exactly that, a unit below, a little above, nothing at all.

    Args:
        draw: Of hypothesis.
        largest: No cost is greater.
        groups: The least and the greatest number of groups; the checker alone tries all choices of up to 5 or 6.
        peaks: With greatest costs that rows contain.
        steps: Some of these are greatest sums over steps.
        pairs: With costs of groups that meet, and forbidden meetings.
        ties: With groups that take the option of the same place.
        forbidden: With options that may not be taken.
        spreads: With rows that are uncertain.
        then: With rows that are minimised after the objective.
    """
    sizes = draw(st.lists(st.integers(1, 4), min_size=groups[0], max_size=groups[1]))
    start = np.concatenate([[0], np.cumsum(sizes)])
    options = int(start[-1])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 4))
    tops = tuple(
        _peak(rng, options, largest, f"peak{i}", steps=steps and draw(st.booleans()))
        for i in range(draw(st.integers(0, 2)) if peaks else 0)
    )
    rows = tuple(
        _terms(
            rng,
            options,
            largest,
            f"row{index}",
            Row,
            constant=int(rng.integers(3)) * int(rng.integers(1 + largest // 2)),
            peaks=tuple(peak for peak in range(len(tops)) if rng.random() < 0.5),
            spread=_spread(rng, options, largest, draw(st.sampled_from(Z)))
            if spreads and draw(st.booleans())
            else None,
        )
        for index in range(count)
    )
    meetings = tuple(
        _pair(rng, sizes, u, u + 1 + int(rng.integers(len(sizes) - u - 1)), largest, count)
        for u in range(len(sizes) - 1)
        if pairs and draw(st.booleans())
    )
    problem = Problem(
        start=start,
        rows=rows,
        objective=draw(st.integers(0, count - 1)),
        then=tuple(draw(st.permutations(range(count)))[: draw(st.integers(0, 2))]) if then else (),
        peaks=tops,
        pairs=tuple(pair if rng.random() < 0.7 else _turned(pair) for pair in meetings),
        ties=_ties(rng, sizes) if ties and draw(st.booleans()) else (),
        forbidden=np.flatnonzero(rng.random(options) < 0.2) if forbidden and draw(st.booleans()) else (),
    )
    somewhere = values(problem, [int(rng.integers(size)) for size in sizes])
    return problem.with_capacities([_capacity(draw, rng, value) for value in somewhere])


def oracle_values(problem: Problem) -> tuple[int, ...] | None:
    """Return the least values of the objective and of what is minimised then, by trying all with the checker alone."""
    return _tried(problem.digest, problem)


def oracle(problem: Problem) -> int | None:
    """Return the optimum by trying all combinations with the checker alone; None where there is none."""
    best = oracle_values(problem)
    return None if best is None else best[0]


_KNOWN: dict[str, tuple[int, ...] | None] = {}


def _tried(digest: str, problem: Problem) -> tuple[int, ...] | None:
    # One example is handed to one solver after the other.
    if digest not in _KNOWN:
        sizes = [range(int(b - a)) for a, b in itertools.pairwise(problem.start)]
        order = (problem.objective, *problem.then)
        found = (
            tuple(came[row] for row in order)
            for choices in itertools.product(*sizes)
            if not broken(problem, choices)
            for came in (values(problem, choices),)
        )
        _KNOWN[digest] = min(found, default=None)
    return _KNOWN[digest]


def _capacity(draw, rng, value):
    kind = draw(st.sampled_from(["none", "above", "above", "exact", "below", "zero"]))
    above = value + int(rng.integers(1 + value // 2))
    return {"none": None, "above": above, "exact": value, "below": value - 1, "zero": 0}[kind]


def _costs(rng, count, largest):
    # Few distinct costs, so that ties are common; large ones beside a unit or two, which floats lose sight of.
    kind = rng.choice(["any", "few", "spanning"] if largest > 10**6 else ["any", "few"])
    if kind == "spanning":
        return np.exp(rng.uniform(0, np.log(largest), count)).astype(np.int64) - 1
    return rng.integers(0, largest, count) if kind == "any" else rng.integers(0, 3, count) * (largest // 3)


def _terms(rng, options, largest, name, kind, **more):
    chosen = np.flatnonzero(rng.random(options) < 0.8)
    return kind(name=name, options=chosen, costs=_costs(rng, len(chosen), largest), **more)


def _peak(rng, options, largest, name, *, steps):
    if not steps:
        return _terms(rng, options, largest, name, Peak)
    step, option = np.nonzero(rng.random((int(rng.integers(1, 4)), options)) < 0.6)
    return Peak(name=name, options=option, costs=_costs(rng, len(option), largest), steps=step * 2)


def _spread(rng, options, largest, z):
    chosen = np.flatnonzero(rng.random(options) < 0.6)
    times = int(rng.choice([1, min(largest, 10**18 // largest)]))
    return Spread(options=chosen, variances=_costs(rng, len(chosen), largest) * times, z=z)


def _ties(rng, sizes):
    alike = [groups for size in set(sizes) if len(groups := [g for g, of in enumerate(sizes) if of == size]) > 1]
    return tuple(groups for groups in alike if rng.random() < 0.8)


def _pair(rng, sizes, source, target, largest, rows):
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    return Pair(
        source=source,
        target=target,
        source_format=rng.integers(0, shape[0], sizes[source]),
        target_format=rng.integers(0, shape[1], sizes[target]),
        allowed=rng.random(shape) < 0.8,
        costs=tuple(
            (row, _costs(rng, shape[0] * shape[1], largest).reshape(shape)) for row in range(rows) if rng.random() < 0.4
        ),
    )


def _turned(pair):
    """Return the same meeting with its ends exchanged, so that the source may stand behind the target."""
    return Pair(
        source=pair.target,
        target=pair.source,
        source_format=pair.target_format,
        target_format=pair.source_format,
        allowed=pair.allowed.T,
        costs=tuple((row, costs.T) for row, costs in pair.costs),
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
