from __future__ import annotations

import numpy as np
import pytest
import tvm
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder
from tvm import te

from planner.compiler import host_target
from planner.schedules import vectors
from planner.schedules.blocked import FeatureMap
from planner.schedules.families import depthwise, pooling
from planner.schedules.scheduling import Kernel
from planner.schedules.window import Window

SIZE = FeatureMap(channels=32, height=9, width=11)
WINDOW = Window(kernel=(3, 3), strides=(1, 1), padding=(1, 1, 1, 1))


def _network(height: int, width: int, kernel: int = 3, channels: int = 20, **values):
    b = Builder((1, 3, height, width))
    x = b.conv("image", "before", (channels, 3, 1, 1))
    x = b.conv(x, "depthwise", (channels, 1, kernel, kernel), group=channels, **values)
    return raw(b.model(b.add("Relu", [x], name="relu")))


@pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])
@pytest.mark.parametrize("width", [1, 2, 5, 8, 13, 17, 24])
def test_rows_of_any_width_compute_what_onnxruntime_computes(width: int, target: dict | None) -> None:
    assert_as_onnxruntime(_network(7, width, pads=[1, 1, 1, 1]), target)


WINDOWS = {
    "strided, padded behind": (3, {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "strided 5x5": (5, {"strides": [2, 2], "pads": [2, 2, 2, 2]}),
    "7x7": (7, {"pads": [3, 3, 3, 3]}),
    "dilated": (3, {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "a frame as wide as the window": (3, {"pads": [3, 3, 3, 3]}),
    "without a frame": (3, {}),
}


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
def test_windows_that_leave_the_map_read_zeros_there(case: str, target: dict | None) -> None:
    kernel, values = WINDOWS[case]
    assert_as_onnxruntime(_network(12, 15, kernel, **values), target)


def test_no_padded_copy_is_made() -> None:
    found, _ = compiled(_network(12, 15, pads=[1, 1, 1, 1]))
    assert not [name for name in found.schedules if "_pad" in name]
    assert not any(found.workspaces.values())


def _kernel(rule) -> tuple[tvm.tirx.PrimFunc, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    data = te.placeholder(SIZE.blocked_shape, name="data")
    arrays = [rng.normal(size=SIZE.blocked_shape).astype(np.float32)]
    if isinstance(rule, pooling.PoolingRule):
        result, operands = pooling.maximum(data, source=SIZE, output=SIZE, window=WINDOW), [data]
    else:
        packed = te.placeholder((SIZE.blocks, 3, 3, 16), name="packed")
        arrays.append(rng.normal(size=(SIZE.blocks, 3, 3, 16)).astype(np.float32))
        result = depthwise.depthwise(data, packed, source=SIZE, output=SIZE, window=WINDOW)
        operands = [data, packed]
    return te.create_prim_func([*operands, result]), [*arrays, np.zeros(SIZE.blocked_shape, np.float32)]


@pytest.mark.parametrize("family", [depthwise.DepthwiseRule, pooling.PoolingRule])
@pytest.mark.parametrize("target", [host_target(), HASWELL], ids=["host", "avx2"])
def test_every_candidate_of_a_search_computes_the_same(family, target: dict) -> None:
    kind = tvm.target.Target(target)
    rule = family(vectors.of_target(kind))
    function, arrays = _kernel(rule)
    candidates = list(rule.candidates(Kernel(function)))
    assert candidates[0] == rule.default(Kernel(function))
    assert 4 < len(candidates) <= 12
    results = []
    for parameters in candidates:
        module = rule.schedule(Kernel(function), parameters).mod
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        tvm.compile(module, target=kind).jit()["main"](*tensors)
        results.append(tensors[-1].numpy())
    assert np.abs(results[0]).max() > 1
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-5)
