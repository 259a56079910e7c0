from __future__ import annotations

import networks
import numpy as np
import pytest
from entries import HASWELL, image, raw
from networks import Builder

from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target
from planner.schedules import vectors

TWO = {"num-cores": 2}


def _network():
    """One kernel of each family that moves or reduces elements."""
    b = Builder((2, 3, 14, 12))
    x = b.conv("image", "stem", (24, 3, 3, 3), pads=[1, 1, 1, 1])
    x = b.add("LRN", [x], name="lrn", size=3)
    x = b.conv(x, "depthwise", (24, 1, 3, 3), group=24, pads=[1, 1, 1, 1])
    x = b.conv(x, "grouped", (40, 6, 1, 1), group=4)
    shape = b.constant(np.array([2, 4, 10, 14, 12]), "split")
    x = b.add("Reshape", [x, shape], name="reshape")
    x = b.add("Transpose", [x], name="swap", perm=[0, 2, 1, 3, 4])
    x = b.add("Reshape", [x, b.constant(np.array([2, 40, 14, 12]), "joined")], name="back")
    y = b.add("MaxPool", [x], name="max", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    whole = b.conv(y, "whole", (16, 40, 1, 1))
    x = b.add("Concat", [x, y], name="interlock", axis=1)
    x = b.add("Concat", [whole, whole, x], name="concat", axis=1)
    x = b.add("Sigmoid", [x], name="sigmoid")
    return b.model(b.conv(x, "last", (5, 112, 3, 3), pads=[1, 1, 1, 1]))


def _spread(schedules) -> set[str]:
    """Name the families of which a kernel is spread over threads."""
    texts = [text.split() for text in schedules.values()]
    return {
        family
        for family, *rest in texts
        if "threads=1" in rest or any(word.startswith("parts=") and word != "parts=1" for word in rest)
    }


@pytest.mark.parametrize("target", [host_target(2), HASWELL | TWO], ids=["host", "avx2"])
def test_every_family_is_spread_over_threads_where_it_is_worth_it(target, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = raw(_network())
    few = _spread(compile_networks([entry], target).schedules)
    monkeypatch.setattr(vectors, "_WORTH_A_THREAD", 1)
    compiled = compile_networks([entry], target)
    many = _spread(compiled.schedules)
    assert {"channels", "concatenation", "depthwise", "local_response", "padding", "pooling"} <= many
    assert few < many
    images = image(entry)
    expected = networks.run_batch(entry.model, images)
    got = Artefact(compiled.executable)._machine[entry.name](_tensor(images)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def _tensor(array: np.ndarray):
    import tvm

    return tvm.runtime.tensor(array, tvm.cpu())
