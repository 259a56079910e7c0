from __future__ import annotations

import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder
from tvm.target import Target

from planner.compiler import compile_networks, fuse_networks, host_target, schedule_networks
from planner.schedules.families.dense import columns_for

SHAPES = {
    "one row": (1, 40),
    "a sequence": (1, 64, 96),
    "an odd sequence": (1, 37, 24),
    "three rows": (1, 3, 24),
    "several sequences": (1, 2, 3, 10, 24),
    "many of one row": (1, 5, 1, 24),
}


def dense(shape: tuple[int, ...], outputs: int, op: str = "Relu"):
    """A product with a constant matrix, a bias, a function, and what was there before added."""
    b = Builder(shape)
    x = b.add("MatMul", ["image", b.weights((shape[-1], outputs), "w")], name="product")
    x = b.add("Add", [b.weights((outputs,), "bias"), x], name="shift")
    x = b.add(op, [x], name="function")
    return b.model(b.add("Mul", [x, x], name="square"))


def scheduled(entry, target=None) -> dict[str, str]:
    """Give the schedules of the kernels that are dense layers."""
    return {k: s for k, s in compiled(entry, target)[0].schedules.items() if s.startswith("dense ")}


@pytest.mark.parametrize("outputs", [1, 24, 100, 192])
@pytest.mark.parametrize("case", SHAPES)
def test_a_product_with_a_constant_matrix_computes_what_onnxruntime_computes(case: str, outputs: int) -> None:
    entry = raw(dense(SHAPES[case], outputs))
    assert_as_onnxruntime(entry)
    assert len(scheduled(entry)) == 1


@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
@pytest.mark.parametrize("case", ["one row", "an odd sequence"])
def test_a_dense_layer_is_right_with_narrower_vectors_too(case: str, target: dict) -> None:
    assert_as_onnxruntime(raw(dense(SHAPES[case], 40)), target)


def test_bias_and_function_are_part_of_the_kernel() -> None:
    (kernel,) = compiled(raw(dense((1, 8, 24), 48, "Erf")))[0].schedules
    for part in ("dense", "add", "erf", "multiply"):
        assert part in kernel


def test_the_schedule_that_is_noted_is_the_one_that_is_built() -> None:
    entry = raw(dense((1, 16, 24), 48))
    ((kernel, usual),) = scheduled(entry, HASWELL).items()
    other = "dense rows=2 width=16 unroll=2"
    assert usual != other
    found = compile_networks([entry], HASWELL, chosen={kernel: other})
    assert found.schedules[kernel] == other
    assert_as_onnxruntime(entry, HASWELL)


def test_a_tile_is_as_wide_as_the_registers_allow() -> None:
    entry = raw(dense((1, 64, 96), 96))
    assert "rows=4 width=24" in next(iter(scheduled(entry, HASWELL).values()))
    assert "rows=4 width=48" in next(iter(scheduled(entry, HASWELL | {"mcpu": "skylake-avx512"}).values()))


@settings(max_examples=40, deadline=None)
@given(outputs=st.integers(1, 5000), rows=st.integers(1, 9))
def test_packed_blocks_waste_less_than_one_vector(outputs: int, rows: int) -> None:
    assert -outputs % columns_for(outputs, rows) < 16


def test_kernels_of_products_take_no_workspace() -> None:
    found, _ = compiled(raw(dense((1, 37, 24), 100, "Erf")), host_target())
    assert not any(found.workspaces.values())


def test_columns_are_spread_over_threads() -> None:
    target = HASWELL | {"num-cores": 2}
    for entry in (raw(dense((1, 16, 24), 96)), raw(dense((1, 24), 96))):
        assert "T.parallel" in str(schedule_networks(fuse_networks([entry], Target(target)), Target(target)))
        assert_as_onnxruntime(entry, target)
