from __future__ import annotations

import networks
import numpy as np
import pytest
from entries import HASWELL, OLD, image, raw
from networks import Builder

from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target
from planner.schedules import Options
from planner.schedules.winograd import FILTER, INPUT, OUTPUT, pack

CASES = {
    "a map of even size": ((1, 16, 8, 12), (32, 16, 3, 3), [1, 1, 1, 1]),
    "a map of odd size": ((1, 32, 13, 7), (16, 32, 3, 3), [1, 1, 1, 1]),
    "no padding": ((1, 16, 10, 10), (48, 16, 3, 3), [0, 0, 0, 0]),
    "no padding of an odd size": ((1, 16, 11, 9), (16, 16, 3, 3), [0, 0, 0, 0]),
    "padding on two sides": ((1, 16, 9, 10), (20, 16, 3, 3), [0, 2, 1, 0]),
    "outputs that fill no block": ((1, 16, 7, 7), (37, 16, 3, 3), [1, 1, 1, 1]),
    "many channels": ((1, 256, 14, 14), (256, 256, 3, 3), [1, 1, 1, 1]),
}
TARGETS = pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])


def network(shape, filters, pads):
    b = Builder(shape)
    return b.model(b.add("Relu", [b.conv("image", "conv", filters, pads=pads)], name="relu"))


def schedules_and_output(model, target=None, **keywords):
    entry = raw(model)
    found = compile_networks([entry], target or host_target(), options=Options(winograd=True), **keywords)
    return found, Artefact(found.executable).run(entry.name, image(entry))


def assert_right(model, got) -> None:
    expected = networks.run(model, image(raw(model)))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@TARGETS
@pytest.mark.parametrize("case", CASES)
def test_winograd_computes_what_onnxruntime_computes(case: str, target: dict | None) -> None:
    model = network(*CASES[case])
    found, got = schedules_and_output(model, target)
    assert any(text.startswith("winograd ") for text in found.schedules.values())
    assert_right(model, got)
