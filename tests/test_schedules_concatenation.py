from __future__ import annotations

import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder

TARGETS = pytest.mark.parametrize("target", [None, OLD, HASWELL], ids=["host", "sse", "avx2"])


def _joined(*channels: int, last: bool = True):
    b = Builder((1, 5, 6, 7))
    parts = [b.conv("image", f"part{n}", (c, 5, 1, 1)) for n, c in enumerate(channels)]
    x = b.add("Relu", [b.add("Concat", parts, name="join", axis=1)], name="relu")
    return raw(b.model(b.conv(x, "last", (3, sum(channels), 3, 3)) if last else x))


@TARGETS
@pytest.mark.parametrize(
    "channels", [(16, 16), (16, 32, 16), (48, 5), (5, 3), (24, 112), (1, 1, 1), (15, 17, 33), (16,)], ids=str
)
def test_joins_compute_what_onnxruntime_computes(channels: tuple[int, ...], target: dict | None) -> None:
    assert_as_onnxruntime(_joined(*channels), target)


@pytest.mark.parametrize("channels", [(32, 16), (20, 16), (7, 9)], ids=str)
def test_a_join_is_one_kernel_in_the_blocked_layout_whatever_its_channels(channels: tuple[int, ...]) -> None:
    found, _ = compiled(_joined(*channels))
    assert sum("_concat_" in name for name in found.schedules) == 1
    assert sum("to_plain" in name for name in found.schedules) == 1  # the output
    assert not any("concatenate" in name for name in found.schedules)


def test_a_map_that_a_network_is_given_may_be_joined() -> None:
    b = Builder((1, 5, 6, 7))
    x = b.conv("image", "part", (20, 5, 1, 1))
    assert_as_onnxruntime(raw(b.model(b.add("Concat", [x, "image", x], name="join", axis=1))))


@pytest.mark.parametrize("axis", [2, 3, -1])
def test_joins_along_other_axes_are_left_to_code_that_knows_them(axis: int) -> None:
    b = Builder((1, 5, 6, 7))
    x = b.conv("image", "part", (20, 5, 1, 1))
    x = b.add("Concat", [x, x], name="join", axis=axis)
    assert_as_onnxruntime(raw(b.model(b.conv(x, "last", (3, 20, 3, 3)))))
