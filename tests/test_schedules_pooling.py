from __future__ import annotations

import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder

TARGETS = pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])

WINDOWS = {
    "3x3 within a frame": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    "3x3 with a stride": {"kernel_shape": [3, 3], "strides": [2, 2]},
    "rounded up": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "rounded up within a frame": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    "5x5 padded before": {"kernel_shape": [5, 5], "pads": [2, 2, 0, 0]},
    "as large as the map": {"kernel_shape": [12, 13]},
    "strides that leave gaps": {"kernel_shape": [2, 1], "strides": [3, 3]},
}


def _pooled(op: str, opset: int = 17, **values):
    b = Builder((1, 4, 12, 13), opset=opset)
    x = b.conv("image", "conv", (20, 4, 1, 1))
    # Values far below zero: zeros for what lies beyond the map would win a maximum, and pull up a mean.
    x = b.add("Sub", [x, b.constant(np.float32(5.0), "five")], name="lower")
    return raw(b.model(b.add(op, [x], name="pool", **values)))


@TARGETS
@pytest.mark.parametrize("case", WINDOWS)
def test_maxima_compute_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    assert_as_onnxruntime(_pooled("MaxPool", **WINDOWS[case]), target)


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("case", [case for case in WINDOWS if case != "rounded up within a frame"])
def test_means_compute_what_onnxruntime_computes(case: str, counted: int) -> None:
    assert_as_onnxruntime(_pooled("AveragePool", count_include_pad=counted, **WINDOWS[case]))


def test_a_dilated_maximum_computes_what_onnxruntime_computes() -> None:
    assert_as_onnxruntime(_pooled("MaxPool", kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 1, 1, 1]))


def test_a_window_without_a_frame_never_asks_where_it_is() -> None:
    found, _ = compiled(_pooled("MaxPool", kernel_shape=[3, 3], strides=[2, 2]))
    assert any(text.startswith("pooling") and "frame=0" in text for text in found.schedules.values())


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 2, 0]])
def test_a_dilated_mean_computes_what_onnxruntime_computes(pads: list[int], counted: int) -> None:
    window = {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [2, 1], "pads": pads}
    assert_as_onnxruntime(_pooled("AveragePool", 21, count_include_pad=counted, **window))
