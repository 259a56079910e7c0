from __future__ import annotations

import itertools
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from problems import chain_edges, choice, every_plan, small_table

from costmodels import CostTable, Format, LayerCosts, ModelCosts, TableError
from planner.budget import Budget
from planner.cli import main
from planner.domination import Dominated, instead, undominated
from planner.errors import InfeasibleError, InputError
from planner.figures import figures
from planner.plan import Plan, check
from planner.planning import plan
from planner.report import page
from planner.whatif import Frontier

OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
FORMATS = (Format(), Format(mask="half"))


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    """Draw tables of few distinct costs, so that choices often beat one another, with ties, edges and masks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    models = []
    for m in range(draw(st.integers(1, 2))):
        layers = []
        for place in range(draw(st.integers(1, 3))):
            offered = tuple(
                choice(
                    f"c{number}",
                    *(int(n) for n in rng.integers(1, 4, 2) * 100),
                    float(rng.choice([0.0, 0.1, 0.3])),
                    activation_bytes=int(rng.integers(0, 3)) * 100,
                    latency_std_ns=float(rng.choice([0.0, 40.0, 200.0])),
                    energy_nj=[None, 5, 9][int(rng.choice([0, 0, 1, 2]))],
                    in_format=FORMATS[int(rng.choice([0, 0, 0, 1]))],
                    out_format=FORMATS[int(rng.choice([0, 0, 0, 1]))],
                )
                for number in range(draw(st.integers(1, 5)))
            )
            layers.append(LayerCosts(name=f"l{place}", choices=offered, tie=draw(st.sampled_from([None, None, "t"]))))
        edges = chain_edges([layer.name for layer in layers])
        untied = [edge for edge in edges if None in {la.tie for la in layers if la.name in (edge.source, edge.target)}]
        try:
            models.append(
                ModelCosts(name=f"m{m}", layers=tuple(layers), edges=tuple(untied), scale=float(rng.choice([1, 1.3])))
            )
        except TableError:
            reject()
    return CostTable(models=tuple(models))


budgets = st.builds(
    Budget,
    latency_ms=st.none() | st.decimals("0.0002", "0.0015", places=6),
    memory_mib=st.none() | st.integers(300, 2500).map(lambda n: Decimal(n) / 2**20),
    loss=st.none() | st.decimals("0.05", "1.0", places=2),
    arena=st.sampled_from(["shared", "separate"]),
    latency_quantile=st.sampled_from([0.5, 0.5, 0.9]),
)


def best(table: CostTable, budget: Budget, objective: str) -> Fraction | int | None:
    values: list[Fraction | int] = []
    for choices in every_plan(table):
        try:
            exact = figures(table, choices, budget)
        except InputError:
            continue  # a tie is broken, or formats cannot meet
        if not exact.broken(budget):
            of = {"loss": exact.loss, "latency": sum(exact.latency_ns.values()), "memory": exact.memory_bytes}
            values.append(of[objective])
    return min(values, default=None)


@OFTEN
@given(table=tables(), budget=budgets, objective=st.sampled_from(["loss", "latency", "memory"]))
def test_the_optimum_is_that_of_all_choices(table: CostTable, budget: Budget, objective: str) -> None:
    kept, _ = undominated(table, spread=budget.latency_quantile > 0.5)
    assert best(kept, budget, objective) == best(table, budget, objective)


@OFTEN
@given(table=tables(), budget=budgets)
def test_a_plan_has_the_optimum_of_the_table_as_it_was_given(table: CostTable, budget: Budget) -> None:
    if budget.latency_quantile > 0.5:
        reject()
    optimum = best(table, budget, "loss")
    try:
        found = plan(table, budget, workers=1, explains=False)
    except InfeasibleError:
        assert optimum is None
        return
    assert optimum is not None
    assert found.loss == pytest.approx(float(optimum), rel=1e-12)
    assert found.table_digest == table.digest
    assert check(found, table) == ()
    left = {(item.model, layer, item.choice) for item in found.dropped for layer in item.layers}
    assert not left & {(layer.model, layer.layer, layer.choice) for layer in found.layers}


@OFTEN
@given(table=tables(), spread=st.booleans())
def test_what_is_left_out_is_beaten_by_what_is_kept_and_nothing_kept_is_beaten(table: CostTable, spread: bool) -> None:
    kept, dropped = undominated(table, spread=spread)

    def beats(one, other) -> bool:
        formats = (one.in_format, one.out_format) == (other.in_format, other.out_format)
        costs = ["latency_ns", "weight_bytes", "activation_bytes", "loss", *(["latency_std_ns"] if spread else [])]
        energy = (one.energy_nj is None) == (other.energy_nj is None) and (one.energy_nj or 0) <= (other.energy_nj or 0)
        return formats and energy and all(getattr(one, cost) <= getattr(other, cost) for cost in costs)

    for item in dropped:
        if len(item.layers) == 1:
            layer = table.model(item.model).layer(item.layers[0])
            assert beats(layer.choice(item.by), layer.choice(item.choice))
            assert item.by in {c.name for c in kept.model(item.model).layer(layer.name).choices}
    for model in kept.models:
        for layer in model.layers:
            if layer.tie is None:
                assert not any(beats(a, b) for a, b in itertools.permutations(layer.choices, 2))


def layer(*choices, name: str = "conv1", tie: str | None = None) -> LayerCosts:
    return LayerCosts(name=name, choices=choices, tie=tie)


def one(*layers: LayerCosts) -> CostTable:
    return CostTable(models=(ModelCosts(name="m", layers=layers),))


def names(table: CostTable, place: int = 0) -> list[str]:
    return [item.name for item in table.models[0].layers[place].choices]


def test_of_choices_that_cost_the_same_the_first_is_kept() -> None:
    kept, dropped = undominated(one(layer(choice("b", 5, 5), choice("a", 5, 5), choice("c", 5, 5))))
    assert names(kept) == ["b"]
    assert [(item.choice, item.by) for item in dropped] == [("a", "b"), ("c", "b")]


@pytest.mark.parametrize("better", ["latency_ns", "weight_bytes", "activation_bytes", "loss", "energy_nj"])
def test_a_choice_that_is_better_in_one_cost_stays(better: str) -> None:
    costs = {"latency_ns": 5, "weight_bytes": 5, "activation_bytes": 5, "loss": 0.5, "energy_nj": 5}
    worse = {name: 2 * value for name, value in costs.items()}
    table = one(layer(choice("good", **costs), choice("mixed", **worse | {better: costs[better] / 5})))
    assert undominated(table) == (table, ())
    assert names(undominated(one(layer(choice("good", **costs), choice("bad", **worse))))[0]) == ["good"]


def test_only_choices_of_the_same_formats_are_compared() -> None:
    half = Format(mask="half")
    plain, reads = choice("plain", 5, 5), choice("reads", 9, 9, in_format=half)
    writes = choice("writes", 9, 9, out_format=half)
    assert undominated(one(layer(plain, reads, writes)))[1] == ()
    alike = undominated(one(layer(plain, choice("slow", 6, 5), writes, choice("slower", 10, 9, out_format=half))))[1]
    assert [(item.choice, item.by) for item in alike] == [("slow", "plain"), ("slower", "writes")]


def test_the_spread_counts_where_a_quantile_is_bound() -> None:
    steady, fast = choice("steady", 6000, 5, latency_std_ns=10.0), choice("fast", 5000, 5, latency_std_ns=3000.0)
    table = one(layer(steady, fast))
    assert names(undominated(table)[0]) == ["fast"]
    assert undominated(table, spread=True)[1] == ()
    # The median takes the fast one; the 99 % quantile, 5 + 2.3 * 3 us, rules it out.
    assert plan(table, Budget(latency_ms="0.01"), workers=1).choices == {"m": {"conv1": "fast"}}
    kept = Budget(latency_ms="0.01", latency_quantile=0.99)
    assert plan(table, kept, workers=1).choices == {"m": {"conv1": "steady"}}


def test_tied_layers_are_compared_as_one() -> None:
    first = layer(choice("a", 5, 5, activation_bytes=9), choice("b", 6, 5), choice("own", 1, 1), tie="t")
    # In the second layer b is better, but not by as much as it is worse in the first.
    second = layer(choice("b", 4, 5), choice("a", 5, 5, activation_bytes=9), name="conv2", tie="t")
    assert undominated(one(first, second))[1] == (Dominated(model="m", layers=("conv1", "conv2"), choice="a", by="b"),)
    kept = undominated(one(first, second))[0]
    assert (names(kept), names(kept, 1)) == (["b", "own"], ["b"])


def test_a_hint_that_names_what_was_left_out_starts_from_what_beats_it() -> None:
    table = one(layer(choice("exact", 5, 5), choice("worse", 6, 5, 0.1)))
    _, dropped = undominated(table)
    assert instead({"m": {"conv1": "worse"}}, dropped) == {"m": {"conv1": "exact"}}
    assert plan(table, Budget(latency_ms=1), hint={"m": {"conv1": "worse"}}, workers=1).choices["m"]["conv1"] == "exact"


def test_a_plan_says_what_was_left_out_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = (*small_table().models[0].layers, layer(choice("exact", 5, 5), choice("worse", 6, 5, 0.1), name="fc"))
    one(*layers).write(tmp_path / "table.json")
    written = tmp_path / "plan.json"
    assert main(["plan", str(tmp_path / "table.json"), "--latency-ms", "1", "-o", str(written)]) == 0
    assert "1 choice was left out, beaten in every cost by another of its layer: worse (1)" in capsys.readouterr().out
    found = json.loads(written.read_text())
    assert found["dropped"] == [{"model": "m", "layers": ["fc"], "choice": "worse", "by": "exact"}]
    read = Plan.read(written)
    assert read.dropped == (Dominated(model="m", layers=("fc",), choice="worse", by="exact"),)
    del found["dropped"]
    written.write_text(json.dumps(found))
    assert Plan.read(written).dropped == ()


def test_a_page_lists_what_was_left_out() -> None:
    made = plan(one(layer(choice("exact", 5, 5), choice("worse", 6, 5, 0.1))), Budget(latency_ms=1), workers=1)
    text = page(made, Frontier(points=()))
    assert "<td>conv1</td><td>worse</td><td>exact</td>" in text
    assert "1 choice was left out" in text


def test_a_choice_cannot_be_beaten_by_itself() -> None:
    with pytest.raises(InputError, match="cannot be beaten by 'exact'"):
        Dominated(model="m", layers=("conv1",), choice="exact", by="exact")
