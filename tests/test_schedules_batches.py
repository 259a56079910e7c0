from __future__ import annotations

import networks
import numpy as np
import pytest
from entries import HASWELL, compiled, image, raw
from networks import Builder

BATCH = 3


def _network(ending: str):
    b = Builder((BATCH, 3, 13, 11))
    x = b.add("Relu", [b.conv("image", "stem", (24, 3, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    y = b.conv(x, "strided", (20, 24, 3, 3), pads=[1, 0, 0, 1], strides=[2, 2])
    y = b.conv(y, "thin", (20, 1, 3, 3), group=20, pads=[1, 1, 1, 1])
    z = b.add("MaxPool", [x], name="max", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1])
    z = b.conv(z, "w", (20, 24, 1, 1))
    x = b.add("Add", [y, z], name="add")
    joined = b.add("Concat", [b.conv(x, "left", (16, 20, 1, 1)), x], name="join", axis=1)
    x = b.add("AveragePool", [joined], name="mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)
    if ending == "map":
        scales = b.constant(np.array([1, 1, 2, 1], np.float32), "scales")
        inputs = [x, "", scales]
        return b.model(b.add("Resize", inputs, name="rows", mode="linear", coordinate_transformation_mode="asymmetric"))
    x = b.add("Softmax", [x], name="softmax", axis=1) if ending == "softmax" else x
    x = b.add("GlobalAveragePool", [b.conv(x, "last", (17, 36, 3, 3), dilations=[2, 1])], name="pool")
    return b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 17))


def run_batch(entry, images: np.ndarray, target: dict | None = None) -> np.ndarray:
    """Hand a whole batch to a compiled network in one call."""
    _, artefact = compiled(entry, target)
    return artefact._machine[entry.name](artefact.tensor(images)).numpy()


@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
@pytest.mark.parametrize("ending", ["logits", "map", "softmax"])
def test_a_batch_of_images_computes_what_onnxruntime_computes(ending: str, target: dict | None) -> None:
    entry = raw(_network(ending))
    images = image(entry)
    expected = networks.run_batch(entry.model, images)
    got = run_batch(entry, images, target)
    assert got.shape == expected.shape
    assert got.shape[0] == BATCH
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_images_of_a_batch_stay_in_the_blocked_layout() -> None:
    found, _ = compiled(raw(_network("logits")))
    gathered = [name for name in found.schedules if "to_plain" in name]
    assert len(gathered) == 1
    assert "reshape" in gathered[0]


def test_groups_and_joins_may_be_what_a_network_ends_in() -> None:
    b = Builder((1, 6, 5, 5))
    x = b.conv("image", "a", (10, 3, 3, 3), group=2)
    y = b.conv("image", "b", (10, 6, 3, 3))
    z = b.add("Add", [x, b.conv(x, "c", (10, 10, 1, 1))], name="add")
    entry = raw(b.model(b.add("Concat", [z, x, y], name="join", axis=1)))
    images = image(entry)
    expected = networks.run_batch(entry.model, images)
    np.testing.assert_allclose(run_batch(entry, images), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
