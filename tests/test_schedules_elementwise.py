from __future__ import annotations

import numpy as np
import pytest
from entries import HASWELL, assert_as_onnxruntime, compiled, raw
from networks import Builder

CHANNELS = 20

FUNCTIONS = {
    "Relu": {},
    "LeakyRelu": {"alpha": 0.2},
    "HardSwish": {},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "Sigmoid": {},
    "Tanh": {},
    "Elu": {"alpha": 0.7},
    "Selu": {},
    "Abs": {},
    "Neg": {},
    "Exp": {},
}


def _between_convolutions(add, *, opset: int = 17, images: int = 1):
    """Put an operator between two convolutions; the names of the kernels say whether it left the blocked layout."""
    b = Builder((images, 6, 7, 5), opset=opset)
    x = b.conv("image", "before", (CHANNELS, 6, 3, 3))
    return raw(b.model(b.conv(add(b, x), "after", (16, CHANNELS, 1, 1))))


def _assert_fused(entry) -> None:
    """Check that there are but two kernels beside the change of layout at either end: nothing came between."""
    found, _ = compiled(entry)
    kernels = [name for name in found.schedules if "to_plain" not in name and "to_blocked" not in name]
    assert len(kernels) == 2, found.schedules
    assert sum("to_plain" in name for name in found.schedules) == 1, found.schedules


@pytest.mark.parametrize("op", FUNCTIONS)
def test_a_function_between_convolutions_is_fused_and_computes_what_onnxruntime_computes(op: str) -> None:
    entry = _between_convolutions(lambda b, x: b.add(op, [x], name="odd", **FUNCTIONS[op]))
    assert_as_onnxruntime(entry)
    _assert_fused(entry)


CLIPS = {
    "both": (-0.2, 0.4),
    "low": (0.1, None),
    "high": (None, 0.3),
    "neither": (None, None),
    "crossed": (0.4, -0.2),
}


# ONNX Runtime refuses crossed bounds where they are attributes.
@pytest.mark.parametrize(("bounds", "opset"), [(b, o) for b in CLIPS for o in (10, 17) if (b, o) != ("crossed", 10)])
def test_clips_are_fused_whichever_bounds_they_have(bounds: str, opset: int) -> None:
    low, high = CLIPS[bounds]

    def clip(b: Builder, x: str) -> str:
        if opset == 10:
            limits = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
            return b.add("Clip", [x], name="clip", **limits)
        constants = [
            "" if value is None else b.constant(np.float32(value), name) for name, value in (("lo", low), ("hi", high))
        ]
        return b.add("Clip", [x, *constants], name="clip")

    entry = _between_convolutions(clip, opset=opset)
    assert_as_onnxruntime(entry)
    _assert_fused(entry)


def test_a_clip_by_a_bound_that_is_computed_stays_what_it_is() -> None:
    def clip(b: Builder, x: str) -> str:
        bound = b.add("ReduceMean", [x], name="mean", keepdims=0)
        return b.add("Clip", [x, "", bound], name="clip")

    assert_as_onnxruntime(_between_convolutions(clip))


OPERANDS = {
    "a number": (),
    "one value": (1, 1, 1, 1),
    "one a channel": (1, CHANNELS, 1, 1),
    "one a channel, of rank three": (CHANNELS, 1, 1),
}


@pytest.mark.parametrize("shape", OPERANDS)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_constants_are_fused_however_they_are_broadcast(op: str, shape: str) -> None:
    def binary(b: Builder, x: str) -> str:
        values = np.asarray(b.rng.uniform(0.5, 2.0, OPERANDS[shape]), np.float32)
        return b.add(op, [x, b.constant(values, "values")], name="odd")

    entry = _between_convolutions(binary)
    assert_as_onnxruntime(entry)
    _assert_fused(entry)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, -0.5, -1.0, 0.75])
def test_powers_by_constants_are_fused(exponent: float) -> None:
    def power(b: Builder, x: str) -> str:
        positive = b.add("Add", [b.add("Abs", [x], name="abs"), b.constant(np.float32(0.1), "tenth")], name="raised")
        return b.add("Pow", [positive, b.constant(np.float32(exponent), "exponent")], name="power")

    entry = _between_convolutions(power)
    assert_as_onnxruntime(entry)
    _assert_fused(entry)


@pytest.mark.parametrize("shape", [(CHANNELS, 1, 1), (1,), (1, 1, 1)])
@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
def test_a_prelu_is_fused(shape: tuple[int, ...], target: dict | None) -> None:
    def prelu(b: Builder, x: str) -> str:
        slopes = b.constant(b.rng.uniform(-0.5, 0.5, shape).astype(np.float32), "slopes")
        return b.add("PRelu", [x, slopes], name="prelu")

    entry = _between_convolutions(prelu)
    assert_as_onnxruntime(entry, target)
    _assert_fused(entry)


def test_a_sigmoid_times_its_operand_is_fused() -> None:
    entry = _between_convolutions(lambda b, x: b.add("Mul", [x, b.add("Sigmoid", [x], name="gate")], name="silu"))
    assert_as_onnxruntime(entry)
    _assert_fused(entry)
