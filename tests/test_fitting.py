"""Plans whose arena is put together exactly: bounds hold, proofs hold, and nothing that fits is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory_scripts import MIXED, chain, table

import planner
from planner.errors import InfeasibleError, LimitError
from planner.figures import figures
from planner.plan import check

NAMES = ("a", "b", "c")
EVERYWHERE = [dict(zip(NAMES, taken, strict=True)) for taken in product(("exact", "int8"), repeat=3)]


def needs(costs, plan):
    return figures(costs, {"m": plan}, planner.Budget()).memory_bytes


def budget(size, **more):
    return planner.Budget(memory_mib=size / 2**20, **more)


def test_a_plan_promises_the_arena_that_is_put_together():
    costs = table(chain(*NAMES))
    found = planner.plan(costs, planner.Budget())
    assert found.arena_bytes == costs.models[0].arena_bytes(found.choices["m"])
    assert check(found, costs) == ()
    assert check(replace(found, arena_bytes=found.arena_bytes + 1), costs) != ()


@settings(max_examples=30, deadline=None)
@given(st.integers(800, 2200))
def test_bounds_and_proofs_hold_for_all_plans_and_what_is_given_fits(size):
    costs = table(chain(*NAMES))
    losses = {
        sum(layer.choice(plan[layer.name]).loss for layer in costs.models[0].layers)
        for plan in EVERYWHERE
        if needs(costs, plan) <= size
    }
    try:
        found = planner.plan(costs, budget(size), explains=False)
    except InfeasibleError:
        assert not losses
        return
    except LimitError:
        return  # neither a plan nor a proof, which is said
    assert found.memory_bytes <= size
    assert found.bound is not None
    assert found.bound <= min(losses) + 1e-12
    assert found.loss >= min(losses) - 1e-12
    if found.status == "optimal":
        assert found.loss == pytest.approx(min(losses))


@pytest.mark.parametrize("arena", ["shared", "separate"])
def test_memory_can_be_the_aim(arena):
    costs = table(chain(*NAMES))
    found = planner.plan(costs, planner.Budget(arena=arena), objective="memory")
    assert found.memory_bytes == min(needs(costs, plan) for plan in EVERYWHERE)
    assert found.bound <= found.memory_mib


def test_models_share_an_arena_or_have_their_own():
    one = table(chain(*NAMES)).models[0]
    costs = planner.CostTable(models=(one, replace(one, name="n")))
    choices = {"m": MIXED, "n": dict.fromkeys(NAMES, "int8")}
    each = [model.arena_bytes(choices[model.name]) for model in costs.models]
    assert figures(costs, choices, planner.Budget()).arena_bytes == max(each)
    assert figures(costs, choices, planner.Budget(arena="separate")).arena_bytes == sum(each)


def test_what_the_solver_thinks_too_little_of_is_found_out():
    honest = table(chain(*NAMES))

    def belittled(choice):
        return replace(choice, least_activation_bytes=0)

    model = honest.models[0]
    layers = tuple(replace(layer, choices=tuple(map(belittled, layer.choices))) for layer in model.layers)
    costs = planner.CostTable(models=(replace(model, layers=layers),))
    sizes = sorted({needs(costs, plan) for plan in EVERYWHERE})
    found = planner.plan(costs, budget(sizes[0]), explains=False)
    assert found.memory_bytes == sizes[0]
    with pytest.raises((InfeasibleError, LimitError)):
        planner.plan(costs, budget(sizes[0] - 1), explains=False)


def test_a_choice_that_becomes_something_else_in_memory_is_not_left_out():
    costs = table(chain(*NAMES))
    layers = tuple(
        replace(layer, choices=tuple(replace(choice, loss=0.0) for choice in layer.choices))
        for layer in costs.models[0].layers
    )
    alike = planner.CostTable(models=(replace(costs.models[0], layers=layers),))
    assert not planner.plan(alike, planner.Budget()).dropped
    without = planner.CostTable(models=(replace(costs.models[0], layers=layers, memory=None),))
    assert isinstance(planner.plan(without, planner.Budget()).dropped, tuple)
