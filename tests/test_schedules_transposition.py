from __future__ import annotations

from itertools import permutations

import pytest
from entries import HASWELL, assert_as_onnxruntime, compiled, raw
from networks import Builder
from tvm.target import Target

from planner.compiler import fuse_networks, schedule_networks

ORDERS = [order for order in permutations(range(4)) if order[0] == 0]


def transposed(order: tuple[int, ...], shape: tuple[int, ...] = (1, 5, 6, 32)):
    b = Builder(shape)
    x = b.add("Relu", ["image"], name="before")
    x = b.add("Transpose", [x], name="transpose", perm=list(order))
    return b.model(b.add("Sigmoid", [x], name="after"))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_permutation_computes_what_onnxruntime_computes(order: tuple[int, ...]) -> None:
    entry = raw(transposed(order))
    assert_as_onnxruntime(entry)
    schedules = set(compiled(entry)[0].schedules.values())
    assert ("transposition run=16" in schedules) is (order[-1] != 3)


@pytest.mark.parametrize("length", [1, 6, 36, 64])
def test_rows_of_any_length_are_transposed(length: int) -> None:
    assert_as_onnxruntime(raw(transposed((0, 2, 3, 1), (1, 7, 3, length))))


def test_a_permutation_of_a_map_of_a_convolution_is_right() -> None:
    b = Builder((1, 4, 6, 7))
    x = b.conv("image", "conv", (20, 4, 3, 3), pads=[1, 1, 1, 1])
    assert_as_onnxruntime(raw(b.model(b.add("Transpose", [x], name="transpose", perm=[0, 2, 3, 1]))))


def test_large_tensors_are_transposed_by_several_threads() -> None:
    target = HASWELL | {"num-cores": 2}
    for shape, spread in (((1, 64, 6, 32), True), ((1, 4, 6, 32), False)):
        entry = raw(transposed((0, 2, 3, 1), shape))
        module = schedule_networks(fuse_networks([entry], Target(target)), Target(target))
        (kernel,) = (function for var, function in module.functions_items() if "transpose" in var.name_hint)
        assert ("T.parallel" in str(kernel)) is spread
        assert_as_onnxruntime(entry, target)
