from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import networks
import pytest
import samples

import planner
from planner.budget import Budget
from planner.compare import generate, relative_budget
from planner.whatif import Frontier, sweep


@contextmanager
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as found:
        yield found


@contextmanager
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as found:
        yield found


@contextmanager
def dask() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    here = {"dashboard_address": ":0", "processes": False}
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, **here) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


EXECUTORS: list[Callable[[], AbstractContextManager[Executor]]] = [threads, processes, dask]


@pytest.fixture(params=EXECUTORS, ids=lambda found: found.__name__)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with request.param() as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> planner.Model:
    folder = tmp_path_factory.mktemp("executors")
    return planner.load(networks.saved(networks.chain(), folder, "net"), data=samples.archive(folder))


@pytest.fixture(scope="module")
def alone(model: planner.Model) -> planner.CostTable:
    return planner.measure([model], device="simulated", rounds=1, approximations=["int8w", "lowrank@0.5"])


def losses(table: planner.CostTable) -> dict[tuple[str, str], tuple[float, float, float]]:
    return {
        (layer.name, choice.name): (choice.loss_raw, choice.loss_std, choice.top1_change)
        for layer in table.model("net").layers
        for choice in layer.choices
    }


def test_losses_are_the_same_wherever_they_are_measured(
    executor: Executor, model: planner.Model, alone: planner.CostTable
) -> None:
    approximations = ["int8w", "lowrank@0.5"]
    table = planner.measure([model], device="simulated", rounds=1, approximations=approximations, executor=executor)
    assert losses(table) == losses(alone)
    assert any(loss for loss, _, _ in losses(table).values())


def points(frontier: Frontier) -> list[tuple[object, ...]]:
    """What a sweep promises; warm starts change which of several equal plans is found, and how long that takes."""
    return [
        (p.budget, p.status, p.reason, *((p.plan.loss, p.plan.bound, p.plan.gap) if p.plan else ()))
        for p in frontier.points
    ]


def test_a_sweep_finds_the_same_wherever_it_is_planned(executor: Executor) -> None:
    table = generate(3, models=1, layers=8, choices=4)
    exact = float(relative_budget(table, 1.0, 1.0).latency_ms["model0"])
    bounds = [exact * share for share in (0.01, 0.75, 0.9, 1.0)]
    serial = sweep(table, Budget(), latency_ms=bounds, workers=1)
    spread = sweep(table, Budget(), latency_ms=bounds, executor=executor)
    assert points(spread) == points(serial)
    assert [point.status for point in spread.points] == ["infeasible", *["optimal"] * 3]
    # Losses of these tables differ, so that the plans are the same ones too.
    assert [plan.choices for plan in spread.plans] == [plan.choices for plan in serial.plans]


def test_what_goes_wrong_elsewhere_is_raised_here(executor: Executor) -> None:
    with pytest.raises(planner.InputError, match="unknown solver 'magic'"):
        sweep(generate(0, models=1), Budget(), solver="magic", executor=executor)


def test_a_sweep_is_planned_by_several_processes_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from planner.cli import main

    generate(3, models=1, layers=8, choices=4).write(tmp_path / "table.json")
    arguments = ["sweep", str(tmp_path / "table.json"), "--latency-ms", "1", "1000"]
    assert main([*arguments, "--jobs", "2"]) == 0
    side_by_side = capsys.readouterr().out
    assert main([*arguments, "--jobs", "1"]) == 0
    assert side_by_side == capsys.readouterr().out
    assert main([*arguments, "--jobs", "0"]) == 2
    assert "--jobs is 0" in capsys.readouterr().err
