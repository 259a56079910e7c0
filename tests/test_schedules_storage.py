from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, image, raw, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder

from planner.compiler import memory_script
from planner.schedules.codes import Form, planes
from planner.schedules.storage import Codes
from planner.storage import stored_weights

INT4, UINT4 = (onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4))
FORMS = ("float16", "int8", "int8 in groups", "int4", "int4 in groups", "uint4 in groups")
STORED_BYTES = {"float16": 2.0, "int8": 1.0, "int8 in groups": 1.0, "int4": 0.5, "int4 in groups": 0.5}


def stored(b: Builder, form: str, shape: tuple[int, ...], *, axis: int = 1, block: int = 16) -> str:
    """Add random weights in a stored form and the operator that widens them; give its output."""
    size = np.prod(shape) / shape[1 - axis]
    weight = b.rng.normal(0, np.sqrt(2.0 / size), shape).astype(np.float32)
    if form == "float16":
        return b.add("Cast", [b.constant(weight.astype(np.float16), "w16")], name="cast", to=onnx.TensorProto.FLOAT)
    most = 127 if "8" in form else 7
    grouped = "groups" in form
    along = axis if grouped else 1 - axis
    group = block if grouped else 1
    scales = np.abs(weight)
    if grouped:
        count = shape[axis] // block
        split = (*shape[:axis], count, block, *shape[axis + 1 :])
        scales = scales.reshape(split).max(axis=axis + 1) / most
        spread = np.repeat(scales, group, axis=axis)
    else:
        others = tuple(i for i in range(len(shape)) if i != along)
        scales = scales.max(axis=others) / most
        spread = scales.reshape([-1 if i == along else 1 for i in range(len(shape))])
    whole = np.rint(weight / spread).astype(np.int8)
    names = ["", b.constant(scales.astype(np.float32), "scales")]
    if form.startswith("uint4"):
        names[0] = b.constant((whole + 8).astype(UINT4), "whole")
        names.append(b.constant(np.full(scales.shape, 8, UINT4), "zero"))
    else:
        names[0] = b.constant(whole if most == 127 else whole.astype(INT4), "whole")
    settings = {"block_size": block} if grouped else {}
    return b.add("DequantizeLinear", names, name="widen", axis=along, **settings)


def dense(form: str, outputs: int, inputs: int, rows: int = 1, **groups: int) -> Any:
    b = Builder((1, rows, inputs), opset=21)
    weight = stored(b, form, (inputs, outputs), axis=0, **groups)
    x = b.add("MatMul", ["image", weight], name="product")
    return raw(_model(b, b.add("Add", [x, b.weights((outputs,), "bias")], name="shift")))


def convolution(form: str, filters: tuple[int, int, int, int], size: int = 9, **groups: int) -> Any:
    b = Builder((1, filters[1], size, size), opset=21)
    weight = stored(b, form, filters, **groups)
    inputs = ["image", weight, b.weights(filters[:1], "bias")]
    x = b.add("Conv", inputs, name="conv", kernel_shape=list(filters[2:]), pads=[filters[2] // 2] * 4)
    return raw(_model(b, b.add("Relu", [x], name="relu")))


def _model(b: Builder, output: str) -> onnx.ModelProto:
    model = b.model(output)
    model.ir_version = 10
    return model


def weight_bytes(entry: Any) -> int:
    return compiled(entry)[1].trace("net", image(entry)).weight_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 6])
def test_a_product_with_stored_weights_computes_what_onnxruntime_computes(form: str, rows: int) -> None:
    assert_as_onnxruntime(dense(form, 40, 48, rows))


@pytest.mark.parametrize("form", FORMS)
def test_a_convolution_with_stored_weights_computes_what_onnxruntime_computes(form: str) -> None:
    assert_as_onnxruntime(convolution(form, (20, 32, 3, 3)))


@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
@pytest.mark.parametrize("form", ["float16", "int4 in groups"])
def test_stored_weights_are_read_right_with_narrower_vectors_too(form: str, target: dict) -> None:
    assert_as_onnxruntime(dense(form, 40, 48), target)
    assert_as_onnxruntime(convolution(form, (20, 16, 3, 3)), target)


@pytest.mark.parametrize("form", ["float16", "int4 in groups", "int8 in groups"])
def test_a_depthwise_or_odd_convolution_is_right_whatever_its_weights_are_stored_as(form: str) -> None:
    assert_as_onnxruntime(convolution(form, (12, 6, 1, 1), block=3))


@pytest.mark.parametrize("form", STORED_BYTES)
def test_the_bytes_saved_are_saved_in_the_artefact(form: str) -> None:
    outputs, inputs = 128, 256
    scales = 4 * outputs * (inputs // 32 if "groups" in form else 1)
    expected = STORED_BYTES[form] * outputs * inputs + scales * (form != "float16") + 4 * outputs
    assert weight_bytes(dense(form, outputs, inputs, block=32)) == expected
    filters = (outputs, 32, 3, 3)
    numbers = STORED_BYTES[form] * np.prod(filters)
    per_tap = 9 if "groups" in form else 1
    expected = numbers + 4 * outputs * per_tap * (form != "float16") + 4 * outputs
    assert weight_bytes(convolution(form, filters, block=32)) == expected


def test_many_pixels_share_weights_that_are_unpacked_once() -> None:
    entry = convolution("int4 in groups", (32, 32, 3, 3), size=24)
    found, _ = compiled(entry, HASWELL)
    (kernel,) = (k for k, schedule in found.schedules.items() if schedule.startswith("convolution "))
    assert "unpack=1" in found.schedules[kernel]
    (call,) = (call for call in memory_script(entry, HASWELL).calls if call.kernel == kernel)
    assert call.workspace_bytes == 4 * 16 * 32 * 9  # one block of the two
    assert_as_onnxruntime(entry, HASWELL)
    single, _ = compiled(dense("int4 in groups", 64, 64), HASWELL)
    assert "unpack=0" in next(s for s in single.schedules.values() if s.startswith("dense "))
    assert not any(single.workspaces.values())


@pytest.mark.parametrize(("form", "share"), [("float16", 0.5), ("int4 in groups", 0.25)])
def test_weights_that_a_file_stores_in_fewer_bytes_stay_so(form: str, share: float, tmp_path: Path) -> None:
    b = Builder((1, 32, 6, 6), opset=21)
    weight = stored(b, form, (32, 32, 3, 3), block=32)
    x = b.add("GlobalAveragePool", [b.add("Conv", ["image", weight], name="conv")], name="pool")
    entry = whole(_model(b, b.add("Flatten", [x], name="flat")), tmp_path)
    assert weight_bytes(entry) <= share * 4 * 32 * 32 * 9
    assert_as_onnxruntime(entry)


@settings(max_examples=40)
@given(
    bits=st.sampled_from([1, 2, 3, 4, 8]),
    rows=st.integers(1, 3),
    depth=st.integers(1, 40),
    lanes=st.sampled_from([1, 3, 16, 48]),
    seed=st.integers(0, 99),
)
def test_codes_in_planes_take_their_bits_and_no_more(bits: int, rows: int, depth: int, lanes: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, depth, lanes)).astype(np.uint8)
    packed = planes(codes, Form(bits=bits))
    assert sum(plane.nbytes for plane in packed) >= rows * lanes * depth * bits / 8
    if depth % 4 == 0 and lanes == 16:
        assert sum(plane.nbytes for plane in packed) * 8 == rows * lanes * depth * bits


@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 9)), block=st.integers(1, 9), axis=st.integers(0, 1))
def test_groups_that_are_transposed_stand_for_transposed_weights(shape, block, axis) -> None:
    rng = np.random.default_rng(0)
    count = [-(-size // block) if i == axis else size for i, size in enumerate(shape)]
    codes, scales = rng.integers(0, 16, shape).astype(np.uint8), rng.uniform(1, 2, count).astype(np.float32)
    groups = Codes(codes=codes, bits=4, axis=axis, figures=scales, block=block)
    np.testing.assert_array_equal(groups.transposed((1, 0)).widened(), groups.widened().T)
    assert groups.widened()[-1, -1] == (int(codes[-1, -1]) - 8) * scales[-1, -1]


def test_codes_refuse_what_they_cannot_hold() -> None:
    codes, scales = np.full((2, 8), 9, np.uint8), np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="between 0 and 7"):
        Codes(codes=codes, bits=3, axis=1, figures=scales, block=4)
    with pytest.raises(ValueError, match=r"groups of 2 need \(2, 4\)"):
        Codes(codes=codes, bits=8, axis=1, figures=scales, block=2)
    with pytest.raises(ValueError, match="expected 1, 2, 3, 4 or 8"):
        Codes(codes=codes, bits=5, axis=1, figures=scales, block=4)
    with pytest.raises(ValueError, match="a multiplier of 18"):
        Codes(codes=codes, bits=4, axis=1, figures=np.full((2, 2), 18, np.uint8), block=4)
    with pytest.raises(ValueError, match="16 entries"):
        Codes(codes=codes, bits=4, axis=1, table=np.zeros(9, np.int8))
    with pytest.raises(ValueError, match="scales for 2 outputs"):
        Codes(codes=codes, bits=4, axis=1, scales=np.ones(3, np.float32))


def test_numbers_whose_zero_puts_them_beyond_their_bits_are_read_as_float32() -> None:
    whole = np.arange(16).reshape(2, 8).astype(UINT4)
    scale, zero = np.full((2, 1), 0.5, np.float32), np.full((2, 1), 3, UINT4)
    found = stored_weights.read(whole, scale, zero, axis=1, block=8)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, (np.arange(16).reshape(2, 8) - 3) * np.float32(0.5))
