from __future__ import annotations

from dataclasses import replace

import networks
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from planner import graph as graphs
from planner import rewrite
from planner.approximations import lowrank
from planner.approximations.base import Context, LayerView, Replacement
from planner.approximations.spatial import factorise, rank_of
from planner.calibration import Calibration
from planner.choices import approximation
from planner.epilogue import Epilogue
from planner.linear import Linear, Moments


def moments(rng: np.random.Generator, depth: int) -> Moments:
    rows = rng.normal(size=(4 * depth, depth)) @ rng.normal(size=(depth, depth))
    extended = np.column_stack([rows, np.ones(len(rows))])
    gram = extended.T @ extended / len(rows)
    return Moments(gram=gram[None], cross=None, rows=len(rows), images=len(rows))


def joined(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.einsum("orx,riy->oiyx", row, column)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 4), st.integers(2, 3))
def test_full_rank_equals_the_exact_filters(seed: int, outputs: int, inputs: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, inputs, size, size)).astype(np.float32)
    linear = Linear(weight=weight, bias=None)
    rank = min(inputs * size, outputs * size)
    column, row, bias = factorise(linear, moments(rng, inputs * size * size), rank)
    np.testing.assert_allclose(joined(column, row), weight, atol=1e-3)
    assert bias.shape == (outputs,)


def test_outputs_are_kept_better_than_by_a_plain_decomposition() -> None:
    rng = np.random.default_rng(1)
    outputs, inputs, size, rank = 12, 6, 3, 5
    weight = rng.normal(size=(outputs, inputs, size, size)).astype(np.float32)
    stats = moments(rng, inputs * size * size)
    column, row, _ = factorise(Linear(weight=weight, bias=None), stats, rank)
    matrix = weight.transpose(1, 2, 0, 3).reshape(inputs * size, outputs * size)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    plain = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(inputs, size, outputs, size)

    def error(found: np.ndarray) -> float:
        off = (weight - found).reshape(outputs, -1)
        return float(np.trace(off @ stats.covariance[0] @ off.T))

    assert error(joined(column, row)) < 0.9 * error(plain.transpose(2, 0, 1, 3))


def test_the_bias_leaves_the_mean_of_the_outputs() -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(8, 4, 3, 3)).astype(np.float32)
    before = rng.normal(size=8).astype(np.float32)
    stats = moments(rng, 36)
    column, row, bias = factorise(Linear(weight=weight, bias=before), stats, 3)
    exact = weight.reshape(8, -1) @ stats.mean[0] + before
    np.testing.assert_allclose(joined(column, row).reshape(8, -1) @ stats.mean[0] + bias, exact, atol=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.34, 0.25])
@pytest.mark.parametrize("shape", [(32, 32, 3, 3), (64, 32, 5, 5), (48, 80, 3, 3)])
def test_a_rank_leaves_at_most_its_share_of_the_work_and_fills_blocks(share: float, shape: tuple[int, ...]) -> None:
    outputs, inputs, height, width = shape
    rank = rank_of(Linear(weight=np.ones(shape, np.float32), bias=None), share)
    assert 0 < rank * (inputs * height + outputs * width) <= share * np.prod(shape)
    assert rank < 16 or rank % (8 if rank < 32 else 16) == 0


@pytest.mark.parametrize("stride", [1, 2])
def test_filters_that_are_columns_and_rows_are_replaced_without_loss(stride: int, tmp_path) -> None:
    b = networks.Builder((1, 3, 13, 11))
    x = b.add("Relu", [b.conv("image", "stem", (16, 3, 3, 3))], name="stem_relu")
    x = b.conv(x, "conv", (16, 16, 3, 3), strides=[stride, stride], pads=[1, 0, 2, 1])
    x = b.add("GlobalAveragePool", [b.add("Relu", [x], name="relu")], name="pool")
    rng = np.random.default_rng(5)
    weight = joined(rng.normal(size=(4, 16, 3)), rng.normal(size=(16, 4, 3))).astype(np.float32) / 12
    index = next(i for i, c in enumerate(b.constants) if c.name == "conv.w")
    b.constants[index] = numpy_helper.from_array(weight, "conv.w")
    model = b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 16))
    graph = graphs.read(networks.saved(model, tmp_path))
    images = networks.images(model, 32)
    new = rewrite.apply(graph, {"conv": "spatial@0.5"}, images, refit=False)
    kernels = [list(a.ints) for n in new.model.graph.node for a in n.attribute if a.name == "kernel_shape"]
    assert [3, 1] in kernels
    assert [1, 3] in kernels
    np.testing.assert_allclose(networks.run(new.model, images), networks.run(model, images), atol=1e-3)


@pytest.mark.parametrize("choice", ["spatial@0.34", "lowrank@0.25"])
def test_factors_that_know_the_activation_are_nearer_behind_it(choice: str, tmp_path) -> None:
    b = networks.Builder((1, 16, 9, 9), seed=4)
    x = b.add("Relu", [b.conv("image", "stem", (16, 16, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    x = b.add("Relu", [b.conv(x, "conv", (32, 16, 3, 3), pads=[1, 1, 1, 1])], name="relu")
    x = b.add("GlobalAveragePool", [x], name="pool")
    model = b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 32))
    graph = graphs.read(networks.saved(model, tmp_path))
    calibration, unseen = Calibration(graph, networks.images(model, 96)), networks.images(model, 96, seed=1)

    def linearly(context: Context, name: str) -> Replacement:
        return approximation(name).apply(replace(context, epilogue=Epilogue()), name)

    def maps(found: onnx.ModelProto) -> np.ndarray:
        copy = onnx.ModelProto()
        copy.CopyFrom(found)
        copy.graph.output[0].name = "relu:0"
        copy.graph.output[0].type.tensor_type.ClearField("shape")
        return networks.run(copy, unseen)

    knowing, linear = (
        rewrite.apply(graph, {"conv": choice}, calibration, refit=False, instead=ways).model
        for ways in (None, {choice: linearly})
    )
    exact = maps(graph.model)
    ours, theirs = (np.square(maps(found) - exact).mean() for found in (knowing, linear))
    assert ours < 0.95 * theirs


def test_a_name_that_need_not_be_asked_for_stands_for_a_rank() -> None:
    view = LayerView(
        name="small",
        op="MatMul",
        linear=Linear(weight=np.ones((16, 16), np.float32), bias=None),
        input_shape=(1, 16),
        output_shape=(1, 16),
        first=False,
        last=False,
    )
    assert lowrank.offer(view).choices == ("lowrank@0.75", "lowrank@0.5", "lowrank@0.25")
