from __future__ import annotations

import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder


def _normalised(channels: int, **values):
    b = Builder((1, 6, 7, 5))
    x = b.conv("image", "before", (channels, 6, 3, 3))
    x = b.add("LRN", [x], name="lrn", **values)
    return raw(b.model(b.add("Relu", [x], name="relu")))


CASES = {
    "alexnet's": (32, {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}),
    "of odd channels": (37, {"size": 5, "alpha": 0.9, "beta": 0.75, "bias": 2.0}),
    "of three channels": (20, {"size": 3, "alpha": 0.5, "beta": 0.5, "bias": 1.0}),
    "of its own channel": (16, {"size": 1, "alpha": 0.5, "beta": 1.0, "bias": 1.0}),
    "of fewer channels than its window": (3, {"size": 7, "alpha": 0.5, "beta": 0.75, "bias": 1.0}),
    "of more blocks than fit at once": (16 * 17, {"size": 5, "alpha": 0.8, "beta": 0.75, "bias": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])
def test_a_local_response_normalisation_computes_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    channels, values = CASES[case]
    assert_as_onnxruntime(_normalised(channels, **values), target)


def test_the_operators_that_it_is_imported_as_become_one_kernel_without_a_workspace() -> None:
    for channels in (32, 272):
        found, _ = compiled(_normalised(channels, size=5))
        kinds = [text.split()[0] for text in found.schedules.values()]
        assert sorted(kinds) == ["convolution", "elementwise", "local_response"]  # elementwise: back to NCHW
        assert not any(found.workspaces.values())


def test_another_exponent_is_left_to_code_that_knows_any() -> None:
    entry = _normalised(20, size=5, alpha=0.5, beta=0.6)
    assert_as_onnxruntime(entry)
    found, _ = compiled(entry)
    assert not any(text.startswith("local_response") for text in found.schedules.values())


def test_a_quotient_that_only_resembles_it_is_left_alone() -> None:
    b = Builder((1, 6, 7, 5))
    x = b.conv("image", "before", (20, 6, 3, 3))
    y = b.add("Mul", [x, x], name="square")
    y = b.add("Mul", [y, b.constant(np.float32(0.5), "alpha")], name="scale")
    y = b.add("Add", [y, b.constant(np.float32(1), "one")], name="bias")
    y = b.add("Pow", [y, b.constant(np.float32(0.75), "beta")], name="power")
    entry = raw(b.model(b.add("Div", [x, y], name="quotient")))
    assert_as_onnxruntime(entry)
    found, _ = compiled(entry)
    assert not any(text.startswith("local_response") for text in found.schedules.values())
