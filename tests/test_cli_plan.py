from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from problems import small_table

from planner.cli import main
from planner.compare import generate, relative_budget
from planner.errors import InputError
from planner.registry import discover, get


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    small_table().write(path)
    return path


def contents(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_plans_writes_and_checks(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", str(table), "--latency-ms", "0.0024", "--memory-mib", "0.5", "-o", str(out)]) == 0
    assert json.loads(out.read_text())["choices"] == {"m": {"conv1": "lowrank@0.5", "conv2": "exact"}}
    assert "lowrank@0.5" in capsys.readouterr().out
    assert main(["check", str(out), "--table", str(table)]) == 0
    small_table(overhead_ns=1).write(table)
    assert main(["check", str(out), "--table", str(table)]) == 1


def test_takes_a_bound_for_each_model(table: Path) -> None:
    assert main(["plan", str(table), "--latency-ms", "m=0.0024"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--latency-ms", "0"], "expected a positive number"),
        (["--latency-ms", "-1"], "expected a positive number"),
        (["--memory-mib", "0"], "expected a positive number"),
        (["--latency-ms", "x=1"], "'x'; in the table there are: m"),
        (["--latency-ms", "m=1,m=2"], "twice"),
        (["--latency-ms", "m=1,2"], "expected model=milliseconds"),
        (["--latency-ms", "fast"], "'fast'"),
        (["--solver", "magic"], "unknown solver 'magic'; there are: "),
        (["--time-limit-s", "0"], "time limit"),
        (["-o", "/no/such/folder/plan.json"], "/no/such/folder"),
    ],
)
def test_bad_input_is_refused_with_status_2_and_leaves_nothing(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    out = [] if "-o" in arguments else ["-o", str(tmp_path / "plan.json")]
    assert main(["plan", str(table), *out, *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error
    assert contents(tmp_path) == ["table.json"]


def test_a_folder_in_the_way_of_the_output_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(table), "-o", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_bad_table_is_refused_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,layer,choice,latency_ns,weight_bytes,loss\nm,a,exact,nan,1,0\n")
    assert main(["plan", str(path)]) == 2
    error = capsys.readouterr().err
    for part in ("t.csv", "line 2", "'m'", "'a'", "'exact'", "latency_ns"):
        assert part in error


def test_no_plan_is_status_3_with_the_reason(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(table), "--latency-ms", "0.001", "-o", str(tmp_path / "plan.json")]) == 3
    error = capsys.readouterr().err
    assert "latency of m" in error
    assert "at least 0.0014 ms alone" in error
    assert contents(tmp_path) == ["table.json"]


def test_a_solver_that_gives_up_is_status_4(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(table), "--latency-ms", "0.001", "--solver", "greedy"]) == 4
    assert "limit" in capsys.readouterr().err


def test_a_fault_of_ours_is_status_70(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken inside")

    monkeypatch.setattr("planner.planning.plan", fail)
    assert main(["plan", str(table)]) == 70
    assert "broken inside" in capsys.readouterr().err


def test_unknown_arguments_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan"])
    assert left.value.code == 2
    assert "TABLE" in capsys.readouterr().err


def test_sweeps_and_writes_points(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, image = tmp_path / "f.csv", tmp_path / "f.svg"
    arguments = ["sweep", str(table), "--latency-ms", "0.001", "0.002", "-o", str(out), "--plot", str(image)]
    assert main(arguments) == 0
    assert "infeasible" in capsys.readouterr().out
    assert len(out.read_text().splitlines()) == 3
    assert image.stat().st_size > 1000
    assert main(["sweep", str(table), "--latency-ms", "0.001"]) == 3


def test_compares_solvers(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.csv"
    arguments = ["compare-solvers", str(table), "--latency-ms", "0.0024", "--generate", "1,1,6,3"]
    assert main([*arguments, "--solvers", "cpsat,exhaustive", "--workers", "1", "-o", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 5
    assert "exhaustive" in capsys.readouterr().out
    assert main(["compare-solvers", str(table), "--solvers", "magic"]) == 2
    assert main(["compare-solvers", "--generate", "1,2"]) == 2
    assert main(["compare-solvers"]) == 2


def test_every_command_is_one_file_with_register_and_run() -> None:
    for name in discover("planner.commands"):
        module = get("planner.commands", name)
        assert callable(module.register)
        assert callable(module.run)


def test_an_unknown_module_lists_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"unknown command 'magic'; there are: .*plan"):
        get("planner.commands", "magic")
    with pytest.raises(InputError, match="no package"):
        discover("planner.nothing")


def test_a_reader_that_leaves_early_is_no_fault(table: Path) -> None:
    command = f"{sys.executable} -m planner.cli plan {table} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, cwd=Path(__file__).parent.parent)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("share", [0.7, 0.8, 0.85])
def test_a_foreign_table_of_200_layers_is_proven_optimal_in_five_seconds(tmp_path: Path, share: float) -> None:
    table = generate(1, models=1, layers=200, choices=12)
    table.write(tmp_path / "big.csv")
    budget = relative_budget(table, share, share)
    command = [
        sys.executable,
        "-m",
        "planner.cli",
        "plan",
        str(tmp_path / "big.csv"),
        "-o",
        str(tmp_path / "p.json"),
    ]
    command += ["--latency-ms", str(budget.latency_ms["model0"]), "--memory-mib", str(budget.memory_mib)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent.parent)
    assert time.perf_counter() - begin < 5
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["status"] == "optimal"
    assert found["gap"] == 0


def test_the_commands_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom planner.cli import _parser\n_parser()\n"
        "heavy = set('tvm ortools onnxruntime onnx matplotlib pandas pydantic scipy rich'.split())\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
