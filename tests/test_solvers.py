from __future__ import annotations

import numpy as np
import pytest

import solvers
from solvers import Pair, Peak, Problem, Row, Solution, Status
from solvers.check import WrongAnswerError, verify

ABLE = {name: solvers.get(name).capabilities for name in solvers.available()}
EXACT = [name for name in solvers.available() if solvers.get(name).capabilities.exact]


def small(**more: object) -> Problem:
    """Make a problem of two groups whose optimum within 10 is 5: the first options cost 0 and take 9 each."""
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7]),
        Row(name="time", options=[0, 1, 2, 3], costs=[9, 1, 9, 2], capacity=10),
    )
    return Problem(start=[0, 2, 4], rows=rows, **more)


@pytest.mark.parametrize("name", solvers.available())
def test_every_solver_finds_a_plan_that_can_be_seen_by_eye(name: str) -> None:
    solution = solvers.get(name).solve(small())
    assert (solution.choices, solution.objective) == ((1, 0), 5)
    assert solution.solver == name


@pytest.mark.parametrize("name", solvers.available())
def test_a_hint_changes_nothing_but_the_way(name: str) -> None:
    for hint in ((1, 0), (0, 0), (1, 1)):
        assert solvers.get(name).solve(small(), hint=hint).objective == 5


@pytest.mark.parametrize("name", EXACT)
def test_any_row_can_be_the_objective(name: str) -> None:
    problem = small().with_capacities([5, None], objective=1)
    assert solvers.get(name).solve(problem).objective == 10


@pytest.mark.parametrize("name", [name for name in EXACT if solvers.get(name).capabilities.pairs])
def test_a_forbidden_meeting_is_never_chosen(name: str) -> None:
    pair = Pair(source=0, target=1, source_format=[0, 1], target_format=[0, 1], allowed=[[True, False], [False, True]])
    assert solvers.get(name).solve(small(pairs=(pair,))).choices == (1, 1)


@pytest.mark.parametrize("name", [name for name in solvers.available() if not solvers.get(name).capabilities.pairs])
def test_a_solver_that_takes_no_pairs_says_so(name: str) -> None:
    pair = Pair(source=0, target=1, source_format=[0, 1], target_format=[0, 1], allowed=[[True, False], [False, True]])
    with pytest.raises(solvers.RefusedError, match=f"{name} takes no problems with pairs; this one has 1"):
        solvers.get(name).solve(small(pairs=(pair,)))


def test_an_answer_within_no_time_is_never_called_optimal_without_proof() -> None:
    sizes, n = 10, 300
    rng = np.random.default_rng(0)
    rows = (
        Row(name="loss", options=range(n * sizes), costs=rng.integers(1, 10**9, n * sizes)),
        Row(name="a", options=range(n * sizes), costs=rng.integers(1, 10**6, n * sizes), capacity=10**8),
        Row(name="b", options=range(n * sizes), costs=rng.integers(1, 10**6, n * sizes), capacity=10**8),
    )
    problem = Problem(start=range(0, n * sizes + 1, sizes), rows=rows)
    for name in ("cpsat", "highs"):
        solution = solvers.get(name).solve(problem, time_limit_s=0.05, workers=1)
        assert solution.status is not Status.INFEASIBLE
        assert (solution.status is Status.OPTIMAL) == (solution.objective is not None and solution.gap == 0)
        assert solution.seconds < 5


def test_unequal_answers_are_caught() -> None:
    problem = small()
    right = Solution(status=Status.OPTIMAL, choices=(1, 0), objective=5, bound=5)
    verify(problem, right)
    for wrong, what in (
        (Solution(status=Status.FEASIBLE, choices=(0, 0), objective=0), "time is 18, above its capacity 10"),
        (Solution(status=Status.FEASIBLE, choices=(1, 0), objective=4), "objective is 4; it is 5"),
        (Solution(status=Status.FEASIBLE, choices=(1, 2), objective=5), "2 options; got choice 2"),
        (Solution(status=Status.FEASIBLE, choices=(1,), objective=5), "1 choices for 2 groups"),
    ):
        with pytest.raises(WrongAnswerError, match=what):
            verify(problem, wrong)


def test_an_answer_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="called optimal"):
        Solution(status=Status.OPTIMAL, choices=(0,), objective=5, bound=4)
    with pytest.raises(ValueError, match="above the objective"):
        Solution(status=Status.FEASIBLE, choices=(0,), objective=5, bound=6)
    with pytest.raises(ValueError, match="infeasible with choices"):
        Solution(status=Status.INFEASIBLE, choices=(0,), objective=5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"start": [0]}, "at least one group"),
        ({"start": [0, 2, 2]}, "strictly ascending"),
        ({"objective": 5}, "row 5"),
        ({"rows": (Row(name="r", options=[9], costs=[1]),)}, "beyond the 2"),
        ({"rows": (Row(name="r", options=[0], costs=[1], peaks=(0,)),)}, "peak beyond"),
        ({"rows": (Row(name="r", options=[0, 1], costs=[2**62, 2**62]),)}, "could sum up"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(change: dict[str, object], expected: str) -> None:
    good = {"start": [0, 2], "rows": (Row(name="r", options=[0], costs=[1]),)}
    with pytest.raises(ValueError, match=expected):
        Problem(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "costs", "expected"),
    [
        ([0], [-1], "cost -1"),
        ([1, 0], [1, 1], "ascending"),
        ([0], [1.5], "integers"),
        ([0], [1, 2], "expected 1"),
    ],
)
def test_costs_that_make_no_sense_are_refused(options: list[int], costs: list[float], expected: str) -> None:
    for kind in (Row, Peak):
        with pytest.raises(ValueError, match=expected):
            kind(name="r", options=options, costs=costs)


def test_an_unknown_solver_lists_those_that_exist() -> None:
    with pytest.raises(solvers.UnknownSolverError, match="there are: ") as caught:
        solvers.get("magic")
    listed = str(caught.value).partition("there are: ")[2].split(", ")
    assert listed == list(solvers.available())
    assert {"cpsat", "exhaustive", "greedy", "highs"} <= set(listed)


def test_a_solver_without_its_package_is_said_to_lack_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert solvers.missing()["cpsat"] == ("ortools",)
    assert "cpsat" not in solvers.available()
    with pytest.raises(solvers.UnknownSolverError, match="needs ortools"):
        solvers.get("cpsat")
