"""Filters as few powers of two times a basis: written as ONNX, read back, and read by kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from entries import HASWELL, assert_as_onnxruntime, compiled, image
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from planner.errors import InputError
from planner.layering import bytes_of, parameters_of
from planner.segments import Entry
from planner.storage.power_weights import Powers, read


def powers(shape: tuple[int, int, int, int], kept: int, seed: int = 0) -> Powers:
    """Return random filters of a shape."""
    rng = np.random.default_rng(seed)
    outputs, inputs, rows, columns = shape
    slots = inputs // 4 * kept
    sizes = np.append(1 << np.arange(7), 0)
    signs = rng.choice([-1, 1], (outputs, slots, rows, columns))
    orders = rng.permuted(np.tile(np.arange(4), (outputs, inputs // 4, rows, 1, 1)), axis=-1)
    places = np.sort(orders[..., :kept], axis=-1)
    return Powers(
        coefficients=(rng.choice(sizes, signs.shape) * signs).astype(np.int8),
        places=places.transpose(0, 1, 4, 2, 3).reshape(outputs, slots, rows, 1).astype(np.uint8),
        kept=kept,
        basis=rng.integers(-127, 128, (outputs, columns, columns)).astype(np.int8),
        scale=rng.uniform(1e-5, 2e-5, outputs).astype(np.float32),
    )


def network(what: Powers) -> Entry:
    """One convolution of such filters."""
    inputs = what.coefficients.shape[1] // what.kept * 4
    b = Builder((1, inputs, 7, 7), opset=21)
    nodes, arrays = what.written("w", "w.float32")
    for name, array in arrays.items():
        b.constant(array, name)
    b.nodes.extend(nodes)
    x = b.add("Conv", ["image", "w.float32"], name="conv", pads=[1, 1, 1, 1])
    model = b.model(b.add("Flatten", [b.add("GlobalAveragePool", [x], name="pool")], name="flat"))
    model.ir_version = 10
    made = (*(node.name for node in nodes), "conv")
    return Entry(name="net", model=model, nodes={"conv": made, "pool": ("pool",), "flat": ("flat",)})


@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(1, 3),
    fours=st.integers(1, 5),
    kept=st.integers(1, 4),
    taps=st.sampled_from([(1, 2), (3, 3), (2, 5)]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_valid_and_read_back(outputs: int, fours: int, kept: int, taps: tuple, seed: int) -> None:
    what = powers((outputs, 4 * fours, *taps), kept, seed)
    nodes, arrays = what.written("w", "out")
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    shape = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, (outputs, 4 * fours, *taps))
    graph = onnx.helper.make_graph(nodes, "weights", [], [shape], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    values = ReferenceEvaluator(model).run(None, {})[0]
    np.testing.assert_allclose(values, what.values, rtol=1e-5, atol=1e-6)
    found = read("out", {name: node for node in nodes for name in node.output}, arrays)
    assert found is not None
    assert found.kept == kept
    for part in ("coefficients", "places", "basis", "scale"):
        np.testing.assert_array_equal(getattr(found, part), getattr(what, part))


@pytest.mark.parametrize(
    ("shape", "kept", "target"),
    [((32, 64, 3, 3), 2, None), ((16, 32, 3, 3), 1, None), ((20, 20, 3, 3), 3, None), ((16, 16, 5, 5), 2, HASWELL)],
)
def test_kernels_compute_what_onnxruntime_computes(shape: tuple, kept: int, target: Any) -> None:
    assert_as_onnxruntime(network(powers(shape, kept)), target)


@pytest.mark.parametrize("kept", [1, 2])
def test_filters_take_the_bits_of_what_is_kept_in_the_artefact(kept: int) -> None:
    shape = (32, 64, 3, 3)
    what = powers(shape, kept)
    slots = 32 * 16 * kept * 3
    expected = slots * 3 * 4 // 8 + slots * 2 // 8 + 32 * 9 + 4 * 32
    nodes, arrays = what.written("w", "out")
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    assert sum(bytes_of(arrays[name].size, kinds[name]) for name in parameters_of(nodes, kinds)) == expected
    entry = network(what)
    assert compiled(entry)[1].trace("net", image(entry)).weight_bytes == expected


def test_parts_that_do_not_belong_together_are_refused() -> None:
    what = powers((4, 8, 3, 3), 2)
    parts = {name: getattr(what, name) for name in ("coefficients", "places", "basis", "scale")}
    with pytest.raises(InputError, match="4 slots, 3 for each"):
        Powers(**parts, kept=3)
    with pytest.raises(InputError, match="places of shape"):
        Powers(**{**parts, "places": what.places[:1]}, kept=2)
    with pytest.raises(InputError, match="bases of shape"):
        Powers(**{**parts, "basis": what.basis[:1]}, kept=2)


def test_other_operators_are_no_powers() -> None:
    nodes, arrays = powers((4, 8, 3, 3), 2).written("w", "out")
    next(node for node in nodes if node.op_type == "Equal").op_type = "Less"
    assert read("out", {name: node for node in nodes for name in node.output}, arrays) is None
