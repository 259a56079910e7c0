"""Tables and budgets drawn at random, and the best plan by the table's own arithmetic."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

from hypothesis import reject
from hypothesis import strategies as st
from problems import every_plan

from costmodels import (
    ChoiceCost,
    Conversion,
    CostTable,
    EdgeCosts,
    Format,
    LayerCosts,
    ModelCosts,
    TableError,
)
from planner.budget import Budget
from planner.errors import InputError
from planner.figures import figures

FORMATS = (Format(), Format(dtype="int8"), Format(mask="half"))


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    """Draw tables of one or two models with ties, edges, conversions, masks and constants."""
    rng = np_rng(draw)
    models = []
    for m in range(draw(st.integers(1, 2))):
        layers = []
        for la in range(draw(st.integers(1, 3))):
            options = tuple(
                ChoiceCost(
                    name=f"c{k}",
                    latency_ns=int(rng.integers(1, 1000)),
                    weight_bytes=int(rng.integers(1, 1000)),
                    loss=float(rng.choice([0.0, 0.1, float(rng.random())])),
                    activation_bytes=int(rng.integers(0, 1000)),
                    latency_std_ns=float(rng.integers(0, 200)),
                    in_format=FORMATS[int(rng.choice([0, 0, 1, 2]))],
                    out_format=FORMATS[int(rng.choice([0, 0, 1, 2]))],
                )
                for k in range(draw(st.integers(1, 3)))
            )
            layers.append(LayerCosts(name=f"l{la}", choices=options, tie=draw(st.sampled_from([None, None, "t"]))))
        edges = tuple(
            EdgeCosts(source=f"l{u}", target=f"l{v}", conversions=conversions(rng))
            for u, v in itertools.combinations(range(len(layers)), 2)
            if draw(st.booleans())
        )
        try:
            models.append(
                ModelCosts(
                    name=f"m{m}",
                    layers=tuple(layers),
                    edges=edges,
                    overhead_ns=int(rng.integers(0, 100)),
                    scale=float(rng.choice([1.0, 1.3])),
                    fixed_bytes=int(rng.integers(0, 100)),
                )
            )
        except TableError:
            reject()
    return CostTable(models=tuple(models))


def np_rng(draw: st.DrawFn):
    import numpy as np

    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def conversions(rng) -> tuple[Conversion, ...]:
    plain = FORMATS[:2]
    return tuple(
        Conversion(
            source_format=a,
            target_format=b,
            latency_ns=int(rng.integers(0, 300)),
            loss=float(rng.random()) / 9,
        )
        for a, b in itertools.permutations(plain, 2)
    )


def best_value(table: CostTable, budget: Budget, objective: str) -> Fraction | None:
    """Find the optimum with the table's own arithmetic alone: no formulation, no solver."""
    values = []
    for choices in every_plan(table):
        try:
            exact = figures(table, choices, budget)
        except InputError:
            continue
        if not exact.broken(budget):
            values.append(
                {
                    "loss": exact.loss,
                    "worst": max(exact.losses.values()),
                    "latency": Fraction(sum(exact.latency_ns.values()), 10**6),
                    "memory": Fraction(exact.memory_bytes, 2**20),
                }[objective]
            )
    return min(values, default=None)


budgets = st.builds(
    Budget,
    latency_ms=st.none() | st.decimals("0.0003", "0.004", places=6),
    memory_mib=st.none() | st.integers(500, 6000).map(lambda n: Decimal(n) / 2**20),
    loss=st.none() | st.decimals("0.05", "1.5", places=3),
    arena=st.sampled_from(["shared", "separate"]),
)
