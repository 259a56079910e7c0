"""Softmax, layer normalisation and reductions: the families that go over a tensor row by row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder
from tvm.target import Target

from benchmarks.encoder import encoder
from planner.compiler import fuse_networks, host_target, schedule_networks
from planner.schedules.families.reduction import collapsed

LENGTHS = (1, 5, 16, 37, 64, 100, 384, 1000)
NARROW = pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])


def softmax(shape: tuple[int, ...], axis: int = -1, op: str = "Softmax"):
    b = Builder(shape)
    x = b.add("Mul", ["image", b.constant(np.float32(20.0), "steep")], name="steepened")
    x = b.add(op, [x], name="shares", axis=axis)
    return b.model(b.add("Mul", [x, b.constant(np.float32(2.0), "two")], name="doubled"))


def norm(shape: tuple[int, ...], axis: int = -1):
    b = Builder(shape)
    size = shape[axis:]
    x = b.add("Add", ["image", b.constant(np.float32(7.0), "seven")], name="lifted")
    names = [x, b.weights(size, "gain"), b.weights(size, "shift")]
    return b.model(b.add("Relu", [b.add("LayerNormalization", names, name="norm", axis=axis)], name="relu"))


def reduction(shape: tuple[int, ...], axes: tuple[int, ...], op: str = "ReduceMean", keepdims: int = 1):
    b = Builder(shape, opset=13)
    x = b.add("Mul", ["image", b.constant(np.float32(1.5), "factor")], name="scaled")
    more = {} if op == "ReduceSum" else {"axes": list(axes)}
    inputs = [x, b.constant(np.array(axes), "axes")] if op == "ReduceSum" else [x]
    x = b.add(op, inputs, name="reduced", keepdims=keepdims, **more)
    return b.model(b.add("Tanh", [x], name="tanh"))


def families(entry) -> set[str]:
    return {schedule.split()[0] for schedule in compiled(entry)[0].schedules.values()}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_softmax_computes_what_onnxruntime_computes(length: int) -> None:
    entry = raw(softmax((1, 3, 5, length)))
    assert_as_onnxruntime(entry)
    found, _ = compiled(entry)
    assert {f"softmax keep={int(length <= 256)}"} <= set(found.schedules.values())
    assert not any(found.workspaces.values())


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_classes_with_trailing_ones_is_one_of_rows(op: str) -> None:
    entry = raw(softmax((1, 40, 1, 1), 1, op))
    assert_as_onnxruntime(entry)
    assert "softmax" in families(entry)


def test_a_softmax_along_another_axis_is_right_too() -> None:
    assert_as_onnxruntime(raw(softmax((1, 6, 7, 5), 1)))


@NARROW
def test_a_softmax_is_right_with_narrower_vectors_too(target: dict) -> None:
    assert_as_onnxruntime(raw(softmax((1, 3, 5, 100))), target)


def test_large_logits_do_not_overflow() -> None:
    entry = raw(softmax((1, 4, 64)))
    given = np.random.default_rng(0).normal(0, 1e4, (1, 4, 64)).astype(np.float32)
    got = compiled(entry)[1].run("net", given).reshape(4, 64)
    np.testing.assert_allclose(got.sum(axis=1), 2.0, rtol=1e-5)


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_a_layer_normalisation_computes_what_onnxruntime_computes(length: int) -> None:
    entry = raw(norm((1, 9, length)))
    assert_as_onnxruntime(entry, tolerance=5e-5)
    assert "normalisation" in families(entry)


@NARROW
def test_a_layer_normalisation_is_right_with_narrower_vectors_too(target: dict) -> None:
    assert_as_onnxruntime(raw(norm((1, 9, 100))), target, tolerance=5e-5)


def test_a_normalisation_of_several_axes_is_right_too() -> None:
    assert_as_onnxruntime(raw(norm((1, 3, 4, 8), -2)), tolerance=5e-5)


REDUCTIONS = {
    "rows": ((1, 6, 37), (-1,)),
    "long rows": ((1, 4, 384), (2,)),
    "maps": ((1, 20, 7, 7), (2, 3)),
    "channels": ((1, 20, 7, 9), (1,)),
    "channels of whole vectors": ((1, 20, 4, 8), (1,)),
    "the middle": ((1, 3, 12, 32), (2,)),
    "first and last": ((1, 3, 12, 20), (1, 3)),
    "everything": ((1, 3, 12, 20), (0, 1, 2, 3)),
    "all but the last": ((1, 3, 12, 16), (0, 1, 2)),
}


_OTHERS = [(case, op) for case in ("rows", "the middle") for op in ("ReduceSum", "ReduceMax", "ReduceMin")]


@pytest.mark.parametrize(("case", "op"), [*((case, "ReduceMean") for case in REDUCTIONS), *_OTHERS])
def test_a_reduction_computes_what_onnxruntime_computes(case: str, op: str) -> None:
    entry = raw(reduction(*REDUCTIONS[case], op))
    assert_as_onnxruntime(entry)
    assert families(entry) & {"reduction", "reduction_across"}


@NARROW
@pytest.mark.parametrize("case", ["rows", "channels of whole vectors", "first and last"])
def test_a_reduction_is_right_with_narrower_vectors_too(case: str, target: dict) -> None:
    assert_as_onnxruntime(raw(reduction(*REDUCTIONS[case])), target)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 21), min_size=2, max_size=4),
    axes=st.sets(st.integers(1, 4), min_size=1),
    keepdims=st.integers(0, 1),
)
def test_any_reduction_computes_what_onnxruntime_computes(shape, axes, keepdims) -> None:
    axes = tuple(sorted({1 + (axis - 1) % len(shape) for axis in axes}))
    assert_as_onnxruntime(raw(reduction((1, *shape), axes, keepdims=keepdims)))


@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_merged_dimensions_have_as_many_elements_kept_and_reduced(shape: list[int], data) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    sizes = collapsed(shape, sorted(axes))
    assert math.prod(sizes[1::2]) == math.prod(shape[i] for i in axes)
    assert math.prod(sizes) == math.prod(shape)


@pytest.mark.parametrize("decomposed", [False, True], ids=["fused", "decomposed"])
def test_a_transformer_computes_what_onnxruntime_computes(decomposed: bool, tmp_path: Path) -> None:
    entry = whole(encoder(layers=2, width=48, heads=3, sequence=10, decomposed=decomposed), tmp_path)
    assert_as_onnxruntime(entry)
    found, _ = compiled(entry, host_target())
    assert sum(found.workspaces.values()) == 0
    assert {"dense", "matmul", "softmax"} <= {schedule.split()[0] for schedule in found.schedules.values()}


THREADED = {
    "softmax": softmax((1, 4, 40, 64)),
    "norm": norm((1, 64, 192)),
    "rows": reduction((1, 64, 192), (2,)),
    "columns": reduction((1, 64, 192), (1,)),
}


@pytest.mark.parametrize("model", THREADED.values(), ids=THREADED)
def test_rows_are_spread_over_threads(model) -> None:
    entry = raw(model)
    module = fuse_networks([entry], Target(HASWELL | {"num-cores": 2}))
    kernels = schedule_networks(module, Target(HASWELL | {"num-cores": 2}))
    assert "T.parallel" in str(kernels)
    assert_as_onnxruntime(entry, HASWELL | {"num-cores": 2}, tolerance=5e-5)
