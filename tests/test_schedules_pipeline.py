"""The backend on modules that no part of this project made: Relax built by hand, whatever is in it."""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from entries import HASWELL
from tvm import relax

from planner import schedules
from planner.compiler import host_target

RNG = np.random.default_rng(0)
WEIGHTS = {
    "conv": RNG.normal(size=(24, 3, 3, 3)).astype(np.float32),
    "fc": RNG.normal(0, 0.1, (2400, 10)).astype(np.float32),
}


def by_hand(batch: int) -> tvm.IRModule:
    """A convolution, a pooling, an operator that no family knows, and a matrix product; names as Relax gives them."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((batch, 3, 20, 20), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(x, relax.const(WEIGHTS["conv"]), padding=1))
            y = builder.emit(relax.op.nn.relu(y))
            y = builder.emit(relax.op.nn.max_pool2d(y, (2, 2), (2, 2)))
            y = builder.emit(relax.op.flip(y, axis=3))
            y = builder.emit(relax.op.reshape(y, (batch, 2400)))
            y = builder.emit(relax.op.matmul(y, relax.const(WEIGHTS["fc"])))
            result = builder.emit_output(y)
        builder.emit_func_output(result)
    return builder.get()


def ran(module: tvm.IRModule, target: tvm.target.Target, image: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(image)).numpy()


def test_a_module_built_by_hand_computes_what_tvm_alone_makes_of_it() -> None:
    image = RNG.normal(size=(2, 3, 20, 20)).astype(np.float32)
    for target in (tvm.target.Target(host_target()), tvm.target.Target(HASWELL)):
        with target:
            ours = schedules.pipeline(target)(schedules.prepare()(by_hand(2)))
        expected = ran(by_hand(2), target, image)
        np.testing.assert_allclose(ran(ours, target, image), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_kernels_of_a_module_built_by_hand_are_of_our_families() -> None:
    target = tvm.target.Target(HASWELL)
    with target:
        module = schedules.pipeline(target)(schedules.prepare()(by_hand(1)))
    assert {"convolution", "pooling", "dense"} <= {text.split()[0] for text in schedules.describe(module).values()}


def test_the_given_module_is_left_as_it_was() -> None:
    target = tvm.target.Target(HASWELL)
    module = by_hand(1)
    before = tvm_ffi.structural_hash(module)
    with target:
        schedules.pipeline(target)(schedules.prepare()(module))
    assert tvm_ffi.structural_hash(module) == before
