from __future__ import annotations

import numpy as np
import pytest
from entries import assert_as_onnxruntime, raw
from networks import Builder

TARGETS = pytest.mark.parametrize("target", [None, {"kind": "llvm", "mcpu": "haswell"}], ids=["host", "avx2"])


def enlarged(scales: list[float], mode: str, cut: list[tuple[int, int, int]] | None = None):
    b = Builder((1, 5, 9, 7))
    x = b.conv("image", "conv", (20, 5, 3, 3), pads=[1, 1, 1, 1])
    constant = b.constant(np.array([1, 1, *scales], np.float32), "scales")
    x = b.add("Resize", [x, "", constant], name="larger", mode="linear", coordinate_transformation_mode=mode)
    if cut:
        columns = zip(*cut, strict=True)
        roles = [b.constant(np.array(c), role) for c, role in zip(columns, ("begins", "ends", "axes"), strict=True)]
        x = b.add("Slice", [x, *roles], name="cut")
    return b.model(b.add("Relu", [x], name="relu"))


@pytest.mark.parametrize("scales", [[1, 2], [2, 2], [3, 1], [3, 2]])
@TARGETS
def test_maps_enlarged_in_steps_are_those_of_onnxruntime(scales: list[float], target: dict | None) -> None:
    assert_as_onnxruntime(raw(enlarged(scales, "asymmetric")), target)


@pytest.mark.parametrize(("rows", "columns"), [(17, 7), (9, 13), (25, 19), (17, 13)])
def test_maps_enlarged_between_corners_are_those_of_onnxruntime(rows: int, columns: int) -> None:
    assert_as_onnxruntime(raw(enlarged([(rows + 0.5) / 9, (columns + 0.5) / 7], "align_corners")))


@pytest.mark.parametrize("cut", [[(1, 17, 2)], [(2, 14, 3)], [(1, 18, 2), (0, 13, 3)], [(-17, -1, 2)]])
def test_maps_that_are_cut_are_those_of_onnxruntime(cut: list[tuple[int, int, int]]) -> None:
    assert_as_onnxruntime(raw(enlarged([2, 2], "asymmetric", cut)))


def test_what_is_enlarged_around_the_middles_of_pixels_is_computed_all_the_same() -> None:
    assert_as_onnxruntime(raw(enlarged([2, 1], "half_pixel")))


def test_what_is_cut_with_gaps_or_across_channels_is_computed_all_the_same() -> None:
    b = Builder((1, 5, 9, 8))
    x = b.conv("image", "conv", (20, 5, 3, 3), pads=[1, 1, 1, 1])
    numbers = {"begins": [3, 0], "ends": [17, 9], "axes": [1, 2], "steps": [1, 2]}
    roles = [b.constant(np.array(value), role) for role, value in numbers.items()]
    assert_as_onnxruntime(raw(b.model(b.add("Relu", [b.add("Slice", [x, *roles], name="cut")], name="relu"))))
