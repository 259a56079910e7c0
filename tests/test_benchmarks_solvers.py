from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import solving
import solving_front
import solving_page

from solvers.instances.generate import generate
from solvers.instances.mmkp import written

ROOT = Path(__file__).parent.parent


def benchmark(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/solvers.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_records_and_page_are_written_and_what_is_there_is_not_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "records.json", tmp_path / "solvers.md"
    arguments = ["--only", "small-models", "--instances", "1,1,6,4,skips,pairs,peaks"]
    arguments += ["--solvers", "exhaustive,greedy", "--time-limit-s", "5", "--rounds", "1", "--keep"]
    arguments += ["--json", str(out)]
    assert solving.main([*arguments, "--page", str(page)]) == 0
    records = json.loads(out.read_text())
    assert [(r["instance"], r["solver"]) for r in records] == [
        ("1,1,6,4,skips,pairs,peaks", "exhaustive"),
        ("1,1,6,4,skips,pairs,peaks", "greedy"),
    ]
    for record in records:
        assert record["checked"]
        assert record["groups"] == 6
        assert record["most_mib"] >= record["made_mib"] > 10
        assert record["objective"] >= records[0]["objective"]
    text = page.read_text()
    assert "| `exhaustive` | 1 of 1 |" in text
    assert "| `greedy` | 0 of 1 |" in text
    assert (tmp_path / "solvers-profile.svg").stat().st_size > 1000
    assert capsys.readouterr().err.count("\n") == 2
    assert solving.main(arguments) == 0
    assert capsys.readouterr().err == ""
    assert json.loads(out.read_text()) == records


def test_knapsacks_are_read_from_a_folder_and_shown_by_their_value(tmp_path: Path) -> None:
    (tmp_path / "I01").write_text(written(generate(0, layers=5, options=3), best=10**10))
    (tmp_path / "README").write_text("no knapsack")
    page = tmp_path / "solvers.md"
    arguments = ["--only", "mmkp", "--mmkp", str(tmp_path), "--solvers", "exhaustive", "--time-limit-s", "5"]
    assert solving.main([*arguments, "--page", str(page), "--json", str(tmp_path / "records.json")]) == 0
    (record,) = json.loads((tmp_path / "records.json").read_text())
    assert record["value"] == 10**10 - record["objective"]
    assert "| I01 |" in page.read_text()


def test_a_run_that_fails_is_said_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--only", "small-models", "--solvers", "greedy", "--rounds", "1", "--json", str(tmp_path / "r.json")]
    assert solving.main([*arguments, "--instances", "nonsense", "--instances", "0,1,4,3,chain"]) == 1
    assert "small-models nonsense greedy failed" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "r.json").read_text())) == 1


def test_a_front_is_solved_twice_and_gives_the_same_objectives() -> None:
    given = {"instance": "0,1,8,4,chain", "solver": "core", "time_limit_s": 5.0, "points": 7}
    record = solving_front.measure(given)
    assert record["same"]
    assert (record["points"], record["status"]) == (7, "optimal")
    assert 0 < record["feasible"] <= 7
    assert record["cold_s"] > 0
    assert record["seconds"] > 0
    shown = record | {"section": "front", "round": 0, "sources": "here", "machine": {"processor": "any", "cores": 1}}
    assert f"| {record['cold_s'] / record['seconds']:.2f} | yes | yes |" in "\n".join(solving_page.lines([shown]))


def test_what_does_not_exist_is_refused() -> None:
    done = benchmark("--only", "everything")
    assert done.returncode != 0
    assert "no section 'everything'; expected some of one-model" in done.stderr


@pytest.mark.parametrize("first", ["benchmarks", "."])
def test_the_script_gives_way_to_the_package_of_its_name(first: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / first)!r})\n"
        "import planner, solvers, solving\n"
        "assert solvers.get('greedy').name == 'greedy'\n"
        "import solvers.check\n"
    )
    if first == ".":
        code = code.replace(", solving", "")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
