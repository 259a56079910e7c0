from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from problems import small_table

import solvers
from planner.cli import main
from planner.compare import Comparison, Run, contradictions
from planner.curves import Curve, Moment, curves_frame, draw_curves, fold
from planner.errors import InputError
from planner.laboratory import Instance, Laboratory, compare_problems, generated, read_instance
from planner.profiles import draw_profile, profile
from solvers import Capabilities, Limits, Solution, Solver, Status
from solvers.certificate import read, verify
from solvers.instances import files
from solvers.instances.generate import generate
from solvers.instances.mmkp import written

SMALL = Instance(name="small", problem=generate(3, layers=6, options=4))


def _solver(name: str, answer, **more: object) -> Solver:
    return Solver(name=name, capabilities=Capabilities(exact=False, **more), answer=answer)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_problems_are_solved_by_all_that_are_named_and_every_answer_is_checked() -> None:
    told: list[Run] = []
    comparison = compare_problems(
        [SMALL], ["cpsat", "exhaustive"], Laboratory(limits=Limits(time_s=10, seed=4, workers=1)), tell=told.append
    )
    assert list(comparison.runs) == told
    cpsat, exhaustive = comparison.runs
    assert cpsat.objective == exhaustive.objective == cpsat.bound
    assert (cpsat.checked, cpsat.seed, cpsat.workers, cpsat.time_limit_s) == (True, 4, 1, 10)
    assert "ortools" in cpsat.versions
    assert cpsat.loss is None
    frame = comparison.to_frame()
    assert frame["objective"].tolist() == [cpsat.objective] * 2
    assert all(isinstance(value, int) for value in frame["objective"])


def test_what_a_solver_refuses_and_what_it_gets_wrong_is_written_down() -> None:
    def lies(problem, limits, hint):
        return Solution(status=Status.OPTIMAL, choices=(0,) * problem.groups, objective=0, bound=0)

    laboratory = Laboratory(limits=Limits(time_s=1))
    wrong = laboratory.trial(SMALL, _solver("lies", lies))
    assert (wrong.run.status, wrong.run.checked, wrong.solution) == ("wrong", False, None)
    assert "above its capacity" in wrong.run.note
    pairs = Instance(name="pairs", problem=generate(0, layers=4, pairs=True))
    refused = laboratory.trial(pairs, _solver("lies", lies, pairs=False))
    assert (refused.run.status, refused.run.checked) == ("refused", None)
    assert "pairs" in refused.run.note


def test_a_limit_of_work_is_handed_to_solvers_that_know_one_and_refused_by_others() -> None:
    given: list[float | None] = []

    def answers(problem, limits, hint):
        given.append(limits.work)
        return Solution(status=Status.LIMIT)

    laboratory = Laboratory(limits=Limits(time_s=1, work=7.0))
    assert laboratory.trial(SMALL, _solver("counts", answers, deterministic=True)).run.work == 7.0
    assert given == [7.0]
    assert laboratory.trial(SMALL, _solver("runs", answers)).run.note == "runs knows no limit of work"


def test_what_is_proven_without_the_solvers_word_stands_beside_the_bound() -> None:
    best = solvers.get("exhaustive").solve(SMALL.problem)

    def answers(prices):
        return lambda problem, limits, hint: replace(best, prices=prices)

    laboratory = Laboratory(limits=Limits(time_s=1))
    rows = len(SMALL.problem.rows)
    free = laboratory.trial(SMALL, _solver("free", answers((0.0,) * rows))).run
    assert free.proven == 0
    latency = SMALL.problem.rows[1]
    price = best.objective / sum(latency.costs.tolist())
    priced = laboratory.trial(SMALL, _solver("priced", answers((0.0, 4 * price, *(0.0,) * (rows - 2))))).run
    assert 0 < priced.proven < priced.bound == best.objective


def test_a_solver_that_traces_tells_its_curve_and_another_is_run_again_at_parts_of_the_limit() -> None:
    best = solvers.get("exhaustive").solve(SMALL.problem)
    limits: list[float] = []

    def traces(problem, limits, hint):
        limits.watch(0.01, best.objective + 5, None)
        limits.watch(0.02, best.objective + 5, 0)
        return replace(best, bound=0, status=Status.FEASIBLE)

    def waits(problem, given, hint):
        limits.append(given.time_s)
        assert given.watch is None
        return replace(best, bound=0, status=Status.FEASIBLE) if given.time_s > 0.1 else Solution(status=Status.LIMIT)

    laboratory = Laboratory(limits=Limits(time_s=1e-4), curves=True)
    traced = laboratory.trial(SMALL, _solver("traces", traces, traces=True))
    assert traced.run.curve == traced.curve.how == "traced"
    assert [moment.objective for moment in traced.curve.moments][-1] == best.objective
    rerun = laboratory.trial(SMALL, _solver("waits", waits))
    assert rerun.run.curve == "reruns"
    # Parts of the limit that are shorter than what the whole run took, each once.
    assert limits[0] == 1e-4
    assert limits[1:] == [1e-4 / 2**power for power in range(6, 0, -1)][: len(limits) - 1]
    assert len(limits) > 1


def test_curves_never_get_worse_and_know_what_was_known_when() -> None:
    moments = [
        Moment(seconds=3, objective=8, bound=5),
        Moment(seconds=1, objective=9),
        Moment(seconds=2, objective=10, bound=4),
        Moment(seconds=4, objective=8, bound=5),
    ]
    curve = Curve(solver="a", instance="p", how="traced", moments=fold(moments))
    assert [(m.seconds, m.objective, m.bound) for m in curve.moments] == [(1, 9, None), (2, 9, 4), (3, 8, 5)]
    assert curve.at(0.5).gap == math.inf
    assert curve.at(2.5).gap == pytest.approx(5 / 9)
    frame = curves_frame([curve])
    assert frame["objective"].tolist() == [9, 9, 8]
    assert frame["how"].unique().tolist() == ["traced"]


def test_proofs_that_another_answer_refutes_are_named() -> None:
    more = {"instance": "p", "checked": True}
    runs = [
        Run(solver="good", status="feasible", objective=5, bound=4, **more),
        Run(solver="high", status="optimal", objective=7, bound=7, **more),
        Run(solver="none", status="infeasible", instance="p"),
        Run(solver="other", status="infeasible", instance="q"),
        Run(solver="wrong", status="optimal", objective=1, bound=1, instance="p", checked=False),
    ]
    assert contradictions(runs) == (
        "p: high says that nothing lies below 7; good found 5",
        "p: none calls it infeasible; good found 5",
    )
    assert contradictions(runs[:1]) == ()


def test_the_command_says_where_solvers_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gives_up(problem, limits, hint):
        return Solution(status=Status.INFEASIBLE)

    found = solvers.get

    def get(name: str) -> Solver:
        return _solver("pessimist", gives_up) if name == "pessimist" else found(name)

    monkeypatch.setattr("solvers.get", get)
    arguments = ["compare-solvers", "--generate", "0,1,5,3,chain", "--solvers"]
    assert main([*arguments, "exhaustive,pessimist"]) == 1
    assert "broken: 0,1,5,3,chain: pessimist calls it infeasible; exhaustive found" in capsys.readouterr().out
    assert main([*arguments, "exhaustive"]) == 0


def test_a_profile_is_what_its_definition_says() -> None:
    seconds = {"a": (1.0, 4.0, None), "b": (2.0, 1.0, None)}
    runs = [
        Run(solver=solver, instance=f"p{place}", status="limit" if s is None else "optimal", seconds=s or 9.0)
        for solver, times in seconds.items()
        for place, s in enumerate(times)
    ]
    shares = profile(runs)
    # a: ratios 1, 4, infinite; b: 2, 1, infinite. Nobody solves p2, which counts all the same.
    assert shares.index.tolist() == [1.0, 2.0, 4.0]
    assert shares["a"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert shares["b"].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_profiles_count_what_is_near_enough_and_not_what_was_wrong() -> None:
    more = {"instance": "p", "status": "feasible", "seconds": 1.0}
    runs = [
        Run(solver="near", gap=0.001, objective=1001, **more),
        Run(solver="far", gap=0.1, objective=1100, **more),
        Run(solver="wrong", gap=0.0, objective=1, checked=False, **more),
    ]
    assert profile(runs).loc[1.0].tolist() == [0, 0, 0]
    assert profile(runs, gap=0.01).loc[1.0].tolist() == [1, 0, 0]
    quality = profile(runs, "objective")
    assert quality["near"].iloc[0] == 1
    assert quality.index[-1] == pytest.approx(1100 / 1001)
    assert quality["wrong"].tolist() == [0, 0]


def test_profiles_of_nothing_and_of_a_run_twice_are_refused(tmp_path: Path) -> None:
    run = Run(solver="a", instance="p", status="optimal", seconds=1.0)
    with pytest.raises(InputError, match="no runs"):
        profile([])
    with pytest.raises(InputError, match="twice"):
        profile([run, run])
    with pytest.raises(InputError, match="cannot be written"):
        draw_profile([run], tmp_path / "picture.txt")
    with pytest.raises(InputError, match="0 instances"):
        draw_curves([], tmp_path / "picture.svg")


def test_the_command_takes_files_of_all_kinds_and_writes_all_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_table().write(tmp_path / "table.json")
    files.write(tmp_path / "problem.json", SMALL.problem)
    (tmp_path / "I99").write_text(written(SMALL.problem, best=10**10, digits=1))
    out, profiles, over = tmp_path / "c.csv", tmp_path / "p.svg", tmp_path / "o.svg"
    arguments = ["compare-solvers", *(str(tmp_path / name) for name in ("table.json", "problem.json", "I99"))]
    arguments += [
        "--generate",
        "7-7,2,3-4,4,branches,pairs,peaks",
        "--latency-ms",
        "0.0024",
        "--solvers",
        "cpsat,greedy",
    ]
    arguments += ["--workers", "1", "-o", str(out), "--profile", str(profiles), "--quality", str(tmp_path / "q.png")]
    arguments += ["--over-time", str(over), "--save", str(tmp_path / "kept")]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 8
    lines = _lines(out)
    assert [(line["instance"], line["solver"]) for line in lines][:2] == [
        ("table.json", "cpsat"),
        ("table.json", "greedy"),
    ]
    by = {(line["instance"], line["solver"]): line for line in lines}
    assert float(by["table.json", "cpsat"]["loss"]) == pytest.approx(0.01)
    assert by["I99", "cpsat"]["loss"] == ""
    assert by["I99", "cpsat"]["objective"] == by["problem.json", "cpsat"]["objective"]
    assert f"value {10**9 - int(by['I99', 'cpsat']['objective']) / 10:.1f}" in by["I99", "cpsat"]["note"]
    assert all(line["checked"] == "True" and line["curve"] for line in lines)
    for picture in (profiles, over, tmp_path / "q.png"):
        assert picture.stat().st_size > 1000
    for certificate in (tmp_path / "kept").glob("*.json"):
        problem = certificate.with_name(certificate.name.rsplit(".", 2)[0] + ".npz")
        assert main(["check", str(certificate), "--problem", str(problem)]) == 0
        assert verify(read(certificate), files.read_problem(problem)).wrong == ()
    assert len(list((tmp_path / "kept").glob("*.json"))) == 8


def test_problems_are_written_as_mps_for_other_solvers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_table().write(tmp_path / "table.json")
    arguments = ["compare-solvers", str(tmp_path / "table.json"), "--latency-ms", "0.0024", "--solvers", "greedy"]
    assert main([*arguments, "--generate", "0,1,5,3,chain,pairs", "--mps", str(tmp_path / "mps")]) == 0
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "mps").iterdir())
    assert names == ["0,1,5,3,chain,pairs", "table"]
    for path in (tmp_path / "mps").iterdir():
        assert "COLUMNS" in path.read_text()
        assert path.read_text().rstrip().endswith("ENDATA")
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--mps", str(tmp_path / "file")]) == 2
    assert "nothing can be written there" in capsys.readouterr().err


def test_curves_are_written_as_csv_where_the_name_says_so(tmp_path: Path) -> None:
    files.write(tmp_path / "problem.npz", SMALL.problem)
    arguments = ["compare-solvers", str(tmp_path / "problem.npz"), "--solvers", "cpsat", "--workers", "1"]
    assert main([*arguments, "--over-time", str(tmp_path / "o.csv")]) == 0
    lines = _lines(tmp_path / "o.csv")
    assert lines
    assert {line["solver"] for line in lines} == {"cpsat"}
    assert lines[-1]["gap"] == "0.0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--generate", "0,1,5,3,ring"], "unknown topology 'ring'"),
        (["--generate", "0,1,5,3,chain,bells"], "behind the topology stand pairs or peaks"),
        (["--generate", "0,1,5-3,3,chain"], "least number of layers"),
        (["--generate", "5-3,1,5,3,chain"], "the first seed 5 is above the last, 3"),
        (["--generate", "0,1,a,3,chain"], "expected SEED,MODELS,LAYERS,OPTIONS,TOPOLOGY"),
        (["--generate", "0,1,3,3,chain", "--gap", "-1"], "the gap is -1.0"),
        (["--generate", "0,1,3,3,chain", "--work", "0"], "the limit of work is 0.0"),
        (["nothing.npz"], "nothing.npz: No such file"),
        (["nothing.json"], "nothing.json"),
        ([], "no instances"),
    ],
)
def test_what_makes_no_comparison_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare-solvers", "--solvers", "greedy", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_instance_is_named_by_its_file_and_a_knapsack_gives_its_value_back(tmp_path: Path) -> None:
    (tmp_path / "I99").write_text(written(SMALL.problem, best=10**10, digits=1))
    instance = read_instance(tmp_path / "I99")
    assert instance.name == "I99"
    assert str(instance.value(5)) == "999999999.5"
    made = generated("0-2,1,5,3,skips,peaks")
    assert list(made) == [f"{seed},1,5,3,skips,peaks" for seed in range(3)]
    one, _, other = (make() for make in made.values())
    assert one.problem.peaks
    assert one.problem.digest != other.problem.digest
    assert one.problem.digest == generate(0, layers=5, options=3, topology="skips", peaks=True).digest
    (tmp_path / "half.json").write_text(json.dumps({"form": files.FORM}))
    with pytest.raises(InputError, match=r"half\.json"):
        read_instance(tmp_path / "half.json")


def test_comparisons_keep_curves_beside_runs() -> None:
    laboratory = Laboratory(limits=Limits(time_s=5, workers=1), curves=True)
    comparison = compare_problems([SMALL], ["cpsat"], laboratory)
    assert isinstance(comparison, Comparison)
    (curve,) = comparison.curves
    assert curve.moments[-1].objective == comparison.runs[0].objective
    assert curve.moments[-1].gap == 0
