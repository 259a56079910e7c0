from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import layers
import networks
import numpy as np
import onnx
import pytest
from models import MADE, prepare

import planner

ROOT = Path(__file__).parent.parent
KEYS = {"model", "threads", "precision", "tvm_ms", "onnxruntime_ms", "speedup"}


def benchmark(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/{script}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_writes_a_record_for_each_network_and_precision(tmp_path: Path) -> None:
    path = networks.saved(networks.chain(1), tmp_path, "mine")
    out = tmp_path / "records.json"
    done = benchmark("networks.py", "--models", f"quick,{path}", "--rounds", 2, "--json", out)
    assert done.returncode == 0, done.stderr
    records = json.loads(out.read_text())
    assert [(r["model"], r["precision"]) for r in records] == [
        ("quick", "float32"),
        ("quick", "float32 direct"),
        ("mine", "float32"),
        ("mine", "float32 direct"),
    ]
    for record in records:
        assert record.keys() >= KEYS
        assert record["threads"] == 1
        assert record["speedup"] == pytest.approx(record["onnxruntime_ms"] / record["tvm_ms"])
        assert record["greatest_relative_difference"] <= 1e-4
        low, high = record["tvm_quartiles_ms"]
        assert low <= record["tvm_ms"] <= high
    assert "float32 direct, 1 thread(s): geometric mean of 2 networks" in done.stdout


def test_several_threads_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    arguments = ("--models", "quick", "--rounds", 1, "--threads", 2, "--precision", "int8", "--json", out)
    done = benchmark("networks.py", *arguments)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(out.read_text())
    assert record.keys() >= KEYS | {"onnxruntime_int8_ms"}
    assert (record["threads"], record["precision"], record["target"]["num-cores"]) == (2, "int8", 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--models", "quik"], "no network 'quik'; expected an ONNX file or one of quick, resnet8"),
        (["--precision", "int4"], "no precision 'int4'; expected some of float32, float32 direct, int8"),
        (["--threads", "2", "--search", "1"], "expected --threads 1 with --search"),
    ],
)
def test_a_bad_option_is_refused_with_what_exists(arguments: list[str], expected: str) -> None:
    done = benchmark("networks.py", *arguments)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_is_cut_before_its_softmax(tmp_path: Path) -> None:
    source = networks.saved(networks.branches(), tmp_path, "branches")
    (tmp_path / "made").mkdir()
    subject = prepare(str(source), tmp_path / "made")
    given = networks.images(networks.branches(), 2)
    logits = networks.run(onnx.load(subject.path), given)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, networks.run(networks.branches(), given), atol=1e-6)
    assert not any(node.op_type == "Softmax" for node in subject.folded.graph.node)


@pytest.mark.parametrize(("name", "million_macs"), [("mobilenet", 301), ("efficientnet", 385)])
def test_a_mobile_network_has_the_multiply_accumulates_that_are_published(
    name: str, million_macs: int, tmp_path: Path
) -> None:
    model = MADE[name]()
    onnx.checker.check_model(model, full_check=True)
    graph = planner.load(networks.saved(model, tmp_path, name)).graph
    assert graph.macs / 1e6 == pytest.approx(million_macs, rel=0.02)
    assert sum(node.op_type == "Clip" for node in model.graph.node) >= 30
    pads = {tuple(a.ints) for node in model.graph.node for a in node.attribute if a.name == "pads"}
    assert ((0, 0, 1, 1) in pads) is (name == "efficientnet")


def test_single_layers_are_set_beside_the_roofline_and_put_into_tables(tmp_path: Path) -> None:
    kernels, nets, page = tmp_path / "kernels.json", tmp_path / "networks.json", tmp_path / "performance.md"
    wanted = ("--kernels", "1x1 512-2048 7", "--precision", "float32,int8 weights", "--rounds", 1)
    done = benchmark("kernels.py", *wanted, "--json", kernels)
    assert done.returncode == 0, done.stderr
    records = json.loads(kernels.read_text())
    assert [(r["kernel"], r["precision"]) for r in records] == [
        ("1x1 512-2048 7", "float32"),
        ("1x1 512-2048 7", "int8 weights"),
    ]
    exact, stored = records
    assert exact["gflops"] == pytest.approx(2 * 49 * 512 * 2048 / exact["kernel_ms"] / 1e6)
    assert exact["share"] == pytest.approx(exact["roofline_ms"] / exact["kernel_ms"])
    assert exact["greatest_relative_difference"] <= 1e-4 < stored["greatest_relative_difference"] <= 0.02
    assert stored["moved_bytes"] < exact["moved_bytes"] - 2 * 512 * 2048
    assert benchmark("networks.py", "--models", "quick", "--rounds", 1, "--json", nets).returncode == 0
    done = benchmark("performance.py", "--networks", nets, "--kernels", kernels, "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert f"| quick | {json.loads(nets.read_text())[0]['tvm_ms']:.3f} |" in text
    assert f"| 1x1 512-2048 7 | float32 | {exact['tvm_ms']:.3f} | {exact['kernel_ms']:.3f} |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows}
    assert widths == {rows[0].count("|"), next(r for r in rows if "1x1 512" in r).count("|")}


@pytest.mark.parametrize("layer", layers.LAYERS, ids=lambda layer: layer.name)
def test_a_layer_is_a_valid_network_in_all_its_forms(layer) -> None:
    exact = layers.float32(layer)
    sizes = [layers.constant_bytes(exact)]
    for store in layers.STORED.values():
        model = store(layer)
        if model is not None:
            onnx.checker.check_model(model, full_check=True)
            assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [
                d.dim_value for d in exact.graph.output[0].type.tensor_type.shape.dim
            ]
            sizes.append(layers.constant_bytes(model))
    assert sizes == sorted(sizes, reverse=True)
