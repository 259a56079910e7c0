"""Solvers that are not ours, and what is made of what they say."""

from __future__ import annotations

import importlib
import math
import os
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import oracle, small_problems

import solvers
from solvers import Peak, Problem, Row, Solution, Status
from solvers.check import broken, values
from solvers.floating import Attempt, float_form, solve_in_floats
from solvers.instances.generate import generate
from solvers.linear import linear_form
from solvers.mathopt import run
from solvers.quiet import quiet
from solvers.relaxation import lagrangian
from solvers.solver import Limits
from solvers.start import no_worse, usable

OFTEN = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = {"ties": False, "forbidden": False, "spreads": False, "then": False}
WHOLE = [name for name in ("cbc", "cpsat", "highs", "scip", "scipy") if name in solvers.available()]
RELAXED = ["glop", "pdlp"]


def one_model(layers: int = 60, options: int = 8, seed: int = 1, **more: object) -> Problem:
    """Make up one network."""
    return generate(seed, models=1, layers=layers, options=options, **more)


@pytest.mark.parametrize("name", WHOLE)
def test_all_prove_the_same_optimum_of_a_network(name: str) -> None:
    problem = one_model(layers=20, options=6, pairs=True, peaks=True)
    exact = solvers.get("cpsat").solve(problem, workers=1)
    found = solvers.get(name).solve(problem, workers=1)
    assert exact.status is Status.OPTIMAL
    assert found.objective == exact.objective
    assert found.objective - found.bound <= 1e-5 * found.objective


@pytest.mark.parametrize("name", RELAXED)
@given(problem=small_problems(**PLAIN))
@OFTEN
def test_a_relaxation_never_proves_too_much(name: str, problem: Problem) -> None:
    best = oracle(problem)
    solution = solvers.get(name).solve(problem)
    if best is None:
        assert solution.status in {Status.INFEASIBLE, Status.LIMIT}
    else:
        assert solution.status is not Status.INFEASIBLE
        assert solution.bound <= best


@given(problem=small_problems(**PLAIN), data=st.data())
@OFTEN
def test_multipliers_of_any_size_and_sign_prove_a_bound_that_holds(problem: Problem, data: st.DataObject) -> None:
    best = oracle(problem)
    form = linear_form(problem)
    some = st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1e-300, -1e18, 1e18, math.inf, -math.inf, math.nan])
    multipliers = np.array(data.draw(st.lists(some, min_size=len(form.upper), max_size=len(form.upper))))
    if best is not None:
        assert lagrangian(form, multipliers) <= best
        assert lagrangian(form, multipliers, priced=False) <= 0


@given(problem=small_problems(**PLAIN), data=st.data())
@OFTEN
def test_a_bound_stays_one_where_dual_values_are_disturbed(problem: Problem, data: st.DataObject) -> None:
    best = oracle(problem)
    form = linear_form(problem)
    if best is None or form.impossible():
        return
    scaled = float_form(form)
    reply = run(scaled, "GLOP", limits=Limits(), seconds=10, whole=False)
    right = np.ldexp(-reply.duals, scaled.objective_exponent - scaled.constraint_exponent)
    proven = lagrangian(form, right)
    # The relaxation's own optimum, up to what floats lose.
    cost = math.ldexp(float(scaled.objective @ reply.values), scaled.objective_exponent) + form.offset
    assert math.isclose(proven, cost, rel_tol=1e-6, abs_tol=1e-6 * (1 + cost))
    noise = np.array(data.draw(st.lists(st.floats(-2, 2), min_size=len(right), max_size=len(right))))
    for wrong in (right * (1 + noise), right + noise, -right):
        assert lagrangian(form, wrong) <= best


@pytest.mark.parametrize("name", RELAXED)
def test_a_relaxation_comes_with_prices_that_prove_its_bound(name: str) -> None:
    problem = one_model()
    solution = solvers.get(name).solve(problem)
    best = solvers.get("cpsat").solve(problem).objective
    form = linear_form(problem)
    multipliers = np.zeros(len(form.upper))
    multipliers[form.row[form.row >= 0]] = np.array(solution.prices)[form.row >= 0]
    assert math.ceil(lagrangian(form, multipliers)) == solution.bound
    assert 0.97 * best <= solution.bound <= best <= solution.objective <= 1.1 * best


def test_a_relaxation_that_nothing_keeps_is_proven_so_exactly() -> None:
    # Either bound alone can be kept, both by no mixture: what one option saves of the one it takes of the other.
    rows = (
        Row(name="loss", options=[0], costs=[1]),
        Row(name="time", options=[0, 2], costs=[9, 9], capacity=8),
        Row(name="bytes", options=[1, 3], costs=[9, 9], capacity=8),
    )
    problem = Problem(start=[0, 2, 4], rows=rows)
    assert not linear_form(problem).impossible()
    for name in RELAXED:
        assert solvers.get(name).solve(problem).status is Status.INFEASIBLE


@pytest.mark.parametrize("name", ["cpsat", "highs", "scip"])
def test_a_hint_is_a_start_that_is_not_lost(name: str) -> None:
    problem = one_model(layers=40, options=8, pairs=True, seed=3)
    best = solvers.get("cpsat").solve(problem, time_limit_s=10, workers=1)
    again = solvers.get(name).solve(problem, work=0.1 if name == "cpsat" else 1, workers=1, hint=best.choices)
    assert again.objective is not None
    assert again.objective <= best.objective


@pytest.mark.parametrize("name", ["cbc", "highs", "scip", "scipy"])
def test_a_hint_that_breaks_a_capacity_does_no_harm(name: str) -> None:
    if name not in WHOLE:
        pytest.skip("PuLP is not installed")
    problem = one_model(layers=20)
    exact = problem.with_capacities([None, *(row.capacity for row in problem.rows[1:])])
    hint = (0,) * problem.groups
    assert broken(problem, hint)
    free, held = (solvers.get(name).solve(exact, hint=start) for start in (None, hint))
    assert free.objective == held.objective


@pytest.mark.parametrize("name", [*WHOLE, *RELAXED])
def test_a_limit_of_work_gives_the_same_answer_twice(name: str) -> None:
    problem = one_model(layers=30, options=8, pairs=True, seed=5)
    work = {"cpsat": 0.05, "glop": 40, "pdlp": 200}.get(name, 1)
    first, second = (solvers.get(name).solve(problem, work=work, workers=1, seed=7) for _ in range(2))
    assert (first.choices, first.bound, first.status) == (second.choices, second.bound, second.status)


@pytest.mark.parametrize("name", ["cpsat", "glop", "highs", "scip"])
def test_less_work_proves_less(name: str) -> None:
    problem = one_model(layers=40, options=8, pairs=True, peaks=True, seed=5)
    little = {"cpsat": 1e-4, "glop": 2}.get(name, 1)
    short = solvers.get(name).solve(problem, work=little, workers=1)
    long = solvers.get(name).solve(problem, work=2 if name == "cpsat" else 1e5, workers=1, time_limit_s=20)
    assert short.status is not Status.OPTIMAL
    assert short.bound < long.bound


@pytest.mark.parametrize("name", WHOLE)
def test_the_time_limit_is_kept_and_what_was_found_in_it_is_not_called_optimal(name: str) -> None:
    problem = generate(2, models=10, layers=60, options=8, pairs=True, peaks=True)
    solution = solvers.get(name).solve(problem, time_limit_s=0.6, workers=1)
    assert solution.seconds < 4
    assert solution.status in {Status.FEASIBLE, Status.LIMIT}
    if solution.objective is not None:
        assert solution.bound < solution.objective


@pytest.mark.parametrize("name", WHOLE)
def test_a_gap_that_is_allowed_ends_the_search_and_is_not_called_optimal(name: str) -> None:
    problem = one_model(layers=100, options=12, seed=2)
    solution = solvers.get(name).solve(problem, gap=0.05, workers=1)
    assert solution.gap <= 0.05
    assert (solution.status is Status.OPTIMAL) == (solution.gap == 0)


def test_highs_takes_another_number_of_threads_each_time() -> None:
    problem = one_model(layers=10)
    found = {solvers.get("highs").solve(problem, workers=workers).objective for workers in (1, 2, None, 1)}
    assert len(found) == 1


def test_nothing_is_written_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    for name in (*WHOLE, *RELAXED):
        solvers.get(name).solve(one_model(layers=10))
    assert capfd.readouterr().out == ""


def test_every_improvement_is_told() -> None:
    told: list[tuple[float, int | None, int | None]] = []
    problem = one_model(layers=30, options=8, pairs=True, seed=5)
    solution = solvers.get("cpsat").solve(
        problem, workers=1, time_limit_s=20, watch=lambda seconds, best, bound: told.append((seconds, best, bound))
    )
    found = [best for _, best, _ in told if best is not None]
    proven = [bound for _, _, bound in told if bound is not None]
    assert found == sorted(found, reverse=True)
    assert proven == sorted(proven)
    assert found[-1] == solution.objective
    assert max(proven) <= solution.objective
    assert [seconds for seconds, _, _ in told] == sorted(seconds for seconds, _, _ in told)


@pytest.mark.parametrize("name", WHOLE)
def test_figures_that_floats_cannot_count_still_give_bounds_that_hold(name: str) -> None:
    costs = [2**60 + 1, 2**60 - 1, 2**60, 2**59 + 3]
    rows = (
        Row(name="loss", options=[0, 1, 2, 3], costs=costs),
        Row(name="time", options=[0, 3], costs=[2**60, 2**60 + 1], capacity=2**60),
    )
    problem = Problem(start=[0, 2, 4], rows=rows)
    solution = solvers.get(name).solve(problem)
    assert solution.bound <= 2**61 - 1 <= solution.objective
    assert solution.objective - solution.bound <= 1e-6 * solution.objective


def test_an_answer_that_breaks_a_capacity_is_asked_for_again_without_it() -> None:
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7]),
        Row(name="time", options=[0, 1, 2, 3], costs=[9, 1, 9, 2], capacity=10),
    )
    problem = Problem(start=[0, 2, 4], rows=rows)
    asked: list[int] = []

    def careless(form, seconds: float) -> Attempt:
        """Answer as floats may: with the cheapest choice that the form has not excluded."""
        asked.append(len(form.upper))
        right = linear_form(problem)
        extra = form.matrix[[*range(len(right.upper), len(form.upper))], :]
        kept = [c for c in ((0, 0), (1, 0), (0, 1), (1, 1)) if bool((extra @ form.columns(c) < 2).all())]
        best = min(kept, key=lambda c: values(problem, c)[0])
        return Attempt(values=form.columns(best), bound=float(values(problem, best)[0]))

    solution = solve_in_floats(problem, lambda: 1.0, careless, tolerance=0.0, relative=0.0)
    assert (solution.choices, solution.bound, solution.status) == ((1, 0), 5, Status.OPTIMAL)
    assert asked == [3, 4]


def test_an_answer_that_stays_wrong_is_none() -> None:
    problem = Problem(start=[0, 2], rows=(Row(name="time", options=[0, 1], costs=[4, 5], capacity=4),))
    wrong = Attempt(values=np.array([0.0, 1.0]), bound=-math.inf)
    solution = solve_in_floats(problem, lambda: 1.0, lambda *_: wrong, tolerance=0.0, relative=0.0)
    assert (solution.status, solution.bound) == (Status.LIMIT, 4)


def test_a_bound_that_an_answer_refutes_is_left_out() -> None:
    problem = Problem(start=[0, 2], rows=(Row(name="time", options=[0, 1], costs=[4, 5]),))
    wrong = Attempt(values=np.array([1.0, 0.0]), bound=5.0)
    solution = solve_in_floats(problem, lambda: 1.0, lambda *_: wrong, tolerance=0.0, relative=0.0)
    assert (solution.status, solution.objective, solution.bound) == (Status.FEASIBLE, 4, None)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Solution(status=Status.LIMIT, bound=3), (Status.FEASIBLE, 4, 3)),
        (Solution(status=Status.LIMIT, bound=4), (Status.OPTIMAL, 4, 4)),
        (Solution(status=Status.LIMIT), (Status.FEASIBLE, 4, None)),
        (Solution(status=Status.FEASIBLE, choices=(1,), objective=5, bound=2), (Status.FEASIBLE, 4, 2)),
        (Solution(status=Status.FEASIBLE, choices=(1,), objective=5, bound=5), (Status.FEASIBLE, 4, None)),
        (Solution(status=Status.INFEASIBLE), (Status.FEASIBLE, 4, None)),
        (Solution(status=Status.FEASIBLE, choices=(2,), objective=3, bound=2), (Status.FEASIBLE, 3, 2)),
    ],
)
def test_a_start_is_the_answer_where_nothing_better_is_found(answer: Solution, expected: tuple[object, ...]) -> None:
    problem = Problem(start=[0, 3], rows=(Row(name="time", options=[0, 1, 2], costs=[4, 5, 3]),))
    found = no_worse(problem, answer, (0,))
    assert (found.status, found.objective, found.bound) == expected
    assert no_worse(problem, answer, None) is answer


def test_a_start_that_breaks_a_capacity_is_of_no_use() -> None:
    problem = Problem(start=[0, 2], rows=(Row(name="time", options=[0, 1], costs=[4, 5], capacity=4),))
    assert usable(problem, (1,)) is usable(problem, None) is None
    assert usable(problem, [0]) == (0,)


def test_what_a_library_writes_past_python_is_kept_out_of_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"lost")
    os.write(1, b"kept")
    assert capfd.readouterr().out == "kept"


@pytest.mark.skipif("cbc" not in WHOLE, reason="PuLP is not installed")
def test_cbc_that_does_not_stop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(importlib.import_module("solvers.cbc").subprocess, "run", stuck)
    solution = solvers.get("cbc").solve(one_model(layers=10))
    assert (solution.status, solution.choices) == (Status.LIMIT, None)


def test_cpsat_refuses_sums_that_leave_64_bits() -> None:
    rows = (Row(name="r", options=[0, 1], costs=[2**60, 2**60], capacity=2**61),)
    problem = Problem(start=[0, 2], rows=rows)
    assert solvers.get("cpsat").solve(problem).objective == 2**60


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), np.int64)


def test_cpsat_does_not_take_a_problem_of_large_peaks_for_infeasible() -> None:
    """A choice keeps its capacity, and presolve with symmetry proved that none does."""
    scale = 2**20
    once = Peak(
        name="once",
        options=[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17],
        costs=(
            numbers(
                "55797151 63786207 40039205 34593748 21486565 89896833 30110966 11623927 54650236 "
                "53537856 36971194 5656807 84474023 47306556 84801114 "
            )
        )
        * scale,
    )
    steps = Peak(
        name="steps",
        options=numbers("0 1 2 4 7 8 9 10 13 14 15 16 17 1 2 3 4 5 7 9 10 11 12 15 16 0 1 2 3 4 6 7 11 12 14 16 17 "),
        costs=(
            numbers(
                "4515 276 22955996 75 1 8244 1 685 30638 84025308 0 3446 13 1759873 1981 134399 770 "
                "192324 1 3995 25613352 1314 14657 307662 35841 98 10221 355 396 2670070 114200 "
                "296606 623287 60525304 8433460 1 73 "
            )
        )
        * scale,
        steps=np.repeat([0, 2, 4], [13, 12, 12]),
    )
    row = Row(
        name="time",
        options=[0, 1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 16, 17],
        costs=numbers(
            "6962726043648 3145728 26738581035 3231048531968 166394224171 6215905045 "
            "43658511331093 272619274240 2122317824 9437184 612314901 43477106688 2286881341440 "
            "586100501 289406976 "
        ),
        constant=3973446427,
        capacity=160863954665472,
        peaks=(0, 1),
    )
    problem = Problem(start=[0, 2, 3, 5, 6, 8, 12, 14, 16, 18], rows=(row,), peaks=(once, steps))
    best = solvers.get("exhaustive").solve(problem).objective
    assert best == 118614368839302
    for workers in (1, 2):
        assert solvers.get("cpsat").solve(problem, workers=workers).objective == best
