"""What a QDQ network may hold besides bytes from end to end: right in any case, in float32 where need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from entries import HASWELL, assert_as_onnxruntime, compiled, raw
from integers import Quantiser, reference
from networks import Builder

from planner.segments import Network

if TYPE_CHECKING:
    import onnx

    from planner.segments import Entry

SIZE = (1, 20, 8, 8)


def start(shape: tuple[int, ...] = SIZE, kind: type = np.uint8) -> tuple[Builder, Quantiser, str]:
    b = Builder(shape)
    q = Quantiser(b, kind)
    return b, q, q.point("image", "in", 0.02, 120 if kind is np.uint8 else -7)


def ending_in_float() -> onnx.ModelProto:
    b, q, x = start()
    w = q.weights((24, 20, 3, 3), "w", scale=0.01)
    x = b.add("Conv", [x, w, q.bias(w, 24, "b", scale=0.02)], name="conv")
    return b.model(b.add("Relu", [x], name="relu"))


def float_bias() -> onnx.ModelProto:
    b, q, x = start()
    w = q.weights((24, 20, 3, 3), "w", scale=0.01)
    return b.model(b.add("Conv", [x, w, b.weights((24,), "b")], name="conv"))


def groups() -> onnx.ModelProto:
    b, q, x = start()
    x = b.add("Conv", [x, q.weights((24, 5, 3, 3), "w", scale=0.01)], name="conv", group=4)
    return b.model(q.point(x, "out", 0.5, 128))


def unrounded_residual() -> onnx.ModelProto:
    b, q, x = start()
    y = b.add("Conv", [x, q.weights((20, 20, 3, 3), "w", scale=0.01)], name="conv", pads=[1, 1, 1, 1])
    y = b.add("Relu", [b.add("Add", [y, x], name="add")], name="relu")
    return b.model(q.point(y, "out", 0.5, 3))


def float_weights() -> onnx.ModelProto:
    b, q, x = start()
    x = b.conv(x, "conv", (24, 20, 3, 3))
    return b.model(q.point(x, "out", 0.1, 128))


def sigmoid_between() -> onnx.ModelProto:
    b, q, x = start()
    x = b.add("Conv", [x, q.weights((24, 20, 1, 1), "w", scale=0.01)], name="conv")
    x = q.point(b.add("Sigmoid", [q.point(x, "mid", 0.05, 128)], name="sigmoid"), "after", 1 / 255, 0)
    return b.model(b.add("Conv", [x, q.weights((16, 24, 1, 1), "v", scale=0.01)], name="conv2"))


def padded_mean() -> onnx.ModelProto:
    b, q, x = start()
    x = b.add("Conv", [x, q.weights((24, 20, 1, 1), "w", scale=0.01)], name="conv")
    x = b.add("AveragePool", [q.point(x, "mid", 0.2, 99)], name="mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.model(q.point(x, "out", 0.1, 99))


def joined_within_a_block() -> onnx.ModelProto:
    b, q, x = start()
    y = q.point(b.add("Conv", [x, q.weights((24, 20, 1, 1), "w", scale=0.01)], name="conv"), "mid", 0.2, 99)
    return b.model(q.point(b.add("Concat", [x, y], name="join", axis=1), "out", 0.2, 99))


def bytes_of_an_image() -> onnx.ModelProto:
    b, q, x = start((1, 3, 8, 8))
    y = q.point(b.add("MaxPool", [x], name="max", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "max_q", 0.02, 120)
    x = b.add("Add", [x, y], name="add")
    return b.model(q.point(x, "out", 0.05, 100))


def shuffled_channels() -> onnx.ModelProto:
    b, q, x = start()
    x = q.point(b.add("Conv", [x, q.weights((24, 20, 1, 1), "w", scale=0.01)], name="conv"), "mid", 0.2, 99)
    split, joined = b.constant([1, 4, 6, 8, 8], "split"), b.constant([1, 24, 8, 8], "joined")
    x = q.point(b.add("Reshape", [x, split], name="reshape"), "split_q", 0.2, 99)
    x = q.point(b.add("Transpose", [x], name="swap", perm=[0, 2, 1, 3, 4]), "swap_q", 0.2, 99)
    x = q.point(b.add("Reshape", [x, joined], name="join"), "join_q", 0.2, 99)
    return b.model(q.point(b.add("Conv", [x, q.weights((16, 24, 1, 1), "v", scale=0.01)], name="conv2"), "out", 0.5, 9))


FALLBACKS = {
    "a result that stays float32": ending_in_float,
    "a bias of float32": float_bias,
    "groups": groups,
    "a residual sum that is rounded once": unrounded_residual,
    "weights of float32": float_weights,
    "an operator without integers": sigmoid_between,
    "a mean over the edge": padded_mean,
    "a union within a block of channels": joined_within_a_block,
    "a shuffle of channels": shuffled_channels,
    "a maximum and a sum of an image's own bytes": bytes_of_an_image,
}


@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
@pytest.mark.parametrize("case", FALLBACKS)
def test_what_is_not_of_bytes_throughout_computes_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    # A float32 that is computed in another order may be rounded to the neighbouring byte.
    assert_as_onnxruntime(raw(FALLBACKS[case]()), target, tolerance=0.02)


def test_a_residual_sum_that_is_rounded_once_still_multiplies_bytes() -> None:
    found, _ = compiled(raw(unrounded_residual()))
    assert any(text.startswith("int8_convolution") for text in found.schedules.values())


@pytest.mark.parametrize("zero", [128, 100], ids=["that fit int8", "that do not fit int8"])
def test_unsigned_weights_are_read_through_their_zero(zero: int) -> None:
    b, q, x = start()
    low = 0 if zero == 100 else 1
    stored: list[Any] = [
        b.constant(q.rng.integers(low, 256, (16, 20, 3, 3)).astype(np.uint8), "w.q"),
        b.constant(np.float32(0.01), "w.s"),
        b.constant(np.uint8(zero), "w.z"),
    ]
    x = b.add("Conv", [x, b.add("DequantizeLinear", stored, name="w")], name="conv")
    entry = raw(b.model(q.point(x, "out", 0.5, 128)))
    assert_as_onnxruntime(entry, tolerance=0.02)
    found, _ = compiled(entry)
    assert any(text.startswith("int8_convolution") for text in found.schedules.values()) is (zero == 128)


def run_at_once(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Run all images of a batch at once, and the reference on them."""
    import tvm
    from tvm import relax

    image = np.random.default_rng(0).normal(size=Network(entry).shape("image")).astype(np.float32)
    found, _ = compiled(entry)
    assert any(text.startswith("int8_convolution") for text in found.schedules.values())
    got = relax.VirtualMachine(found.executable, tvm.cpu())["net"](tvm.runtime.tensor(image)).numpy()
    return got.reshape(-1), reference(entry.model, image)


def test_rows_of_bytes_are_multiplied_by_a_matrix_of_bytes() -> None:
    b, q, x = start((6, 40))
    w = q.weights((24, 40), "w", scale=0.01)
    x = b.add("Gemm", [x, w, q.bias(w, 24, "b", scale=0.02)], name="fc", transB=1)
    x = b.add("Relu", [x], name="relu")
    np.testing.assert_array_equal(*run_at_once(raw(b.model(q.point(x, "out", 0.05, 3)))))


def test_several_images_are_convolved_at_once() -> None:
    b, q, x = start((3, 20, 6, 6))
    w = q.weights((24, 20, 3, 3), "w", scale=0.01)
    x = b.add("Conv", [x, w, q.bias(w, 24, "b", scale=0.02)], name="conv", pads=[1, 1, 1, 1])
    np.testing.assert_array_equal(*run_at_once(raw(b.model(q.point(x, "out", 0.2, 128)))))
