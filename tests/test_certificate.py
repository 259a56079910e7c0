from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from planner.cli import main
from solvers import Limits, Problem, Row, Solution, Status, get
from solvers.certificate import Certificate, CertificateError, read, verify, write
from solvers.instances import files
from solvers.instances.generate import generate

ROOT = Path(__file__).parent.parent


def two_groups(capacity: int = 10) -> Problem:
    """Make a problem whose optimum within 10 is 5: the first options cost 0 and take 9 each."""
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7]),
        Row(name="time", options=[0, 1, 2, 3], costs=[9, 1, 9, 2], capacity=capacity),
    )
    return Problem(start=[0, 2, 4], rows=rows)


def certificate(problem: Problem, **more: object) -> Certificate:
    answer = {"status": Status.OPTIMAL, "choices": (1, 0), "objective": 5, "bound": 5, "solver": "mine"}
    solution = Solution(**(answer | more))
    return Certificate(solution=solution, problem_sha256=problem.digest, limits=Limits(time_s=2.5, seed=3, work=0.5))


def test_a_certificate_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = certificate(
        two_groups(), prices=(0.0, 0.1), versions={"numpy": np.__version__}, note="by hand", seconds=0.25
    )
    write(tmp_path / "c.json", made)
    assert read(tmp_path / "c.json") == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.json"]
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["gap"] == 0
    assert stored["limits"] == {"time_s": 2.5, "seed": 3, "workers": None, "gap": 0.0, "work": 0.5}


def test_prices_that_prove_the_whole_bound_are_told_from_those_that_prove_a_part() -> None:
    problem = two_groups()
    # At 5/8 the first option of each group costs 5.625 and the second 5.625 and 8.25: 11.25 - 10 * 5/8 = 5.
    whole = verify(certificate(problem, prices=(0.0, 0.625)), problem)
    assert (whole.wrong, whole.said) == ((), "the bound 5 is proven by prices")
    part = verify(certificate(problem, prices=(0.0, 0.25)), problem)
    assert part.proof.bound == 2
    assert part.said == "the bound 5 is on mine's word; 2 of it is proven by prices"
    none = verify(certificate(problem), problem)
    assert none.said == "the bound 5 is on mine's word; 0 of it is proven by least costs"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choices": (0, 0)}, "time is 18, above its capacity 10"),
        ({"choices": (1, 1), "status": Status.FEASIBLE}, "says that the objective is 5; it is 12"),
        ({"choices": (1,)}, "1 choices for 2 groups"),
        ({"choices": (1, 2)}, "group 1 has 2 options; got choice 2"),
        ({"choices": (1, 0), "prices": (0.5,)}, "got 1 prices; expected one for each of the 2 rows"),
    ],
)
def test_what_is_not_as_it_is_said_to_be_is_found(changes, said: str) -> None:
    verdict = verify(certificate(two_groups(), **changes), two_groups())
    assert said in " ".join(verdict.wrong)


def test_a_solution_to_another_problem_is_refused() -> None:
    verdict = verify(certificate(two_groups()), two_groups(capacity=11))
    assert "this one is" in verdict.wrong[0]
    assert verdict.proof is None


def test_infeasibility_is_proven_by_least_costs_by_prices_or_not_at_all() -> None:
    nothing = {"status": Status.INFEASIBLE, "choices": None, "objective": None, "bound": None}
    below = two_groups(capacity=2)
    assert verify(certificate(below, **nothing), below).said.endswith("proven by least costs")
    # Each of the two capacities can be kept alone, but not both together.
    both = Problem(
        start=[0, 2],
        rows=(
            Row(name="loss", options=[0], costs=[1]),
            Row(name="time", options=[0, 1], costs=[9, 1], capacity=4),
            Row(name="memory", options=[0, 1], costs=[1, 9], capacity=4),
        ),
    )
    assert verify(certificate(both, **nothing), both).said.endswith("on mine's word")
    assert verify(certificate(both, prices=(0.0, 9.0, 9.0), **nothing), both).said.endswith("proven by prices")
    feasible = two_groups()
    assert verify(certificate(feasible, **nothing), feasible).said.endswith("on mine's word")


def test_ties_forbidden_options_and_spreads_are_seen() -> None:
    problem = replace(two_groups(), ties=(np.array([0, 1]),))
    verdict = verify(certificate(problem, status=Status.FEASIBLE, bound=0), problem)
    assert "tied groups" in verdict.wrong[0]
    problem = replace(two_groups(), forbidden=[1])
    verdict = verify(certificate(problem, status=Status.FEASIBLE, bound=0), problem)
    assert "forbidden" in verdict.wrong[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda stored: stored.update(form="a letter"), "it says that it is 'a letter'"),
        (lambda stored: stored.pop("choices"), "'choices' is missing"),
        (lambda stored: stored.update(status="wonderful"), "wonderful"),
        (lambda stored: stored.update(bound=9), "objective 5 and bound 9"),
        (lambda stored: stored.update(objective=5.5), "float"),
        (lambda stored: stored.update(prices=[0, float("nan")]), "price"),
        (lambda stored: stored["limits"].update(time_s=-1), "time limit"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path: Path, change, said: str) -> None:
    path = tmp_path / "c.json"
    write(path, certificate(two_groups()))
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(CertificateError) as caught:
        read(path)
    assert said in str(caught.value)
    assert "c.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(CertificateError, match=r"c\.json"):
        read(tmp_path / "c.json")


def test_the_command_checks_a_solution_against_its_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = generate(0, layers=6, options=4)
    files.write(tmp_path / "p.npz", problem)
    solution = get("exhaustive").solve(problem)
    made = Certificate(solution=solution, problem_sha256=problem.digest, limits=Limits())
    write(tmp_path / "c.json", made)
    assert main(["check", str(tmp_path / "c.json"), "--problem", str(tmp_path / "p.npz")]) == 0
    assert f"the bound {solution.bound} is on exhaustive's word" in capsys.readouterr().out
    worse = replace(solution, status=Status.FEASIBLE, choices=(0,) * 6)
    write(tmp_path / "c.json", replace(made, solution=worse))
    assert main(["check", str(tmp_path / "c.json"), "--problem", str(tmp_path / "p.npz")]) == 1
    assert "broken: " in capsys.readouterr().out
    (tmp_path / "c.json").write_text("{}")
    assert main(["check", str(tmp_path / "c.json"), "--problem", str(tmp_path / "p.npz")]) == 2
    assert main(["check", str(tmp_path / "c.json"), "--problem", str(tmp_path / "p.json")]) == 2


def test_checking_loads_no_solver(tmp_path: Path) -> None:
    problem = two_groups()
    files.write(tmp_path / "p.json", problem)
    write(tmp_path / "c.json", certificate(problem, prices=(0.0, float(Fraction(5, 8)))))
    code = (
        "import sys\nfrom planner.cli import main\n"
        f"assert main(['check', r'{tmp_path / 'c.json'}', '--problem', r'{tmp_path / 'p.json'}']) == 0\n"
        "heavy = set('ortools scipy pulp pymoo pandas matplotlib'.split())\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
