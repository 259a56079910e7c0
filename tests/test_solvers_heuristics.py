"""Solvers that promise no proof: what they claim holds all the same, on small problems with every feature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_solvers_exact import answered, claims_hold, often, taken

import solvers

HEURISTIC = [name for name in solvers.available() if not solvers.get(name).capabilities.exact]


@pytest.mark.parametrize("name", HEURISTIC)
@given(data=st.data())
@often(60)
def test_heuristics_keep_the_capacities_and_are_never_better(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name))
    solution = answered(name, problem)
    claims_hold(problem, solution)


@pytest.mark.parametrize("name", HEURISTIC)
@given(data=st.data())
@often(20)
def test_what_heuristics_claim_holds_where_figures_are_large(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name, largest=10**9))
    claims_hold(problem, answered(name, problem))
