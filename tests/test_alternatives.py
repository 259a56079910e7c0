from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from drawn_tables import best_value, budgets, tables
from hypothesis import HealthCheck, given, settings
from problems import every_plan, small_table, two_layers

from costmodels import CostTable, TableError
from planner.alternatives import alternatives
from planner.budget import Budget
from planner.errors import InfeasibleError, InputError, LimitError
from planner.figures import figures

OFTEN = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@OFTEN
@given(table=tables(), budget=budgets)
def test_all_plans_within_a_loss_are_there(table: CostTable, budget: Budget) -> None:
    budget = replace(budget, memory_mib=None)
    try:
        found = alternatives(table, budget, within=0.3, most=10**6, workers=1)
        best = best_value(table, budget, "loss")
    except InfeasibleError:
        assert best_value(table, budget, "loss") is None
        return
    except InputError as error:
        assert "tied layers cannot" in str(error)  # noqa: PT017
        return
    expected = []
    for choices in every_plan(table):
        try:
            figure = figures(table, choices, budget)
        except (InputError, TableError):
            continue
        if not figure.broken(budget) and figure.loss <= best + 3 / 10:
            expected.append(float(figure.loss))
    assert found.complete
    assert [plan.loss for plan in found.plans] == pytest.approx(sorted(expected))
    assert found.plans[0].status == "optimal"


def test_plans_that_are_equal_are_all_shown() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    # One of the two models must give 500 of 6900 bytes: it does not matter which.
    budget = Budget(memory_mib=Decimal(6500) / 2**20)
    found = alternatives(table, budget)
    assert [plan.loss for plan in found.plans] == [0.01, 0.01]
    assert found.complete
    assert "2. loss 0.01" in str(found)
    assert "/conv1: exact" in str(found)


def test_the_best_of_many_are_kept_and_it_is_said_that_there_are_more() -> None:
    found = alternatives(small_table(), Budget(), within=1.0, most=2)
    assert [plan.loss for plan in found.plans] == [0.0, 0.01]
    assert [plan.status for plan in found.plans] == ["optimal", "feasible"]
    assert [plan.gap for plan in found.plans] == [0.0, 1.0]
    assert (found.complete, found.ranked) == (False, True)
    assert str(found).endswith("there may be more")
    assert len(alternatives(small_table(), Budget(), share=1.0, objective="latency").plans) == 3


def test_what_cannot_be_listed_is_refused_with_the_reason() -> None:
    with pytest.raises(InfeasibleError, match="no plan keeps"):
        alternatives(small_table(), Budget(latency_ms="0.0001"))
    with pytest.raises(InputError, match="expected an exact one"):
        alternatives(small_table(), Budget(), solver="greedy")
    with pytest.raises(InputError, match="expected 0, 0 and 1 or more"):
        alternatives(small_table(), Budget(), within=-1.0)
    with pytest.raises(InputError, match="NaN"):
        alternatives(small_table(), Budget(), share=float("nan"))
    with pytest.raises(LimitError, match="allow more time"):
        alternatives(small_table(), Budget(), time_limit_s=1e-9)
