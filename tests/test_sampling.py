from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from planner.devices import Footprint
from planner.measuring.quiet import Quiet, canary
from planner.measuring.sampling import ATTEMPTS, DRIFTED, Plan, Timed, times
from planner.measuring.store import Store

LAYERS = ("a", "b")


class Machine:
    """A clock that may drift, and may be disturbed."""

    def __init__(self, *, noise: float = 0.002, drift: float = 0.0, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.noise, self.drift = noise, drift
        self.asked = 0
        self.jumps: dict[int, float] = {}

    def takes(self, nanoseconds: float) -> float:
        self.asked += 1
        jump = self.jumps.get(self.asked, 1.0)
        speed = 1.0 + self.drift * self.asked
        return nanoseconds * jump * speed * (1 + self.noise * float(self.random.standard_normal()))


class Fake:
    def __init__(self, machine: Machine, *parts: float) -> None:
        self.machine, self.parts = machine, parts
        self.footprint = Footprint(
            weight_bytes=dict.fromkeys(LAYERS, 0),
            live_bytes=dict.fromkeys(LAYERS, 0),
            arena_bytes=0,
            kernels=dict.fromkeys(LAYERS, 1),
        )

    def sample(self) -> float:
        return self.machine.takes(sum(self.parts))

    def sample_layers(self) -> Mapping[str, float]:
        return {layer: self.machine.takes(part) for layer, part in zip(LAYERS, self.parts, strict=True)}

    def run(self, inputs: Any) -> Any:
        raise NotImplementedError


class Here:
    """A device that has programs only."""


def timed(machine: Machine, store: Store, plan: Plan, **others: tuple[float, float]) -> tuple[dict[str, Timed], float]:
    programs = {"exact": Fake(machine, 600.0, 400.0)} | {k: Fake(machine, *v) for k, v in others.items()}
    abouts = {name: {"build": name} for name in programs}
    return times(programs, "exact", Here(), store, abouts, plan, lambda *_: None)  # type: ignore[arg-type]


def test_timing_ends_when_every_figure_is_certain_and_not_before() -> None:
    with Store(None) as store:
        found, _ = timed(Machine(noise=0.0005), store, Plan(least=5, most=60), fast=(300.0, 100.0))
        assert {one.rounds for one in found.values()} == {5}
    with Store(None) as store:
        found, _ = timed(Machine(noise=0.012), store, Plan(least=5, most=60), fast=(300.0, 100.0))
        assert 5 < found["fast"].rounds <= 60
        assert found["fast"].network.error <= 0.005 * 400 or found["fast"].rounds == 60


def test_a_machine_that_slows_down_all_along_shows_what_it_takes_beside_its_control() -> None:
    with Store(None) as store:
        found, reference = timed(Machine(noise=0.001, drift=2e-4), store, Plan(least=25, most=25), half=(350.0, 150.0))
    assert found["half"].network.median / reference == pytest.approx(0.5, rel=0.01)
    assert found["half"].layers["a"].median / reference == pytest.approx(0.35, rel=0.01)
    raw = found["half"].network.spread / found["half"].network.median
    assert raw < 0.01  # 25 rounds slow the machine down by a twentieth


def test_a_sample_whose_control_moved_is_taken_again() -> None:
    machine = Machine(noise=0.0)
    with Store(None) as store:
        machine.jumps = {22: 1.5}  # a control behind the second sample of the exact network
        timed(machine, store, Plan(least=5, most=5), half=(350.0, 150.0))
        samples = store.samples("network", {"build": "half"})
        assert [sample.mark for sample in samples] == [""] * 5
        assert [sample.nanoseconds for sample in samples] == [500.0] * 5
        assert store.summary()["retried"][0]["reason"].startswith("the control had moved")


def test_what_drifts_after_all_attempts_is_kept_and_marked_and_does_not_count() -> None:
    machine = Machine(noise=0.0)
    with Store(None) as store:
        # Every other answer is late, for long enough that all attempts see it.
        machine.jumps = {n: 1.5 for n in range(60, 60 + 4 * (ATTEMPTS + 2)) if n % 2}
        found, _ = timed(machine, store, Plan(least=9, most=9), half=(350.0, 150.0))
        marks = [sample.mark for sample in store.samples("network", {"build": "half"})]
        marks += [sample.mark for sample in store.samples("network", {"build": "exact"})]
        assert marks.count(DRIFTED) >= 1
        assert sum(one.drifted for one in found.values()) == marks.count(DRIFTED)
        assert found["half"].network.median == pytest.approx(500.0)


def test_a_run_that_was_stopped_takes_the_rounds_that_are_missing_and_no_other() -> None:
    with Store(None) as store:
        store.begin({})
        timed(Machine(), store, Plan(least=4, most=4), half=(350.0, 150.0))
        before = store.samples("layer", {"layer": "a", "network": _digest("half")})
        store.end("killed")
        store.begin({})
        found, _ = timed(Machine(seed=1), store, Plan(least=7, most=7), half=(350.0, 150.0))
        after = store.samples("layer", {"layer": "a", "network": _digest("half")})
        assert after[: len(before)] == before
        assert [sample.round for sample in after] == list(range(7))
        assert found["half"].rounds == 7
        asked = Machine()
        again, _ = timed(asked, store, Plan(least=7, most=7), half=(350.0, 150.0))
        assert asked.asked == 0
        assert again["half"].network.median == found["half"].network.median


def _digest(build: str) -> str:
    from planner.measuring.records import digest

    return digest({"build": build})


def test_other_work_on_the_machine_is_seen_and_waited_for() -> None:
    answers = iter([100.0] * 40 + [180.0] * 3 + [101.0] * 10)
    still = Quiet(lambda: next(answers), patience_s=5.0)
    assert not any(still.disturbed() for _ in range(8))
    assert still.disturbed()
    still.wait()
    assert not still.disturbed()


def test_patience_ends() -> None:
    calm = iter([100.0] * 32)
    still = Quiet(lambda: next(calm, 300.0), patience_s=0.03)
    for _ in range(20):
        still.wait()
    assert still.disturbed()


def test_the_loop_takes_some_time() -> None:
    assert 1e3 < canary() < 1e8


def test_rounds_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds from 9 to 3"):
        Plan(least=9, most=3)
