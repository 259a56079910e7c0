from __future__ import annotations

import sys
from pathlib import Path

import pytest
from problems import small_table

import planner
from planner.errors import InfeasibleError
from planner.verify import Promise, Report

deploying = sys.modules["planner.deploy"]


class Machine:
    """Stands for building and measuring: its networks take a constant factor longer than the shipped table says."""

    def __init__(self, factor: float) -> None:
        self.factor, self.built = factor, []

    def build(self, plan: planner.Plan, models: object, **_: object) -> str:
        self.built.append(plan)
        return "build"

    def verify(self, out: object, **_: object) -> Report:
        plan = self.built[-1]
        table = small_table().model("m")
        true_ns = sum(layer.choice(plan.choices["m"][layer.name]).latency_ns for layer in table.layers)
        return Report(
            promises=(
                Promise(
                    what="latency of m",
                    bound=plan.budget.latency_ns("m"),
                    predicted=plan.latency_ns["m"],
                    measured=self.factor * true_ns,
                    unit="ns",
                ),
                Promise(
                    what="memory", bound=None, predicted=plan.memory_bytes, measured=plan.memory_bytes, unit="bytes"
                ),
            ),
            networks=(),
            attempts=1,
            build=str(out),
        )


def deploy(machine: Machine, monkeypatch: pytest.MonkeyPatch, folder: Path, latency_ms: float, **more: object):
    monkeypatch.setattr(deploying, "build", machine.build)
    monkeypatch.setattr(deploying, "verify", machine.verify)
    budget = planner.Budget(latency_ms=latency_ms)
    return planner.deploy(small_table(), budget, [], out=folder, data="unused", **more)


def test_a_promise_that_is_kept_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(1.0)
    done = deploy(machine, monkeypatch, tmp_path, 0.0024)
    assert done.rounds == len(machine.built) == 1
    assert done.report.ok
    assert done.table == small_table()


def test_a_broken_promise_is_planned_again_on_a_corrected_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(1.3)
    done = deploy(machine, monkeypatch, tmp_path, 0.0024)
    assert machine.built[0].choices["m"] == {"conv1": "lowrank@0.5", "conv2": "exact"}
    assert done.report.ok
    assert done.rounds == 2
    assert done.plan.latency_ns["m"] <= 2400
    assert done.plan.loss > machine.built[0].loss


def test_the_last_build_is_handed_over_marked_where_rounds_run_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = deploy(Machine(1.3), monkeypatch, tmp_path, 0.0024, rounds=1)
    assert done.rounds == 1
    assert not done.report.ok


def test_a_machine_too_slow_for_any_plan_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match="latency of m"):
        deploy(Machine(4.0), monkeypatch, tmp_path, 0.0024)
