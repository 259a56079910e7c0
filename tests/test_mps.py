from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from problems import oracle, small_problems

from solvers import Pair, Peak, Problem, Row
from solvers.instances import mps


def read_back(text: str):
    """Read a file with a reader that is not ours."""
    from ortools.math_opt.io.python import mps_converter
    from ortools.math_opt.python import mathopt

    return mathopt.Model.from_model_proto(mps_converter.mps_to_model_proto(text))


def optimum(text: str) -> int | None:
    """Solve a file's problem; None where there is no choice."""
    from ortools.math_opt.python import mathopt

    gaps = mathopt.SolveParameters(relative_gap_tolerance=0.0, absolute_gap_tolerance=0.0)
    result = mathopt.solve(read_back(text), mathopt.SolverType.GSCIP, params=gaps)
    if result.termination.reason is mathopt.TerminationReason.INFEASIBLE:
        return None
    assert result.termination.reason is mathopt.TerminationReason.OPTIMAL
    return round(result.objective_value())


def written(**more: object) -> str:
    """Write two groups of two options."""
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7], constant=2),
        Row(name="time of m/1", options=[0, 1, 2, 3], costs=[9, 1, 9, 2], capacity=10, peaks=(0,)),
    )
    pair = Pair(source=0, target=1, source_format=[0, 1], target_format=[0, 1], allowed=[[True, True], [False, True]])
    peaks = (Peak(name="arena", options=[0, 2], costs=[0, 1]),)
    return mps.write(Problem(start=[0, 2, 4], rows=rows, peaks=peaks, pairs=(pair,), **more))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(spreads=False, then=False))
def test_a_file_read_by_another_tool_has_the_same_optimum(problem: Problem) -> None:
    try:
        text = mps.write(problem)
    except ValueError:
        assert oracle(problem) is None
        return
    assert optimum(text) == oracle(problem)


def test_names_tell_group_option_and_row() -> None:
    model = read_back(written())
    variables = {variable.name for variable in model.variables()}
    assert variables >= {"x_0_0", "x_0_1", "x_1_0", "x_1_1", "peak_0", "meet_0_0_0", "meet_0_1_1"}
    assert "meet_0_1_0" not in variables
    assert {"one_0", "one_1", "row1_time_of_m_1"} <= {row.name for row in model.linear_constraints()}


def test_options_are_whole_and_nothing_else_has_to_be() -> None:
    for variable in read_back(written()).variables():
        assert variable.integer == variable.name.startswith("x_")
        assert variable.upper_bound == 1


def test_every_digit_is_written() -> None:
    costs = [2**53 - 1, 10**15 + 1]
    row = Row(name="bytes", options=[0, 1], costs=costs, capacity=2**53 - 3)
    model = read_back(mps.write(Problem(start=[0, 2], rows=(row,))))
    found = {v.name: int(model.objective.get_linear_coefficient(v)) for v in model.variables()}
    assert found == {"x_0_0": costs[0], "x_0_1": costs[1]}
    (bound,) = (row for row in model.linear_constraints() if row.name == "row0_bytes")
    assert int(bound.upper_bound) == 2**53 - 3


def test_the_constant_of_the_objective_is_kept() -> None:
    assert read_back(written()).objective.offset == 2


def test_what_a_file_cannot_state_is_refused() -> None:
    with pytest.raises(ValueError, match="several in turn"):
        written(then=(1,))
    with pytest.raises(ValueError, match="nothing to write"):
        written(forbidden=[0, 1])
