from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import networks
import pytest
import samples

import planner
from costmodels import ChoiceCost, CostTable, LayerCosts, ModelCosts
from planner.devices import open_device
from planner.measuring.energy import MOST_W, Meter, UnreadableError, measures_here, open_meter, with_energy

WRAPS_AT_UJ = 262_143_328_850


class Machine:
    """A powercap tree as the kernel shows it, and a clock that its counters go by."""

    def __init__(self, folder: Path, watts: float = 10.0, memory_watts: float = 2.0) -> None:
        self.root = folder / "intel-rapl"
        self.now = 0.0
        self.watts = {self._zone("intel-rapl:0", "package-0"): watts}
        self._zone("intel-rapl:0/intel-rapl:0:0", "core")
        self.watts[self._zone("intel-rapl:0/intel-rapl:0:1", "dram")] = memory_watts

    def _zone(self, name: str, kind: str) -> Path:
        zone = self.root / name
        zone.mkdir(parents=True)
        for file, text in (("name", kind), ("energy_uj", 5_000_000), ("max_energy_range_uj", WRAPS_AT_UJ)):
            (zone / file).write_text(f"{text}\n")
        return zone

    def run(self, watts: float, seconds: float = 0.01) -> None:
        """Let time pass while the processor draws so much beyond idle."""
        self.now += seconds
        for zone, idle in self.watts.items():
            drawn = idle + (watts if zone.name == "intel-rapl:0" else 0.0)
            counter = zone / "energy_uj"
            counter.write_text(f"{int(counter.read_text()) + round(1e6 * drawn * seconds)}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine that zeus reads in place of this one."""
    import zeus.device.cpu as cpus
    from zeus.device.cpu import rapl

    made = Machine(tmp_path)
    monkeypatch.setattr(rapl, "RAPL_DIR", str(made.root))
    monkeypatch.setattr(cpus, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
    # The process that looks for counters that begin anew is not what is tested here.
    monkeypatch.setattr(rapl, "RaplWraparoundTracker", lambda *_: SimpleNamespace(get_num_wraparounds=lambda: 0))
    monkeypatch.setattr("planner.measuring.energy.Meter", lambda joules, source: meter_on(made, joules, source))
    yield made
    rapl.rapl_is_available.cache_clear()


def meter_on(machine: Machine, joules, source: str) -> Meter:
    return Meter(joules, source, clock=lambda: machine.now, sleep=lambda seconds: machine.run(0.0, seconds))


def test_idle_power_is_taken_off_and_memory_counts(machine: Machine) -> None:
    meter = open_meter()
    assert meter.source == "RAPL of 1 socket(s), memory included"
    assert meter.idle.watts == pytest.approx(12.0, rel=1e-3)
    assert meter.above_idle(lambda: machine.run(25.0)).watts == pytest.approx(25.0, rel=1e-3)


def test_what_is_measured_runs_for_half_a_second_however_short_it_is(machine: Machine) -> None:
    meter, runs = open_meter(), []
    meter.above_idle(lambda: runs.append(machine.run(25.0, 0.01)))
    assert len(runs) >= 3 * 50


def test_a_counter_that_begins_anew_is_read_again(machine: Machine) -> None:
    meter = open_meter()
    counter = machine.root / "intel-rapl:0" / "energy_uj"
    wraps = iter([True])

    def run() -> None:
        machine.run(25.0)
        if next(wraps, False):
            counter.write_text("0\n")

    assert meter.above_idle(run).watts == pytest.approx(25.0, rel=1e-3)


def test_a_counter_that_is_never_right_is_an_error() -> None:
    values = iter(range(0, 10**12, 10**8))
    with pytest.raises(UnreadableError, match=rf"expected 0 to {MOST_W:g} W"):
        Meter(lambda: float(next(values)), "a broken counter", clock=iter(range(10**6)).__next__, sleep=lambda _: None)


def costs() -> ModelCosts:
    def choice(name: str, latency_ns: int) -> ChoiceCost:
        return ChoiceCost(name=name, latency_ns=latency_ns, weight_bytes=64, loss=0.0)

    layers = (
        LayerCosts(name="conv", choices=(choice("exact", 1000), choice("int8", 400))),
        LayerCosts(name="fc", choices=(choice("exact", 300),)),
    )
    return ModelCosts(name="m", layers=layers)


def builds(machine: Machine, exact: float, int8: float) -> dict[str, SimpleNamespace]:
    def build(watts: float, **choices: str) -> SimpleNamespace:
        return SimpleNamespace(choices=choices, program=SimpleNamespace(sample=lambda: machine.run(watts)))

    return {"exact": build(exact, conv="exact", fc="exact"), "int8": build(int8, conv="int8", fc="exact")}


def test_a_layer_has_its_share_by_time_of_the_power_of_its_build(machine: Machine, tmp_path: Path) -> None:
    told = []
    found, noted = with_energy(costs(), builds(machine, 20.0, 35.0), open_meter(), lambda *done: told.append(done))
    energies = {(la.name, c.name): c.energy_nj for la in found.layers for c in la.choices}
    assert energies["conv", "exact"] == pytest.approx(20 * 1000, rel=1e-3)
    assert energies["conv", "int8"] == pytest.approx(35 * 400, rel=1e-3)
    assert energies["fc", "exact"] == pytest.approx(20 * 300, rel=1e-3)
    assert noted["idle_w"] == pytest.approx(12.0, rel=1e-3)
    assert noted["builds_w"]["int8"]["above_idle"] == pytest.approx(35.0, rel=1e-3)
    assert told == [(1, 2), (2, 2)]
    for name in ("table.csv", "table.json"):
        CostTable(models=(found,), provenance={"energy": noted}).write(tmp_path / name)
        read = CostTable.read(tmp_path / name).model("m")
        assert [c.energy_nj for la in read.layers for c in la.choices] == list(energies.values())


def test_a_build_that_drew_no_more_than_the_idle_machine_gives_no_energy(machine: Machine) -> None:
    found, _ = with_energy(costs(), builds(machine, 20.0, -1.0), open_meter(), lambda *_: None)
    energies = {(la.name, c.name): c.energy_nj for la in found.layers for c in la.choices}
    assert energies["conv", "int8"] is None
    assert energies["conv", "exact"] is not None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> planner.Model:
    folder = tmp_path_factory.mktemp("energy")
    return planner.load(networks.saved(networks.chain(), folder, "net"), data=samples.archive(folder))


def energies_of(table: CostTable) -> set[bool]:
    return {c.energy_nj is not None for layer in table.model("net").layers for c in layer.choices}


def test_a_table_has_energy_where_counters_are_read_and_it_was_asked_for(
    machine: Machine, model: planner.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from planner.devices.onnxruntime import OnnxRuntimeProgram

    monkeypatch.setattr(OnnxRuntimeProgram, "sample", lambda _: machine.run(25.0) or 1e6)
    table = planner.measure([model], device="onnxruntime", rounds=1, approximations=["int8w"], energy=True)
    assert energies_of(table) == {True}
    assert table.provenance["models"]["net"]["energy"]["idle_w"] == pytest.approx(12.0, rel=1e-3)
    assert energies_of(planner.measure([model], device="onnxruntime", rounds=1, approximations=["exact"])) == {False}


@pytest.mark.skipif(Path("/sys/class/powercap/intel-rapl").exists(), reason="this machine has counters")
def test_without_counters_there_is_no_energy_and_the_reason_is_kept(
    model: planner.Model, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnreadableError, match="RAPL"):
        open_meter()
    table = planner.measure([model], device="onnxruntime", rounds=1, approximations=["exact"], energy=True)
    assert energies_of(table) == {False}
    assert "RAPL" in table.provenance["energy"]
    assert "energy is left out" in caplog.text


def test_what_runs_elsewhere_or_nowhere_draws_nothing_here(model: planner.Model) -> None:
    assert measures_here(open_device("onnxruntime"))
    assert not measures_here(open_device("simulated"))
    table = planner.measure([model], device="simulated", rounds=1, approximations=["exact"], energy=True)
    assert energies_of(table) == {False}
    assert "simulated" in table.provenance["energy"]
