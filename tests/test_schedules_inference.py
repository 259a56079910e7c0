from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
from entries import assert_as_onnxruntime, raw, whole
from networks import Builder
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from planner.schedules import prepare
from planner.schedules.inference import FoldRemainingConstants, SimplifyConstants


def operators(module) -> list[str]:
    return [
        binding.value.op.name
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
    ]


def imported(model):
    return from_onnx(model, keep_params_in_input=False)


def normalised():
    b = Builder((1, 3, 5, 4))
    return b.model(b.add("Relu", [b.norm("image", "norm", 3)], name="relu"))


def test_batch_normalisation_becomes_one_multiplication_and_one_addition() -> None:
    assert operators(prepare()(imported(normalised()))) == ["relax.multiply", "relax.add", "relax.nn.relu"]


def test_a_network_that_starts_with_batch_normalisation_computes_what_onnxruntime_computes() -> None:
    assert_as_onnxruntime(raw(normalised()))


def test_the_bias_of_a_convolution_is_reshaped_without_compiling_a_kernel() -> None:
    b = Builder((1, 3, 6, 6))
    module = imported(b.model(b.conv("image", "conv", (4, 3, 3, 3))))
    assert "relax.reshape" in operators(module)
    assert operators(relax.transform.CanonicalizeBindings()(SimplifyConstants()(module))) == [
        "relax.nn.conv2d",
        "relax.add",
    ]


def test_constants_moved_twice_are_computed_at_once() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((3, 1, 2), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            moved = builder.emit(relax.op.expand_dims(builder.emit(relax.op.permute_dims(relax.const(values))), 1))
            out = builder.emit_output(builder.emit(relax.op.add(x, moved)))
        builder.emit_func_output(out)
    module = prepare()(builder.get())
    assert operators(module) == ["relax.add"]
    (binding,) = module["main"].body.blocks[0].bindings
    np.testing.assert_array_equal(binding.value.args[1].value.numpy(), values.T[:, None, :])


def test_the_bounds_of_a_clip_are_constants_again_before_anything_is_compiled() -> None:
    b = Builder((1, 3, 6, 6))
    bounds = [b.constant(np.float32(value).reshape(()), name) for name, value in (("low", 0), ("high", 6))]
    module = imported(b.model(b.add("Clip", ["image", *bounds], name="clip")))
    assert {"relax.isnan", "relax.where"} <= set(operators(module))
    assert not {"relax.isnan", "relax.where"} & set(operators(SimplifyConstants()(module)))
    assert operators(prepare()(module)) == ["relax.clip"]


@pytest.mark.parametrize("operator", ["cos", "exp"])
def test_what_numpy_does_not_compute_is_left_to_tvm(operator: str) -> None:
    values = np.array([0.25, 4.0], np.float32)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            constant = builder.emit(getattr(relax.op, operator)(relax.const(values)))
            out = builder.emit_output(builder.emit(relax.op.add(x, constant)))
        builder.emit_func_output(out)
    module = relax.transform.CanonicalizeBindings()(FoldRemainingConstants()(builder.get()))
    (binding,) = module["main"].body.blocks[0].bindings
    np.testing.assert_allclose(binding.value.args[1].value.numpy(), getattr(np, operator)(values), rtol=1e-6)


def test_a_module_without_constant_expressions_is_handed_on_as_it_is() -> None:
    b = Builder((1, 3, 6, 6))
    module = imported(b.model(b.add("Relu", ["image"], name="relu")))
    assert FoldRemainingConstants()(module).same_as(module)


@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
def test_networks_still_compute_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    assert_as_onnxruntime(whole(networks.NETWORKS[name](), tmp_path))
