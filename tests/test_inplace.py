"""Which operands a kernel may write over."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from tvm import te, tirx

from planner.schedules.inplace import written_over


def scheduled(*tensors: Any) -> tvm.s_tir.Schedule:
    """Make a schedule of tensor expressions; the last tensor is the result."""
    return tvm.s_tir.Schedule(te.create_prim_func(list(tensors)))


def tensors(*names: str, dtype: str = "float32", shape: tuple[int, ...] = (6, 16)) -> list[Any]:
    return [te.placeholder(shape, name=name, dtype=dtype) for name in names]


def test_a_sum_may_be_written_over_either_operand() -> None:
    a, b = tensors("a", "b")
    schedule = scheduled(a, b, te.compute(a.shape, lambda i, j: a[i, j] + b[i, j], name="sum"))
    assert written_over(schedule.mod["main"]) == ((2, 0), (2, 1))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    i, j = schedule.get_loops(block)
    outer, inner = schedule.split(schedule.fuse(i, j), [None, 8])
    schedule.parallel(outer)
    schedule.vectorize(inner)
    assert written_over(schedule.mod["main"]) == ((2, 0), (2, 1))


def test_an_operand_that_is_read_twice_at_the_index_that_is_written_may_be_written_over() -> None:
    (a,) = tensors("a")
    square = te.compute(a.shape, lambda i, j: a[i, j] * a[i, j], name="square")
    assert written_over(scheduled(a, square).mod["main"]) == ((1, 0),)


@pytest.mark.parametrize(
    "index",
    [
        lambda a: lambda i, j: a[5 - i, j],
        lambda a: lambda i, j: a[i, j] + a[i, 0],
        lambda a: lambda i, j: a[tirx.max(i - 1, 0), j],
        lambda a: lambda i, j: a[i, (j + 1) % 16],
    ],
)
def test_an_operand_that_is_read_elsewhere_too_may_not(index: Any) -> None:
    (a,) = tensors("a")
    assert written_over(scheduled(a, te.compute(a.shape, index(a), name="moved")).mod["main"]) == ()


def test_a_narrower_result_may_not_be_written_over_what_it_reads() -> None:
    (a,) = tensors("a")
    narrow = te.compute(a.shape, lambda i, j: a[i, j].astype("int8"), name="narrow")
    assert written_over(scheduled(a, narrow).mod["main"]) == ()
    same = te.compute(a.shape, lambda i, j: a[i, j].astype("int32"), name="same")
    assert written_over(scheduled(a, same).mod["main"]) == ((1, 0),)


def test_another_shape_may_not_be_written_over_what_it_reads() -> None:
    (a,) = tensors("a")
    half = te.compute((3, 16), lambda i, j: a[i, j] + 1.0, name="half")
    assert written_over(scheduled(a, half).mod["main"]) == ()


def test_a_reduction_that_sets_its_result_to_zero_first_writes_too_early() -> None:
    a, b = tensors("a", "b", shape=(8, 8))
    k = te.reduce_axis((0, 8), "k")
    product = te.compute(a.shape, lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    assert written_over(scheduled(a, b, product).mod["main"]) == ()


def test_what_is_added_behind_a_reduction_may_be_written_over_and_what_is_reduced_may_not() -> None:
    a, b, c = tensors("a", "b", "c", shape=(8, 8))
    k = te.reduce_axis((0, 8), "k")
    product = te.compute(a.shape, lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    total = te.compute(a.shape, lambda i, j: product[i, j] + c[i, j], name="total")
    assert written_over(scheduled(a, b, c, total).mod["main"]) == ((3, 2),)


def test_a_tile_that_computes_elements_again_may_not_write_over_what_it_reads() -> None:
    # The last tile of four starts early, so that it ends with the row: two elements are computed twice.
    from tvm.script import tirx as T  # noqa: N812

    @T.prim_func(s_tir=True)
    def clamped(a: T.Buffer((6,), "float32"), b: T.Buffer((6,), "float32")) -> None:
        for tile in range(2):
            for lane in range(4):
                with T.sblock("add"):
                    v = T.axis.spatial(6, T.min(tile * 4 + lane, 5))
                    b[v] = a[v] + T.float32(1)

    assert written_over(clamped) == ()


def test_a_loop_that_repeats_the_whole_may_not_write_over_what_it_reads() -> None:
    from tvm.script import tirx as T  # noqa: N812

    @T.prim_func(s_tir=True)
    def repeated(a: T.Buffer((6,), "float32"), b: T.Buffer((6,), "float32")) -> None:
        for _again in range(3):
            for lane in range(6):
                with T.sblock("add"):
                    v = T.axis.spatial(6, lane)
                    b[v] = a[v] + T.float32(1)

    assert written_over(repeated) == ()


def test_a_kernel_that_reads_its_operand_before_and_after_may_not_write_over_it() -> None:
    from tvm.script import tirx as T  # noqa: N812

    @T.prim_func(s_tir=True)
    def twice(a: T.Buffer((6,), "float32"), b: T.Buffer((6,), "float32"), c: T.Buffer((6,), "float32")) -> None:
        for lane in range(6):
            with T.sblock("first"):
                v = T.axis.spatial(6, lane)
                b[v] = a[v] + T.float32(1)
        for lane in range(6):
            with T.sblock("second"):
                v = T.axis.spatial(6, lane)
                c[v] = a[5 - v]

    assert (1, 0) not in written_over(twice)
