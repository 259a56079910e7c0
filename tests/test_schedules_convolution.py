from __future__ import annotations

import re

import networks
import numpy as np
import pytest
from entries import HASWELL, assert_as_onnxruntime, compiled, image, raw
from networks import Builder

from planner.artefact import Artefact
from planner.compiler import compile_networks, host_target

MAPS = {
    "a prime number of pixels": ((1, 32, 1, 13), (64, 32, 1, 1), {}),
    "one pixel more than whole tiles": ((1, 32, 7, 7), (64, 32, 1, 1), {}),
    "a map of four rows": ((1, 32, 4, 7), (64, 32, 1, 1), {}),
    "rows that no tile divides": ((1, 16, 13, 13), (32, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks that only three divide": ((1, 16, 9, 9), (144, 16, 1, 1), {}),
    "strided rows that no tile divides": ((1, 32, 23, 23), (32, 32, 3, 3), {"strides": [2, 2]}),
}


def network(case: str):
    shape, filters, attributes = MAPS[case]
    b = Builder(shape)
    return b.model(b.add("Relu", [b.conv("image", "conv", filters, **attributes)], name="relu"))


@pytest.mark.parametrize("target", [None, HASWELL], ids=["host", "avx2"])
@pytest.mark.parametrize("case", MAPS)
def test_tails_of_pixels_are_computed_right(case: str, target: dict | None) -> None:
    assert_as_onnxruntime(raw(network(case)), target)


def test_a_tile_need_not_divide_the_map() -> None:
    found, _ = compiled(raw(network("one pixel more than whole tiles")), HASWELL)
    (text,) = (text for name, text in found.schedules.items() if "conv2d" in name)
    assert 49 % int(re.search(r"pixels=(\d+)", text)[1])


@pytest.mark.parametrize("tile", ["pixels=1 blocks=1", "pixels=5 blocks=2", "pixels=16 blocks=1", "pixels=3 blocks=4"])
def test_any_tile_gives_the_same_result(tile: str) -> None:
    model = network("one pixel more than whole tiles")
    entry = raw(model)
    found, _ = compiled(entry)
    (name,) = (name for name in found.schedules if "conv2d" in name)
    text = f"convolution {tile} unroll=2 parts=0"
    again = compile_networks([entry], host_target(), chosen={name: text})
    assert again.schedules[name] == text
    got = Artefact(again.executable).run(entry.name, image(entry))
    expected = networks.run(model, image(entry))
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
@pytest.mark.parametrize("tile", ["pixels=5 blocks=2", "pixels=7 blocks=1"], ids=["with a tail", "without"])
def test_rows_of_tiles_cut_into_parts_give_the_same_result(tile: str, parts: int) -> None:
    model = network("a map of four rows")
    entry, target = raw(model), host_target(threads=2)
    found, _ = compiled(entry, target)
    (name,) = (name for name in found.schedules if "conv2d" in name)
    text = f"convolution {tile} unroll=2 parts={parts}"
    again = compile_networks([entry], target, chosen={name: text})
    got = Artefact(again.executable).run(entry.name, image(entry))
    expected = networks.run(model, image(entry))
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
