from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import small_problems

from solvers import Peak, Problem, Row
from solvers.instances.files import ProblemFileError, read, read_problem, write
from solvers.instances.generate import generate
from solvers.instances.mmkp import Knapsack, written
from solvers.spread import Spread


def everything() -> Problem:
    """Make a problem that has one of everything."""
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 2**61]),
        Row(
            name="time",
            options=[0, 1, 2, 3],
            costs=[9, 1, 9, 2],
            constant=3,
            capacity=30,
            peaks=(1,),
            spread=Spread(options=[0, 2], variances=[4, 5], z=Fraction(7, 3)),
        ),
    )
    peaks = (
        Peak(name="greatest", options=[0, 2], costs=[8, 9]),
        Peak(name="alive", options=[0, 0, 2], costs=[1, 2, 3], steps=[0, 1, 1]),
    )
    return Problem(start=[0, 2, 4], rows=rows, then=(1,), peaks=peaks, ties=(np.array([0, 1]),), forbidden=[2])


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_problem_of_everything_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"problem.{suffix}"
    write(path, everything())
    assert read_problem(path).digest == everything().digest
    assert not [entry for entry in tmp_path.iterdir() if entry != path]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(), suffix=st.sampled_from(["json", "npz"]))
def test_every_problem_is_read_as_it_was_written(problem, suffix, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("problems") / f"problem.{suffix}"
    write(path, problem)
    assert read_problem(path).digest == problem.digest


def test_what_stands_in_the_file_is_its_own_digest(tmp_path: Path) -> None:
    write(tmp_path / "problem.json", everything())
    assert json.loads((tmp_path / "problem.json").read_text())["sha256"] == everything().digest


def test_a_file_whose_figures_were_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "problem.json"
    write(path, generate(0, layers=3, options=2))
    stored = json.loads(path.read_text())
    stored["arrays"]["row_costs"][0] += 1
    path.write_text(json.dumps(stored))
    with pytest.raises(ProblemFileError, match="sha256"):
        read_problem(path)


def test_a_file_without_a_known_suffix_is_a_knapsack(tmp_path: Path) -> None:
    (tmp_path / "I99").write_text(written(generate(0, layers=3, options=2)))
    assert isinstance(read(tmp_path / "I99"), Knapsack)
    write(tmp_path / "problem.npz", everything())
    assert isinstance(read(tmp_path / "problem.npz"), Problem)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda stored: stored.pop("rows"), "'rows' is missing"),
        (lambda stored: stored.update(form="a letter"), "it says that it is 'a letter'"),
        (lambda stored: stored["arrays"].update(start=[0, 1.5]), "start is float64"),
        (lambda stored: stored["arrays"].update(row_start=[0, 5]), "row_start ends at 5"),
        (lambda stored: stored["arrays"].update(row_start=[0, -5, 4]), "row_start does not ascend"),
        (lambda stored: stored["arrays"].update(row_costs=[2**70] * 15), "loss.costs is object"),
        (lambda stored: stored["rows"][0].update(capacity="much"), "str"),
        (lambda stored: stored["rows"][0].update(peaks=3), "iterable"),
        (lambda stored: stored.update(objective=7), "the objective is row 7"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_name(tmp_path: Path, change, said: str) -> None:
    path = tmp_path / "problem.json"
    write(path, generate(0, layers=3, options=2))
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(ProblemFileError) as caught:
        read_problem(path)
    assert said in str(caught.value)
    assert "problem.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00\x01"])
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_what_is_no_problem_is_refused(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"broken.{suffix}"
    path.write_text(content)
    with pytest.raises(ProblemFileError, match="broken"):
        read(path)


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    write(path, everything())
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ProblemFileError, match=r"half\.npz"):
        read(path)


def test_another_suffix_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ProblemFileError, match=r"\.json or \.npz"):
        write(tmp_path / "problem.txt", everything())
