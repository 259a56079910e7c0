from __future__ import annotations

import numpy as np
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder
from tvm.target import Target

from planner.compiler import fuse_networks, schedule_networks
from planner.schedules.families import products
from planner.schedules.vectors import VectorUnit

PRODUCTS = {
    "two matrices": ((1, 24, 32), (1, 32, 48)),
    "heads": ((1, 6, 64, 64), (1, 6, 64, 64)),
    "odd rows": ((1, 3, 37, 20), (1, 3, 20, 32)),
    "odd columns": ((1, 2, 16, 20), (1, 2, 20, 37)),
    "one row": ((1, 4, 1, 24), (1, 4, 24, 32)),
    "one column": ((1, 2, 9, 8), (1, 2, 8, 1)),
    "odd depth": ((1, 2, 8, 7), (1, 2, 7, 16)),
    "a batch against one matrix": ((1, 4, 9, 16), (16, 24)),
    "one matrix against a batch": ((9, 16), (1, 4, 16, 24)),
    "batches broadcast both ways": ((1, 4, 9, 16), (3, 1, 16, 24)),
}


def product(left: tuple[int, ...], right: tuple[int, ...]):
    """Two activations made of one input, multiplied, then scaled, rectified and added to."""
    b = Builder((1, 8))
    ends = []
    for name, shape in (("left", left), ("right", right)):
        x = b.add("MatMul", ["image", b.weights((8, int(np.prod(shape))), f"{name}.w")], name=name)
        ends.append(b.add("Reshape", [x, b.constant(np.array(shape), f"{name}.shape")], name=f"{name}.reshape"))
    x = b.add("MatMul", ends, name="product")
    x = b.add("Div", [x, b.constant(np.float32(3.0), "three")], name="scale")
    x = b.add("Relu", [x], name="relu")
    return b.model(b.add("Add", [x, b.constant(np.float32(0.25), "quarter")], name="add"))


@pytest.mark.parametrize("case", PRODUCTS)
def test_a_product_of_activations_computes_what_onnxruntime_computes(case: str) -> None:
    entry = raw(product(*PRODUCTS[case]))
    assert_as_onnxruntime(entry)
    found, _ = compiled(entry)
    (kernel,) = (k for k in found.schedules if "_product_" in k or "relu" in k)
    assert found.schedules[kernel].startswith("matmul "), found.schedules
    assert "divide" in kernel
    assert "add" in kernel


@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
def test_a_product_is_right_with_narrower_vectors_too(target: dict) -> None:
    assert_as_onnxruntime(raw(product((1, 3, 37, 20), (1, 3, 20, 41))), target)


def test_heads_are_spread_over_threads() -> None:
    target = HASWELL | {"num-cores": 2}
    entry = raw(product((1, 6, 20, 16), (1, 6, 16, 37)))
    module = schedule_networks(fuse_networks([entry], Target(target)), Target(target))
    (kernel,) = (function for var, function in module.functions_items() if "divide" in var.name_hint)
    assert "T.parallel" in str(kernel)
    assert_as_onnxruntime(entry, target)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from([((), ()), ((2,), (2,)), ((1, 3), (1, 3)), ((1, 2), ()), ((2, 1), (1, 3))]),
    rows=st.integers(1, 20),
    depth=st.integers(1, 40),
    columns=st.integers(1, 50),
)
def test_any_product_computes_what_onnxruntime_computes(batch, rows, depth, columns) -> None:
    assert_as_onnxruntime(raw(product((*batch[0], rows, depth), (*batch[1], depth, columns))))


@settings(max_examples=60, deadline=None)
@given(
    registers=st.sampled_from([(16, 4), (16, 8), (32, 4), (32, 16)]),
    rows=st.integers(1, 80),
    blocks=st.integers(1, 12),
)
def test_a_tile_of_a_product_divides_it_and_fits_the_registers(registers, rows, blocks) -> None:
    unit = VectorUnit(registers=registers[0], lanes=registers[1], threads=1)
    tall, width = products.best_tile(unit, products.filled_rows(rows), 16 * blocks)
    assert products.filled_rows(rows) % tall == 0
    assert 16 * blocks % width == 0
    assert (tall, width) == (1, 16) or products.fits(unit, tall, width)
