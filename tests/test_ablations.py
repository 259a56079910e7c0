from __future__ import annotations

import json
from pathlib import Path

import ablations
import networks
import numpy as np
import pytest
import samples
from onnx import numpy_helper

import planner
from planner.calibration import Calibration
from planner.graph import LayerGraph
from planner.rewrite import apply


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """A network, its images, and where findings go, as arguments."""
    path, data = networks.saved(networks.chain(1), tmp_path, "mine"), samples.archive(tmp_path)
    return ("--models", str(path), "--data", str(data), "--folder", str(tmp_path / "out"))


@pytest.fixture
def graph(tmp_path: Path) -> LayerGraph:
    return planner.load(networks.saved(networks.chain(1), tmp_path)).graph


@pytest.fixture
def calibration(graph: LayerGraph) -> Calibration:
    return Calibration(graph, networks.images(graph.model, 64))


def arrays(model) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def test_low_rank_that_knows_no_data_is_the_singular_value_decomposition(
    graph: LayerGraph, calibration: Calibration
) -> None:
    choice = "lowrank@0.5"
    blind = apply(graph, {"conv2": choice}, calibration, refit=False, instead=ablations.shown(choice, ablations.white))
    aware = apply(graph, {"conv2": choice}, calibration, refit=False)
    weight = calibration.views["conv2"].linear.matrix
    left, values, right = np.linalg.svd(weight, full_matrices=False)

    def product(rewritten) -> np.ndarray:
        found = arrays(rewritten.model)
        expand, reduce = found["conv2.expand.weight"], found["conv2.reduce.weight"]
        return expand.reshape(len(expand), -1) @ reduce.reshape(len(reduce), -1)

    rank = len(arrays(blind.model)["conv2.reduce.weight"])
    truncated = left[:, :rank] * values[:rank] @ right[:rank]
    np.testing.assert_allclose(product(blind), truncated, atol=1e-5)
    assert np.abs(product(aware) - truncated).max() > 1e-3
    np.testing.assert_array_equal(arrays(blind.model)["conv2.expand.bias"], calibration.views["conv2"].linear.bias)


def test_without_bias_correction_biases_stay(graph: LayerGraph, calibration: Calibration) -> None:
    chosen = {"conv2": "int8w", "dense1": "int8w"}
    plain = apply(graph, chosen, calibration, refit=False, instead=ablations.uncorrected("int8w"))
    corrected = apply(graph, chosen, calibration, refit=False)

    def bias(rewritten, layer: str) -> np.ndarray:
        (node,) = (node for node in rewritten.model.graph.node if node.name == layer)
        return arrays(rewritten.model)[node.input[2]]

    for layer in chosen:
        exact = calibration.views[layer].linear.bias
        np.testing.assert_array_equal(bias(plain, layer), exact)
        assert np.abs(bias(corrected, layer) - exact).max() > 0
    assert {node.op_type for node in plain.model.graph.node} == {node.op_type for node in corrected.model.graph.node}


def test_variants_are_judged_against_exact_and_against_the_last(small: tuple[str, ...], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- ablations -->\n<!-- end of ablations -->\n")
    given = [*small, "--ablations", "data,refit", "--choices", "lowrank@0.5,fp16w", "--page", str(page)]
    assert ablations.main(given) == 0
    found = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert [(f["ablation"], f["choice"], f["variant"]) for f in found] == [
        ("data", "lowrank@0.5", "plain SVD"),
        ("data", "lowrank@0.5", "whitened"),
        ("data", "lowrank@0.5", "whitened, behind the activation"),
        ("data", "lowrank@0.5", "plain SVD, refit"),
        ("data", "lowrank@0.5", "whitened, refit"),
        ("data", "lowrank@0.5", "whitened, behind the activation, refit"),
        ("refit", "fp16w", "without"),
        ("refit", "fp16w", "refit"),
        ("refit", "lowrank@0.5", "without"),
        ("refit", "lowrank@0.5", "refit"),
    ]
    by_name = {(f["ablation"], f["choice"], f["variant"]): f for f in found}
    assert by_name["data", "lowrank@0.5", "whitened, behind the activation, refit"]["behind"] == 0
    without, refit = by_name["refit", "lowrank@0.5", "without"], by_name["refit", "lowrank@0.5", "refit"]
    assert without["behind"] == pytest.approx(without["top1_change"] - refit["top1_change"])
    # The same network, rewritten the same way in both ablations.
    assert by_name["data", "lowrank@0.5", "whitened, behind the activation"]["loss"] == without["loss"]
    row = f"| `lowrank@0.5` | without | {without['top1_change']:+.2f} ± {without['top1_change_std']:.2f} |"
    assert row in page.read_text()


def test_findings_are_kept_until_the_sources_change(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*small, "--ablations", "refit", "--choices", "fp16w"]
    assert ablations.main(given) == 0
    first = (tmp_path / "out" / "ablations.json").read_text()
    capsys.readouterr()
    assert ablations.main(given) == 0
    monkeypatch.setattr(ablations, "state", lambda: "another")
    assert ablations.main([*given, "--keep"]) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "out" / "ablations.json").read_text() == first
    assert ablations.main(given) == 0
    again = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert [finding["state"] for finding in again] == ["another", "another"]


def test_an_unknown_ablation_is_refused_with_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ablations.main(["--ablations", "appendix"])
    said = "no ablation 'appendix'; expected some of data, bias, rounding, calibration, equalisation, masks, refit"
    assert said in capsys.readouterr().err
