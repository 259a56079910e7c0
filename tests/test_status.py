from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.measuring.records import Phase
from planner.measuring.status import status, summarised
from planner.measuring.store import Sample, Store

KILLED = """
import os, sys
from planner.measuring.records import Phase
from planner.measuring.store import Store
store = Store(sys.argv[1])
store.begin({"device": "tvm"})
store.mark_phases([
    Phase(model="quick", phase="losses", done=30, total=30, reused=10, seconds=40.0),
    Phase(model="quick", phase="timing builds", done=1, total=5, seconds=3.0),
    Phase(model="vggs", phase="losses", total=50),
])
os._exit(9)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "t.store"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 9
    with Store(path) as opened:
        yield opened


def test_a_killed_run_says_what_is_open_and_how_long_that_would_take(store: Store) -> None:
    (run,) = status(store).runs
    assert (run.status, run.device) == ("killed", "tvm")
    assert [(p.model, p.phase, p.done, p.open, p.reused) for p in run.phases] == [
        ("quick", "losses", 30, 0, 10),
        ("quick", "timing builds", 1, 4, 0),
        ("vggs", "losses", 0, 50, 0),
    ]
    # 2 s a loss and 3 s a round were measured.
    assert run.remaining_s == 50 * 2.0 + 4 * 3.0
    text = str(status(store))
    assert "runs: 1 killed" in text
    assert "killed, about 1 min 52 s left" in text
    assert ["vggs", "losses", "0", "50", "0", "0.0", "s"] in [line.split() for line in text.splitlines()]


def test_runs_that_are_running_are_shown_rather_than_those_that_ended(store: Store) -> None:
    with store.running({"device": "simulated"}):
        store.mark_phases([Phase(model="quick", phase="losses", done=1, total=2, seconds=1.0)])
        store.put("loss", {"n": 1}, 1)
        store.add_samples("network", {"n": 1}, [Sample(round=n, nanoseconds=1.0) for n in (0, 1)])
        found = status(store)
    assert [(run.run, run.status, run.remaining_s) for run in found.runs] == [(2, "running", 1.0)]
    assert (found.results, found.samples) == ({"loss": 1}, {"network": 2})
    assert found.ended == {"killed": 1, "running": 1}


def test_a_finished_run_has_nothing_left(store: Store) -> None:
    with store.running({"device": "simulated"}):
        store.mark_phases([Phase(model="quick", phase="losses", done=2, total=2, seconds=1.0)])
    text = str(status(store))
    assert "run 2 on simulated" in text
    assert "left" not in text


def test_an_empty_store_says_so() -> None:
    with Store(None) as empty:
        assert str(status(empty)) == "the store in memory: nothing yet; runs: none"


def test_a_summary_tells_what_was_repeated_and_why() -> None:
    summary = {
        "measured": {"loss": 3, "network": 40},
        "reused": {"loss": 2},
        "retried": [
            {"what": "quick: timing", "reason": "the control moved by 7 %", "times": 2},
            {"what": "server 127.0.0.1", "reason": "connection lost", "times": 1},
        ],
    }
    assert summarised(summary).splitlines() == [
        "measured: 3 losses, 40 times of networks",
        "reused: 2 losses",
        "retried: quick: timing (the control moved by 7 %, 2 times); server 127.0.0.1 (connection lost)",
    ]
