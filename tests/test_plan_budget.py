from __future__ import annotations

import logging
from decimal import Decimal

import numpy as np
import pytest

from planner.budget import Budget
from planner.errors import InputError


def test_numbers_are_read_as_the_decimals_that_are_written() -> None:
    assert Budget(latency_ms="123.456789").latency_ns("m") == 123456789
    assert Budget(latency_ms=0.1).latency_ns("m") == 100000
    assert Budget(latency_ms=Decimal("1e-6")).latency_ns("m") == 1
    assert Budget(memory_mib=1).memory_bytes == 2**20
    assert Budget(memory_mib=np.float64(0.5)).memory_bytes == 2**19


def test_capacities_are_rounded_down() -> None:
    assert Budget(latency_ms="0.0000019").latency_ns("m") == 1


@pytest.mark.parametrize("bad", [0, -1, "0", "-2", float("nan"), float("inf"), "x", "", True, [], "1e999999"])
@pytest.mark.parametrize("name", ["latency_ms", "memory_mib", "loss"])
def test_what_is_no_positive_number_is_refused(name: str, bad: object) -> None:
    with pytest.raises(InputError, match="expected"):
        Budget(**{name: bad})  # type: ignore[arg-type]


def test_a_bad_number_in_a_map_names_its_model() -> None:
    with pytest.raises(InputError, match="'quick' is 0"):
        Budget(latency_ms={"quick": 0})


def test_a_bound_for_a_model_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(InputError, match=r"'x'.*quick, vggs"):
        Budget(latency_ms={"x": 1}).check_against(("quick", "vggs"))


def test_a_map_that_leaves_out_a_model_leaves_it_unbounded_and_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = Budget(latency_ms={"quick": 1})
    with caplog.at_level(logging.WARNING):
        budget.check_against(("quick", "vggs"))
    assert "'vggs' has no latency bound" in caplog.text
    assert budget.latency_ns("vggs") is None


def test_budgets_are_equal_where_they_allow_the_same() -> None:
    assert Budget(latency_ms="2.0", memory_mib=0.5) == Budget(latency_ms=2, memory_mib="0.50")
    assert Budget(latency_ms=2) != Budget(latency_ms=2, arena="separate")
    budget = Budget(latency_ms={"a": "1.5", "b": None}, loss=0.01, latency_quantile=0.9)
    assert Budget(**budget.to_json()) == budget


@pytest.mark.parametrize("change", [{"arena": "own"}, {"latency_quantile": 0.4}, {"latency_quantile": 1.0}])
def test_other_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Budget(**change)  # type: ignore[arg-type]
