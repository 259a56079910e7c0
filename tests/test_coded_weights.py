"""Weights as codes of few bits: written as ONNX, read back, and read by kernels of float32 and of bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, image, raw
from hypothesis import given, settings
from hypothesis import strategies as st
from integers import Quantiser
from networks import Builder, run
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from planner.errors import InputError
from planner.layering import bytes_of, parameters_of
from planner.storage.coded_weights import Coded, read

FORMS = (
    "4 bits in groups",
    "4 bits",
    "3 bits in groups",
    "3 bits",
    "2 bits in groups",
    "16 entries",
    "8 entries",
    "4 entries",
)
LARGEST = {4: 15, 3: 31, 2: 63}


def coded(form: str, shape: tuple[int, ...], block: int = 16, seed: int = 0) -> Coded:
    """Return random codes of a form."""
    rng = np.random.default_rng(seed)
    size = int(form.split(maxsplit=1)[0])
    bits = size.bit_length() - 1 if "entries" in form else size
    sizes = rng.integers(1, 128, 1 << (bits - 1))
    table = np.sort(np.concatenate([sizes, -sizes])).astype(np.int8) if "entries" in form else None
    grouped = "groups" in form
    groups = (shape[0], -(-shape[1] // block), *shape[2:])
    what = Coded(
        codes=rng.integers(0, 1 << bits, shape).astype(np.uint8),
        bits=bits,
        scale=rng.uniform(0.5, 1, shape[0]).astype(np.float32),
        table=table,
        multipliers=rng.integers(1, LARGEST[bits] + 1, groups).astype(np.uint8) if grouped else None,
        block=block if grouped else 0,
    )
    size = np.sqrt(np.sum(what.values.astype(np.float64) ** 2) / shape[0])
    return replace(what, scale=(what.scale / (size or 1.0)).astype(np.float32))


def add(b: Builder, what: Coded, name: str, *, as_int8: bool = False) -> str:
    """Add weights to a network, as codes or as the int8 they stand for."""
    if as_int8:
        constants = [b.constant(what.numbers, f"{name}.int8"), b.constant(what.scale, f"{name}.scale")]
        return b.add("DequantizeLinear", constants, name=f"{name}.dequantize", axis=0)
    nodes, arrays = what.written(name, f"{name}.float32")
    for key, array in arrays.items():
        b.constant(array, key)
    b.nodes.extend(nodes)
    return f"{name}.float32"


def whole_layers(b: Builder, output: str) -> Any:
    """Return a network as an entry whose layers hold the nodes that make their weights."""
    model = b.model(output)
    model.ir_version = 10
    names: dict[str, tuple[str, ...]] = {}
    waiting: list[str] = []
    made = {item.name for item in model.graph.initializer}
    for node in model.graph.node:
        waiting.append(node.name)
        if made.issuperset(name for name in node.input if name):
            made.update(node.output)
            continue
        names[node.name] = tuple(waiting)
        waiting = []
    entry = raw(model)
    return type(entry)(name="net", model=model, nodes=names)


def network(form: str, filters: tuple[int, int, int, int] = (24, 32, 3, 3), size: int = 9) -> Any:
    """A convolution and a dense layer with weights as codes, in float32."""
    b = Builder((1, filters[1], size, size), opset=21)
    x = b.add("Conv", ["image", add(b, coded(form, filters), "w"), b.weights(filters[:1], "bias")], name="conv")
    x = b.add("Relu", [x], name="relu")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="pool")], name="flat")
    return whole_layers(
        b, b.add("Gemm", [x, add(b, coded(form, (20, filters[0]), 8, seed=1), "v")], name="fc", transB=1)
    )


def bytes_network(form: str, filters: tuple[int, int, int, int], size: int, *, as_int8: bool) -> Any:
    """The same of bytes, with a flattened map in front of the dense layer."""
    b = Builder((1, filters[1], size, size), opset=21)
    q = Quantiser(b)
    x = q.point("image", "in", 0.02, 120)
    x = b.add("Conv", [x, add(b, coded(form, filters), "w", as_int8=as_int8)], name="conv", pads=[filters[2] // 2] * 4)
    x = q.point(b.add("Relu", [x], name="relu"), "mid", 0.02, 0)
    x = b.add("Flatten", [b.add("MaxPool", [x], name="pool", kernel_shape=[4, 4], strides=[4, 4])], name="flat")
    inputs = filters[0] * (size // 4) ** 2
    what = coded(form, (16, inputs), 4 * (size // 4) ** 2, seed=1)
    x = b.add("Gemm", [x, add(b, what, "v", as_int8=as_int8)], name="fc", transB=1)
    return whole_layers(b, q.point(x, "out", 0.1, 128))


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 40),
    taps=st.sampled_from([(), (1, 1), (3, 2)]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_valid_and_read_back(form: str, outputs: int, inputs: int, taps: tuple, seed: int) -> None:
    what = coded(form, (outputs, inputs, *taps), seed=seed)
    nodes, arrays = what.written("w", "out")
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    shape = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, what.codes.shape)
    graph = onnx.helper.make_graph(nodes, "weights", [], [shape], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {})[0], what.values, rtol=1e-6)
    found = read("out", {name: node for node in nodes for name in node.output}, arrays)
    assert found is not None
    assert (found.bits, found.block) == (what.bits, what.block)
    np.testing.assert_array_equal(found.codes, what.codes)
    np.testing.assert_array_equal(found.numbers, what.numbers)


@pytest.mark.parametrize("form", FORMS)
def test_constants_take_the_bits_of_their_codes(form: str) -> None:
    what = coded(form, (8, 32, 3, 3))
    nodes, arrays = what.written("w", "out")
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    counted = sum(bytes_of(arrays[name].size, kinds[name]) for name in parameters_of(nodes, kinds))
    rest = 8 * 4 + (8 * 2 * 9 if what.block else 0) + (0 if what.table is None else len(what.table))
    assert counted == 8 * 32 * 9 * what.bits // 8 + rest


@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
@pytest.mark.parametrize("form", ["3 bits in groups", "16 entries"])
def test_codes_are_read_right_with_narrower_vectors_too(form: str, target: dict) -> None:
    assert_as_onnxruntime(network(form, (16, 20, 3, 3), 5), target)


@pytest.mark.parametrize("form", FORMS)
def test_kernels_of_float32_read_codes_of_no_more_bits_and_compute_what_onnxruntime_computes(form: str) -> None:
    entry = network(form, (32, 64, 3, 3))
    convolution, product = coded(form, (32, 64, 3, 3)), coded(form, (20, 32), 8)

    def stored(what: Coded, outputs: int) -> int:
        figures = 0 if what.multipliers is None else what.multipliers.size // len(what.codes) * outputs
        numbers = what.codes.size // len(what.codes) * outputs * what.bits // 8
        return numbers + figures + (0 if what.table is None else len(what.table)) + 4 * len(what.codes)

    # The product's 20 outputs are filled up to 32 in whole blocks; scales and biases are not.
    expected = stored(convolution, 32) + 4 * 32 + stored(product, 32)
    _, artefact = compiled(entry)
    images = image(entry)
    assert artefact.trace("net", images).weight_bytes == expected
    reference = run(entry.model, images)
    np.testing.assert_allclose(artefact.run("net", images), reference, rtol=0, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize(
    ("form", "filters", "size", "target"),
    [
        *((form, (32, 32, 3, 3), 12, None) for form in FORMS),
        ("4 bits in groups", (20, 24, 1, 1), 8, None),
        ("3 bits", (16, 16, 5, 5), 4, None),
        ("4 bits in groups", (32, 32, 3, 3), 12, HASWELL),
        ("8 entries", (32, 32, 3, 3), 12, HASWELL),
        ("3 bits in groups", (16, 20, 3, 3), 8, OLD),
    ],
)
def test_kernels_of_bytes_give_the_same_bytes_as_with_int8(form: str, filters: tuple, size: int, target: Any) -> None:
    entry, other = (bytes_network(form, filters, size, as_int8=as_int8) for as_int8 in (False, True))
    found, artefact = compiled(entry, target)
    images = np.concatenate([image(entry, seed) for seed in range(3)])
    outputs = artefact.run("net", images)
    np.testing.assert_array_equal(outputs, compiled(other, target)[1].run("net", images))
    assert len(np.unique(outputs)) > 3
    kinds = [text.split()[0] for text in found.schedules.values()]
    assert kinds.count("int8_convolution") == 2
    assert not {"convolution", "dense"} & set(kinds)
    numbers = np.prod(filters) + 16 * filters[0] * (size // 4) ** 2
    if not (filters[0] % 16 or filters[1] % 16):
        weights = artefact.trace("net", image(entry)).weight_bytes
        assert weights <= numbers * coded(form, (1, 1)).bits / 8 * 1.35 + 1000


def test_codes_that_do_not_fit_are_refused() -> None:
    codes, scale = np.full((2, 8), 9, np.uint8), np.ones(2, np.float32)
    with pytest.raises(InputError, match="codes up to 9 in 3 bits"):
        Coded(codes=codes, bits=3, scale=scale)
    with pytest.raises(InputError, match="scales for 2 outputs"):
        Coded(codes=codes, bits=4, scale=scale[:1])
    with pytest.raises(InputError, match="a table of"):
        Coded(codes=codes, bits=4, scale=scale, table=np.zeros(9, np.int8))
    with pytest.raises(InputError, match="for groups of 4 inputs"):
        Coded(codes=codes, bits=4, scale=scale, multipliers=np.ones((2, 3), np.uint8), block=4)


def test_a_chain_of_other_operators_is_no_codes() -> None:
    what = coded("3 bits", (4, 16))
    nodes, arrays = what.written("w", "out")
    nodes[0].op_type = "Mul"
    assert read("out", {name: node for node in nodes for name in node.output}, arrays) is None
