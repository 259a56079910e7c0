from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import samples
from onnx import numpy_helper

import planner
from planner import rewrite
from planner.cli import main
from planner.devices.simulated import SimulatedDevice
from planner.errors import InputError
from planner.measure import measure
from planner.measuring import builds
from planner.measuring.bench import Bench
from planner.measuring.store import Store

SHIPPED = planner.shipped("models/quick.onnx")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("chain")
    return networks.saved(networks.chain(), folder, "chain"), samples.archive(folder)


@pytest.fixture(scope="module")
def model(chain: tuple[Path, Path]) -> planner.Model:
    return planner.load(chain[0], data=chain[1])


@pytest.fixture(scope="module")
def quick() -> tuple[planner.Model, planner.CostTable]:
    model = planner.load(SHIPPED, data=planner.shipped("fashion_mnist.npz"))
    return model, measure([model], device="simulated", rounds=3, approximations=["int8w", "lowrank@0.5"])


def test_every_choice_of_every_layer_has_its_costs(quick) -> None:
    model, table = quick
    costs = table.model("quick")
    offered = rewrite.applicable(model.graph, ["int8w", "lowrank@0.5"])
    assert {layer.name: tuple(c.name for c in layer.choices) for layer in costs.layers} == offered
    assert any(len(choices) > 1 for choices in offered.values())
    for layer in costs.layers:
        for choice in layer.choices:
            assert choice.latency_ns > 0
            assert choice.activation_bytes > 0
            assert choice.loss == max(0.0, choice.loss_raw)
            assert choice.latency_std_ns is not None
            assert (choice.name == "exact") <= (choice.loss == choice.loss_std == 0)


def test_int8_and_low_rank_save_bytes_in_the_table(quick) -> None:
    _, table = quick
    for layer in table.model("quick").layers:
        by_name = {choice.name: choice.weight_bytes for choice in layer.choices}
        for name, size in by_name.items():
            if name != "exact":
                assert size < by_name["exact"], (layer.name, name)


def test_the_table_says_where_its_figures_come_from(quick) -> None:
    model, table = quick
    told = table.provenance
    assert told["device"] == "simulated"
    assert told["rounds"] == 3
    notes = told["models"]["quick"]
    assert notes["source_sha256"] == model.graph.source_digest
    assert notes["data_sha256"] == model.data().digest
    assert set(notes["whole_networks_ns"]) == {"exact", "int8w", "lowrank@0.5"}
    assert table.refit is True


def test_no_network_that_was_timed_exceeds_its_prediction(quick) -> None:
    _, table = quick
    costs = table.model("quick")
    for name, found in table.provenance["models"]["quick"]["whole_networks_ns"].items():
        chosen = [next((c for c in layer.choices if c.name == name), layer.choices[0]) for layer in costs.layers]
        predicted = costs.overhead_ns + sum(costs.scaled_ns(c) for c in chosen)
        assert found["median"] <= predicted


def test_the_table_reads_back_identical_and_is_planned_from_both_forms(quick, tmp_path: Path) -> None:
    _, table = quick
    table.write(tmp_path / "t.json")
    table.write(tmp_path / "t.csv")
    assert planner.CostTable.read(tmp_path / "t.json") == table
    budget = planner.Budget(memory_mib=0.5)
    plans = [planner.plan(planner.CostTable.read(tmp_path / n), budget, workers=1) for n in ("t.json", "t.csv")]
    assert plans[0].loss == pytest.approx(plans[1].loss)


def test_a_second_run_takes_its_losses_from_the_store(
    model: planner.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    single = Bench.measure

    def counted(self: Bench, layer: str, choice: str) -> object:
        calls.append(1)
        return single(self, layer, choice)

    monkeypatch.setattr(Bench, "measure", counted)

    def run(**more: object) -> planner.CostTable:
        calls.clear()
        arguments = {"device": "simulated", "rounds": 2, "approximations": ["int8w"], "store": tmp_path / "t.store"}
        return measure([model], **{**arguments, **more})

    first = run()
    assert len(calls) == 5
    assert first.provenance["summary"]["measured"]["loss"] == 5
    second = run()
    assert calls == []
    assert second.models == first.models
    assert second.provenance["summary"]["reused"]["loss"] == 5
    more = run(approximations=["int8w", "int4w"])
    assert len(calls) == 5
    assert more.provenance["summary"]["measured"]["loss"] == 5
    run(refit=False)
    assert len(calls) == 5


def test_more_rounds_and_more_choices_cost_only_what_is_new(model: planner.Model, tmp_path: Path) -> None:
    def run(approximations: list[str], rounds: int) -> dict[str, int]:
        table = measure(
            [model], device="simulated", rounds=rounds, approximations=approximations, store=tmp_path / "t.store"
        )
        return {kind: table.provenance["summary"][kind].get("network", 0) for kind in ("measured", "reused")}

    assert run(["int8w"], 2) == {"measured": 4, "reused": 0}
    assert run(["int8w"], 2) == {"measured": 0, "reused": 4}
    assert run(["int8w"], 3) == {"measured": 2, "reused": 4}
    assert run(["int8w", "lowrank@0.5"], 3) == {"measured": 3, "reused": 6}


def test_a_network_of_other_weights_costs_no_times_and_one_of_another_shape_does(
    chain: tuple[Path, Path], tmp_path: Path
) -> None:
    proto = networks.chain()
    for item in proto.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(0.9), item.name))
    paths = {
        "chain": chain[0],
        "twin": networks.saved(proto, tmp_path, "twin"),
        "other": networks.saved(networks.chain(height=12), tmp_path, "other"),
    }

    def run(name: str) -> tuple[int, int]:
        data = chain[1] if name != "other" else samples.archive(tmp_path, (3, 12, 8))
        model = planner.load(paths[name], data=data)
        table = measure([model], device="simulated", rounds=2, approximations=["int8w"], store=tmp_path / "t.store")
        summary = table.provenance["summary"]
        return summary["measured"].get("network", 0), summary["measured"].get("loss", 0)

    times, losses = run("chain")
    assert times > 0
    assert losses > 0
    assert run("twin") == (0, losses)
    assert run("other") == (times, losses)


class Outlining(SimulatedDevice):
    """A device that is asked for the memory of networks."""

    arena_bytes = 0

    def program(self, entry: object) -> object:
        program = super().program(entry)
        program.outline = None
        program.footprint = replace(program.footprint, arena_bytes=program.footprint.arena_bytes + self.arena_bytes)
        return program

    def outline(self, entry: object) -> None:
        raise AssertionError


def test_memory_is_learnt_once_for_the_same_choices_and_builds(
    model: planner.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studied = []
    monkeypatch.setattr(builds, "study", lambda *_, **__: studied.append(1))

    def run(device: Outlining, approximations: list[str]) -> int:
        studied.clear()
        measure([model], device=device, rounds=1, approximations=approximations, store=tmp_path / "t.store")
        return len(studied)

    assert run(Outlining(0), ["int8w"]) == 1
    assert run(Outlining(0), ["int8w"]) == 0
    assert run(Outlining(0), ["int8w", "lowrank@0.5"]) == 1
    changed = Outlining(0)
    changed.arena_bytes = 64
    assert run(changed, ["int8w"]) == 1


def test_progress_is_told_and_ends_at_its_whole(model: planner.Model) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    measure(
        [model],
        device="simulated",
        rounds=2,
        approximations=["int8w"],
        progress=lambda what, done, total: told.setdefault(what, []).append((done, total)),
    )
    assert any("timing" in what for what in told)
    for steps in told.values():
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert all(done <= total for done, total in steps)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"device": "abacus"}, "unknown device 'abacus'; there are: .*tvm"),
        ({"approximations": ["magic"]}, "magic.*int8w.*lowrank"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(model: planner.Model, more: dict, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        measure([model], **({"device": "simulated"} | more))


def test_models_need_names_of_their_own_and_data(model: planner.Model, chain: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="two models are called 'chain'"):
        measure([model, model], device="simulated")
    with pytest.raises(InputError, match="at least one"):
        measure([], device="simulated")
    with pytest.raises(InputError, match="'chain' was loaded without data"):
        measure([planner.load(chain[0])], device="simulated", rounds=1)


def test_the_command_measures_writes_and_keeps_its_samples(
    chain: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, data = chain
    out = tmp_path / "t.json"
    arguments = ["measure", f"net={network}", "--data", str(data), "--device", "simulated"]
    assert main([*arguments, "--rounds", "1", "--approximations", "int8w,perforate", "-o", str(out)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.store"]
    with Store(tmp_path / "t.store", create=False) as store:
        assert [run["status"] for run in store.runs()] == ["finished"]
        assert {about["choice"].partition("@")[0] for about in store.abouts("loss")} == {"int8w", "perforate"}
    table = json.loads(out.read_text())
    assert table["models"][0]["name"] == "net"
    said = capsys.readouterr()
    assert "conv1" in said.out
    pairs = table["provenance"]["summary"]["measured"]["loss"]
    assert f"{pairs} losses" in said.err
    # The store is looked into, and written out, without measuring anything.
    assert main(["measure", "--status", "-o", str(out), "--export", str(tmp_path / "t.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{pairs} losses" in lines[0]
    assert "run 1 on simulated" in lines[1]
    assert "finished" in lines[1]
    assert ["net", "losses", str(pairs), "0", "0"] in [line.split()[:5] for line in lines]
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["figure"] == "loss_raw" for row in rows) == pairs


def test_a_model_prints_its_layers_and_refuses_data_that_do_not_fit(chain: tuple[Path, Path], tmp_path: Path) -> None:
    model = planner.load(*chain[:1], data=chain[1])
    assert model.name == "chain"
    assert "conv1" in str(model)
    assert planner.load(chain[0], name="other").name == "other"
    with pytest.raises(InputError, match="chain"):
        planner.load(chain[0], data=samples.archive(tmp_path, (1, 28, 28)))
    with pytest.raises(InputError, match="without data"):
        planner.load(chain[0]).data()
