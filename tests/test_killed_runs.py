from __future__ import annotations

import sys
from pathlib import Path

import killed_runs
import networks
import pytest
import samples

from costmodels import CostTable
from planner.measuring.store import Sample, Store


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("chain")
    network, data = networks.saved(networks.chain(), folder, "chain"), samples.archive(folder)
    measure = [sys.executable, "-m", "planner.cli", "measure", str(network), "--data", str(data)]
    return [*measure, "--device", "simulated", "--approximations", "int8w", "--rounds", "15", "--jobs", "1"]


def test_a_run_that_is_killed_and_resumed_ends_in_the_table_of_one_left_alone(
    command: list[str], tmp_path: Path
) -> None:
    trial = killed_runs.Trial(command, tmp_path, seed=1)
    whole, seconds = trial.whole()
    for table in trial.killed(3, seconds):
        faults, within = killed_runs.differences(table, whole)
        assert faults == []
        assert within >= 0.9
    assert len(trial.kills) == 3
    assert trial.faults == []


def test_two_runs_at_once_on_one_store_end_in_two_whole_tables_of_the_same_losses(
    command: list[str], tmp_path: Path
) -> None:
    store = tmp_path / "shared.store"
    trial = killed_runs.Trial([*command, "--store", str(store)], tmp_path, seed=1)
    running = [trial.start(name) for name in ("one", "two")]
    assert [process.wait(120) for process in running] == [0, 0]
    one, two = (CostTable.read(tmp_path / f"{name}.json") for name in ("one", "two"))
    faults, within = killed_runs.differences(one, two)
    assert faults == []
    assert within >= 0.9
    # They have shared the losses: each was measured by one of them.
    summaries = [table.provenance["summary"] for table in (one, two)]
    pairs = sum(summary["measured"].get("loss", 0) for summary in summaries)
    with Store(store, create=False) as kept:
        kept.check()
        assert [run["status"] for run in kept.runs()] == ["finished", "finished"]
        assert pairs == len(kept.abouts("loss")) > 0


def test_what_is_lost_doubled_or_changed_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.store"
    with Store(path) as store:
        store.put("loss", {"layer": "a"}, 1)
        store.add_samples("t", {"b": 1}, [Sample(round=n, nanoseconds=1.0) for n in (0, 2)])
    rows = killed_runs.contents(path)
    assert len(rows) == 3
    assert killed_runs.faults_of(path, rows, ended=False) == []
    (fault,) = killed_runs.faults_of(path, rows, ended=True)
    assert "lacks rounds: it has [0, 2]" in fault
    (fault,) = killed_runs.faults_of(path, {**rows, ("sample", "t", "x", 1, 0): ()}, ended=False)
    assert fault.endswith("was lost")
    (fault,) = killed_runs.faults_of(path, {key: (*row[:-1], "other") for key, row in rows.items()}, ended=False)[:1]
    assert fault.endswith("was changed")
    with Store(path) as store:
        store.add_samples("t", {"b": 1}, [Sample(round=0, nanoseconds=1.0)])
    (fault,) = killed_runs.faults_of(path, rows, ended=False)
    assert fault.endswith("has two samples of a round")
