from __future__ import annotations

import numpy as np
import pytest
import tvm
from entries import HASWELL, OLD, assert_as_onnxruntime, compiled, raw
from networks import Builder
from scipy import special
from tvm import te, tirx

from planner.schedules import transcendental

EXACT = {"exp": np.exp, "erf": special.erf, "tanh": np.tanh, "sigmoid": special.expit}


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    data = te.placeholder(x.shape, "float32", name="data")
    result = transcendental.elementwise(data, function=getattr(transcendental, name), name=name)
    function = te.create_prim_func([data, result]).with_attr("global_symbol", "main")
    kernel = tvm.compile(tvm.IRModule({"main": function}), target="llvm")
    given, out = tvm.runtime.tensor(x), tvm.runtime.tensor(np.zeros_like(x))
    kernel["main"](given, out)
    return out.numpy()


@pytest.mark.parametrize("name", EXACT)
def test_a_function_is_right_to_a_few_units_in_the_last_place(name: str) -> None:
    small = np.logspace(-30, 0, 2001)
    x = np.concatenate([np.linspace(-80, 80, 400_001), small, -small, [0.0]]).astype(np.float32)
    expected = EXACT[name](x.astype(np.float64))
    got = evaluate(name, x)
    relative = np.abs(got - expected) / np.maximum(np.abs(expected), 1e-37)
    assert relative[expected != 0].max() < 1e-6


@pytest.mark.parametrize("name", EXACT)
def test_a_function_stays_finite_far_out(name: str) -> None:
    x = np.array([-np.inf, -3e38, -1e4, -88, 88, 1e4, 3e38, np.inf], np.float32)
    got = evaluate(name, x)
    assert np.all(np.isfinite(got))
    expected = np.clip(EXACT[name](x.astype(np.float64)), -3e38, 2.4e38)
    np.testing.assert_allclose(got, expected, rtol=1e-5 if name != "exp" else 0.02, atol=2e-38)


CHAINS = {
    "Erf": {},
    "Exp": {},
    "Tanh": {},
    "Sigmoid": {},
    "Gelu": {},
    "Gelu by tanh": {"approximate": "tanh"},
}


@pytest.mark.parametrize("case", CHAINS)
@pytest.mark.parametrize("before", ["a convolution", "a product", "the input"])
def test_a_function_computes_what_onnxruntime_computes_wherever_it_stands(case: str, before: str) -> None:
    b = Builder((1, 4, 6, 16), opset=20)
    x = "image"
    if before == "a convolution":
        x = b.conv(x, "conv", (20, 4, 3, 3))
    elif before == "a product":
        x = b.add("MatMul", [x, b.weights((16, 24), "w")], name="product")
    x = b.add(case.split(maxsplit=1)[0], [x], name="function", **CHAINS[case])
    entry = raw(b.model(x))
    assert_as_onnxruntime(entry, tolerance=2e-6)
    assert not calls_of_the_library(entry)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, 1.7])
def test_a_power_computes_what_onnxruntime_computes(exponent: float) -> None:
    b = Builder((1, 3, 5, 16))
    x = b.add("Exp", ["image"], name="positive")
    x = b.add("Pow", [x, b.constant(np.float32(exponent), "exponent")], name="power")
    entry = raw(b.model(x))
    assert_as_onnxruntime(entry, tolerance=2e-6)
    assert bool(calls_of_the_library(entry)) is (exponent == 1.7)


@pytest.mark.parametrize("target", [OLD, HASWELL], ids=["sse", "avx2"])
def test_functions_are_right_with_narrower_vectors_too(target: dict) -> None:
    b = Builder((1, 2, 5, 16))
    x = "image"
    for op in ("Tanh", "Erf", "Exp", "Sigmoid"):
        x = b.add(op, [x], name=op.lower())
    assert_as_onnxruntime(raw(b.model(x)), target, tolerance=2e-6)


def calls_of_the_library(entry) -> set[str]:
    """Give the functions of the C library that the machine code of a network calls."""
    found, _ = compiled(entry)
    source = found.executable.mod.imports_[0].inspect_source("asm")
    return {name for name in ("expf", "erff", "tanhf", "powf") if name in source}


def test_a_value_is_named_once_however_often_it_is_used() -> None:
    x = tirx.Var("x", "float32")
    text = str(transcendental.erf(x + tirx.const(1.0, "float32")))
    assert text.count("x + ") == 1
