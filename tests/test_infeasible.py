from __future__ import annotations

from decimal import Decimal

import pytest
from problems import chain_edges, choice, small_table, two_layers

from costmodels import CostTable, Format, LayerCosts, ModelCosts
from planner.budget import Budget
from planner.errors import InfeasibleError
from planner.infeasible import Explanation
from planner.planning import plan


def why(table: CostTable, budget: Budget) -> Explanation:
    with pytest.raises(InfeasibleError) as refused:
        plan(table, budget)
    assert refused.value.explanation is not None
    return refused.value.explanation


def test_names_the_layer_that_forces_a_conflict() -> None:
    # conv2 takes 1000 ns at the least, conv1 400.
    found = why(small_table(), Budget(latency_ms="0.0009"))
    assert found.layers == (("m", "conv2"),)
    assert found.layers_minimal
    assert "forced by layer conv2, even if the other layers cost nothing" in str(found)


def test_layers_of_several_models_are_named_with_their_model() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    found = why(table, Budget(latency_ms={"a": "0.001", "b": 1}))
    assert found.conflict == ("latency of a",)
    assert found.layers == (("a", "conv1"), ("a", "conv2"))
    assert "forced by layers a/conv1, a/conv2, even" in str(found)


def test_a_layer_may_force_two_bounds_at_once() -> None:
    # conv2 is either exact, 2700 bytes with its activations, or loses 0.03.
    found = why(small_table(), Budget(latency_ms="0.0024", memory_mib=Decimal(2000) / 2**20, loss="0.02"))
    assert set(found.conflict) == {"memory", "loss"}
    assert (found.layers, found.layers_minimal) == ((("m", "conv2"),), True)


def test_nothing_is_named_where_it_takes_all_layers() -> None:
    found = why(small_table(), Budget(latency_ms="0.001"))
    assert found.layers == (("m", "conv1"), ("m", "conv2"))
    assert "forced" not in str(found)


def test_many_layers_are_counted_rather_than_named() -> None:
    layers = tuple(LayerCosts(name=f"conv{i}", choices=(choice("exact", 1000 + i, 1),)) for i in range(12))
    found = why(CostTable(models=(ModelCosts(name="m", layers=layers),)), Budget(latency_ms="0.009"))
    assert [layer for _, layer in found.layers] == [f"conv{i}" for i in range(3, 12)]
    assert "conv3, conv4, conv5, conv6, conv7, conv8 and 3 more, even" in str(found)


def test_layers_whose_formats_exclude_each_other_are_named() -> None:
    one, two = Format(mask="1"), Format(mask="2")
    layers = (
        LayerCosts(name="a", choices=(choice("p", out_format=one),)),
        LayerCosts(
            name="b",
            choices=(choice("p", in_format=one, out_format=one), choice("q", in_format=two, out_format=two)),
        ),
        LayerCosts(name="c", choices=(choice("q", in_format=two),)),
        LayerCosts(name="d", choices=(choice("exact"),)),
    )
    table = CostTable(models=(ModelCosts(name="m", layers=layers, edges=chain_edges(["a", "b", "c"])),))
    found = why(table, Budget(latency_ms=1))
    assert found.conflict == ()
    assert found.layers == (("m", "a"), ("m", "b"), ("m", "c"))
    assert "exclude each other\nforced by layers a, b, c, even" in str(found)
