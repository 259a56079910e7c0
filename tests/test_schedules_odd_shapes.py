"""Convolutions and poolings of any shape beside a reference in numpy.

Several cases are compiled as one module, which costs little more than one.  ``BLINKPLAN_DEEP=1`` looks at ten times as
many, other ones in each run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest
import reference
from entries import HASWELL, raw
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import Builder

from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target

DEEP = os.environ.get("BLINKPLAN_DEEP") == "1"
TOGETHER = 10
ALIKE = settings(
    max_examples=20 if DEEP else 3,
    deadline=None,
    derandomize=not DEEP,
    phases=[Phase.explicit, Phase.generate],  # each step of shrinking would compile a module
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A window over a map, and what follows it."""

    images: int
    groups: int
    inputs: int  # of one group
    outputs: int  # of one group
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    spare: tuple[int, int]
    epilogue: str
    entry: bool
    pool: str = "none"
    size: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        frame = (self.pads[0] + self.pads[2], self.pads[1] + self.pads[3])
        size = tuple(max(1, r - f) + s for r, f, s in zip(reach, frame, self.spare, strict=True))
        object.__setattr__(self, "size", size)


def _pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def _shapes(draw: st.DrawFn) -> Shape:
    """Draw a shape; channels in all are 1 to 70."""
    groups = draw(st.one_of(st.just(1), st.integers(1, 9), st.sampled_from([16, 32, 35, 70])))
    most = 70 // groups
    kernel = draw(_pair(1, 7))
    kind = draw(st.sampled_from(["any", "depthwise", "pointwise"]))
    return Shape(
        images=draw(st.integers(1, 4)),
        groups=groups,
        inputs=1 if kind == "depthwise" else draw(st.integers(1, most)),
        outputs=1 if kind == "depthwise" else draw(st.integers(1, most)),
        kernel=(1, 1) if kind == "pointwise" else kernel,
        strides=draw(_pair(1, 3)),
        dilations=draw(st.one_of(st.just((1, 1)), _pair(1, 3))),
        pads=draw(st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 3)] * 4))),
        spare=draw(_pair(0, 12)),
        epilogue=draw(st.sampled_from(["none", "bias", "relu", "clip", "add"])),
        entry=draw(st.booleans()),
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network with an input, and what it gives."""

    entry: object
    batch: np.ndarray
    expected: np.ndarray


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw weights that keep values about as large as they were, so that rounding is judged by what it is of."""
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _convolution(shape: Shape, name: str, seed: int) -> Case:
    """Make a network of one convolution, behind another one unless it is to read the input itself."""
    rng = np.random.default_rng(seed)
    channels = shape.groups * shape.inputs
    filters = shape.groups * shape.outputs
    given = channels if shape.entry else 3
    b = Builder((shape.images, given, *shape.size), seed=seed)
    batch = rng.normal(size=(shape.images, given, *shape.size)).astype(np.float32)
    x, value = "image", batch.astype(np.float64)
    if not shape.entry:
        first = _weights(rng, (channels, 3, 1, 1))
        x = b.add("Conv", [x, b.constant(first, "first.w")], name="first")
        value = reference.convolution(value, first)
    weight = _weights(rng, (filters, shape.inputs, *shape.kernel))
    settings_of = {
        "strides": shape.strides, "pads": shape.pads, "dilations": shape.dilations, "group": shape.groups,
    }  # fmt: skip
    operands = [x, b.constant(weight, "w")]
    bias = rng.normal(size=filters).astype(np.float32)
    if shape.epilogue != "none":
        operands.append(b.constant(bias, "b"))
    x = b.add("Conv", operands, name="conv", kernel_shape=list(shape.kernel), **settings_of)
    value = reference.convolution(value, weight, **settings_of)
    if shape.epilogue != "none":
        value = value + bias[:, None, None]
    if shape.epilogue == "relu":
        x, value = b.add("Relu", [x], name="relu"), np.maximum(value, 0)
    if shape.epilogue == "clip":
        bounds = [b.constant(np.float32(bound), f"bound{bound}") for bound in (-0.5, 2.0)]
        x, value = b.add("Clip", [x, *bounds], name="clip"), np.clip(value, -0.5, 2.0)
    if shape.epilogue == "add":
        other = _weights(rng, (filters, filters, 1, 1))
        y = b.add("Conv", [x, b.constant(other, "other.w")], name="other")
        x, value = b.add("Add", [x, y], name="add"), value + reference.convolution(value, other)
    return Case(entry=raw(b.model(x), name), batch=batch, expected=value)


def _assert_as_expected(cases: list[Case], target: dict) -> None:
    compiled = compile_networks([case.entry for case in cases], target)
    artefact = Artefact(compiled.executable)
    for case in cases:
        got = artefact._machine[case.entry.name](artefact.tensor(case.batch)).numpy()
        assert got.shape == case.expected.shape
        tolerance = 1e-5 * max(1.0, float(np.abs(case.expected).max()))
        np.testing.assert_allclose(got, case.expected, rtol=0, atol=tolerance, err_msg=str(case.entry.name))


@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
@ALIKE
@given(shapes=st.lists(_shapes(), min_size=TOGETHER, max_size=TOGETHER), seed=st.integers(0, 1000))
def test_any_convolution_computes_what_it_is_defined_to_compute(target, shapes, seed) -> None:
    cases = [_convolution(shape, f"net{place}", seed + place) for place, shape in enumerate(shapes)]
    _assert_as_expected(cases, target or host_target())


@st.composite
def _pools(draw: st.DrawFn) -> Shape:
    """Draw a pooling; its frame is narrower than its window, as ONNX demands."""
    kernel = draw(_pair(1, 5))
    pads = tuple(draw(st.integers(0, min(k - 1, 2))) for k in (*kernel, *kernel))
    return Shape(
        images=draw(st.integers(1, 4)),
        groups=1,
        inputs=draw(st.integers(1, 70)),
        outputs=1,
        kernel=kernel,
        strides=draw(_pair(1, 3)),
        dilations=(1, 1),
        pads=pads,
        spare=draw(_pair(0, 12)),
        epilogue="none",
        entry=False,
        pool=draw(st.sampled_from(["max", "mean", "mean of the map alone", "whole"])),
    )


def _pooling(shape: Shape, name: str, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    b = Builder((shape.images, 3, *shape.size), seed=seed)
    batch = rng.normal(size=(shape.images, 3, *shape.size)).astype(np.float32)
    weight = _weights(rng, (shape.inputs, 3, 1, 1))
    x = b.add("Conv", ["image", b.constant(weight, "w")], name="conv")
    value = reference.convolution(batch.astype(np.float64), weight)
    common = {"strides": shape.strides, "pads": shape.pads}
    if shape.pool == "max":
        x = b.add("MaxPool", [x], name="pool", kernel_shape=shape.kernel, **common)
        value = reference.maximum(value, shape.kernel, **common)
    elif shape.pool == "whole":
        x, value = b.add("GlobalAveragePool", [x], name="pool"), value.mean(axis=(2, 3), keepdims=True)
    else:
        counted = shape.pool == "mean"
        x = b.add("AveragePool", [x], name="pool", kernel_shape=shape.kernel, count_include_pad=int(counted), **common)
        value = reference.mean(value, shape.kernel, counted=counted, **common)
    return Case(entry=raw(b.model(x), name), batch=batch, expected=value)


@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
@ALIKE
@given(shapes=st.lists(_pools(), min_size=TOGETHER, max_size=TOGETHER), seed=st.integers(0, 1000))
def test_any_pooling_computes_what_it_is_defined_to_compute(target, shapes, seed) -> None:
    cases = [_pooling(shape, f"net{place}", seed + place) for place, shape in enumerate(shapes)]
    _assert_as_expected(cases, target or host_target())
