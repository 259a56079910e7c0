from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from entries import HASWELL, OLD, compiled, raw
from hypothesis import given, settings
from hypothesis import strategies as st
from integers import Quantiser, assert_as_the_reference, reference
from networks import Builder

from planner.compiler import compile_networks, host_target
from planner.schedules.int8 import targets as int8_targets
from planner.schedules.int8.targets import Instruction

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from planner.segments import Entry

ANCIENT = {"kind": "llvm", "mcpu": "x86-64", "num-cores": 1}
"""No byte shuffles: the portable products."""


CONVOLUTIONS = {
    "pointwise": ((32, 7, 7), (48, 32, 1, 1), {}),
    "pointwise of odd channels": ((20, 5, 9), (21, 20, 1, 1), {}),
    "pointwise with a stride": ((16, 9, 8), (16, 16, 1, 1), {"strides": [2, 2]}),
    "3x3 of three planes": ((3, 12, 10), (16, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3 of one plane": ((1, 9, 9), (20, 1, 3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3 with a stride": ((24, 11, 11), (40, 24, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "7x7 with a stride": ((3, 21, 21), (20, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "5x5 padded on two sides": ((8, 10, 10), (16, 8, 5, 5), {"pads": [0, 3, 1, 0]}),
    "dilated": ((16, 13, 12), (16, 16, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "a filter of the whole map": ((16, 4, 4), (5, 16, 4, 4), {}),
    "one pixel": ((64, 1, 1), (80, 64, 1, 1), {}),
    "depthwise": ((32, 9, 9), (32, 1, 3, 3), {"group": 32, "pads": [1, 1, 1, 1]}),
    "depthwise of odd channels": ((21, 9, 8), (21, 1, 3, 3), {"group": 21, "strides": [2, 2]}),
}


def convolution(
    shape: tuple[int, int, int],
    filters: tuple[int, int, int, int],
    *,
    kind: type = np.uint8,
    clip: float | None = None,
    per_channel: bool = True,
    limit: int = 127,
    **attributes: Any,
) -> onnx.ModelProto:
    b = Builder((1, *shape))
    q = Quantiser(b, kind)
    zero = 3 if kind is np.int8 else 121
    x = "image"
    if clip is not None:
        x = b.add("Clip", [x, b.constant(np.float32(0), "low"), b.constant(np.float32(clip), "high")], name="clip")
        zero = 0
    x = q.point(x, "in", 0.02, zero)
    w = q.weights(filters, "w", scale=0.01, per_channel=per_channel, limit=limit)
    x = b.add("Conv", [x, w, q.bias(w, filters[0], "b", scale=0.02)], name="conv", **attributes)
    return b.model(q.point(x, "out", 0.002 * np.sqrt(np.prod(filters[1:])) * 4, zero + 5))


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_of_bytes_equals_its_integer_reference(case: str) -> None:
    assert_a_kernel_of_bytes(case, None)


@pytest.mark.parametrize("case", ["pointwise of odd channels", "7x7 with a stride", "3x3 with a stride", "depthwise"])
@pytest.mark.parametrize("target", [HASWELL, OLD, ANCIENT], ids=["avx2", "sse", "portable"])
def test_a_convolution_of_bytes_gives_the_same_bits_on_every_target(case: str, target: dict) -> None:
    assert_a_kernel_of_bytes(case, target)


def assert_a_kernel_of_bytes(case: str, target: dict | None) -> None:
    shape, filters, attributes = CONVOLUTIONS[case]
    schedules = assert_as_the_reference(raw(convolution(shape, filters, **attributes)), target).schedules
    kinds = {text.split()[0] for text in schedules.values()}
    assert kinds & {"int8_convolution", "depthwise"}
    assert not kinds & {"convolution", "dense"}


@pytest.mark.parametrize("kind", [np.uint8, np.int8], ids=["unsigned", "signed"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["a scale a filter", "one scale"])
def test_activations_may_be_signed_and_weights_share_a_scale(kind: type, *, per_channel: bool) -> None:
    model = convolution((20, 6, 6), (24, 20, 3, 3), kind=kind, per_channel=per_channel, pads=[1, 1, 1, 1])
    found = assert_as_the_reference(raw(model))
    assert any(text.startswith("int8_convolution") for text in found.schedules.values())


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kind=st.sampled_from([np.uint8, np.int8]),
    avx2=st.booleans(),
)
def test_any_convolution_of_bytes_equals_its_reference(
    inputs, outputs, kernel, strides, pads, size, kind, avx2
) -> None:
    model = convolution((inputs, *size), (outputs, inputs, *kernel), kind=kind, strides=list(strides), pads=list(pads))
    assert_as_the_reference(raw(model), HASWELL if avx2 else None)


def instruction(schedules: Mapping[str, str]) -> int:
    (text,) = (text for text in schedules.values() if text.startswith("int8_convolution"))
    return int(text.split("instruction=")[1].split()[0])


@pytest.mark.parametrize(
    ("clip", "limit", "expected"),
    [(None, 127, 1), (127 * 0.02, 127, 2), (None, 64, 2), (None, 66, 1), (140 * 0.02, 127, 1)],
    ids=["8 bits by 8", "7-bit activations", "7-bit weights", "just too wide weights", "just too wide activations"],
)
def test_sums_of_two_bytes_are_taken_in_16_bits_only_where_they_fit(
    clip: float | None, limit: int, expected: int
) -> None:
    model = convolution((32, 6, 6), (32, 32, 3, 3), clip=clip, limit=limit)
    schedules = assert_as_the_reference(raw(model), HASWELL).schedules
    assert instruction(schedules) == expected


def test_the_widest_bytes_do_not_saturate_where_16_bits_are_said_to_hold_them() -> None:
    b = Builder((1, 16, 2, 2))
    q = Quantiser(b)
    x = b.add("Clip", ["image", b.constant(np.float32(0), "low"), b.constant(np.float32(127), "high")], name="clip")
    x = q.point(x, "in", 1.0, 0)
    stored = [
        np.where(np.arange(16) < 8, 127, -128).astype(np.int8)[:, None, None, None] * np.ones((16, 16, 1, 1), np.int8)
    ]
    names = [
        b.constant(stored[0].astype(np.int8), "w.q"),
        b.constant(np.ones(16, np.float32), "w.s"),
        b.constant(np.zeros(16, np.int8), "w.z"),
    ]
    w = b.add("DequantizeLinear", names, name="w", axis=0)
    x = b.add("Conv", [x, w], name="conv")
    entry = raw(b.model(q.point(x, "out", 4096.0, 128)))
    image = np.full((1, 16, 2, 2), 1000, np.float32)
    found, artefact = compiled(entry, HASWELL)
    assert instruction(found.schedules) == 2
    np.testing.assert_array_equal(artefact.run("net", image).reshape(-1), reference(entry.model, image))


MNEMONICS = {
    "avx512 vnni": ({"mcpu": "icelake-server"}, "vpdpbusd"),
    "avx vnni": ({"mcpu": "alderlake"}, "vpdpbusd"),
    "avx512": ({"mcpu": "skylake-avx512"}, "vpmaddwd"),
    "avx2": ({"mcpu": "haswell"}, "vpmaddwd"),
    "sse": ({"mcpu": "x86-64-v2"}, "pmaddwd"),
    "arm": ({"mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-n1"}, "sdot"),
}


def assembly(entry: Entry, target: dict[str, Any]) -> str:
    found = compile_networks([entry], {"kind": "llvm", "num-cores": 1, **target})
    return "".join(m.inspect_source("asm") for m in found.executable.mod.imports if m.kind == "llvm")


@pytest.mark.parametrize("name", MNEMONICS)
def test_each_target_multiplies_bytes_by_its_own_instruction(name: str) -> None:
    target, mnemonic = MNEMONICS[name]
    lines = assembly(raw(convolution((32, 6, 6), (32, 32, 3, 3))), target).splitlines()
    used = [word for line in lines for word in line.split()[:2]]  # some stand behind the name of their encoding
    assert used.count(mnemonic) >= 8
    assert {m for _, m in MNEMONICS.values()} & set(used) == {mnemonic}


def test_narrow_bytes_take_the_faster_instruction_of_old_targets() -> None:
    model = raw(convolution((32, 6, 6), (32, 32, 3, 3), clip=127 * 0.02))
    assert "vpmaddubsw" in assembly(model, {"mcpu": "haswell"})
    assert "vpmaddubsw" not in assembly(raw(convolution((32, 6, 6), (32, 32, 3, 3))), {"mcpu": "haswell"})


def test_a_target_without_a_product_of_bytes_still_gets_code() -> None:
    text = assembly(
        raw(convolution((16, 6, 6), (16, 16, 3, 3))), {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a53"}
    )
    assert "sdot" not in text
    assert len(text) > 1000


def test_weights_and_activations_take_a_byte_each() -> None:
    entry = raw(convolution((64, 8, 8), (64, 64, 3, 3), pads=[1, 1, 1, 1]))
    found, artefact = compiled(entry)
    trace = artefact.trace("net", np.zeros((1, 64, 8, 8), np.float32))
    assert trace.weight_bytes == 64 * 64 * 9 + 64 * (4 + 4)  # offsets and multipliers
    bytes_, padded, real = 64 * 64, 64 * 100, 64 * 64 * 4
    assert sum(found.plans["net"]) <= bytes_ + padded + 2 * real


def test_maps_of_signed_bytes_hold_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    # Targets that multiply signed bytes alone store maps so; the numbers can be computed anywhere.
    arm = int8_targets.ByteUnit(exact=Instruction.SDOT, narrow=Instruction.SDOT, lanes=4, registers=32)
    monkeypatch.setattr(int8_targets, "current", lambda: arm)
    for shape, filters in (((20, 6, 6), (24, 20, 3, 3)), ((3, 9, 9), (16, 3, 3, 3))):
        found = assert_as_the_reference(raw(convolution(shape, filters, pads=[1, 1, 1, 1])))
        assert instruction(found.schedules) == Instruction.PORTABLE


@pytest.mark.parametrize("wrong", [Instruction.PMADDUBSW, Instruction.VPDPBUSD, Instruction.SDOT], ids=str)
def test_an_instruction_that_would_be_inexact_is_refused(wrong: Instruction) -> None:
    entry = raw(convolution((32, 6, 6), (32, 32, 3, 3)))
    found, _ = compiled(entry, HASWELL)
    chosen = {
        name: text.replace("instruction=1", f"instruction={int(wrong)}") for name, text in found.schedules.items()
    }
    with pytest.raises(ValueError, match="not exact"):
        compile_networks([entry], HASWELL, chosen=chosen)


def test_kernels_of_bytes_are_spread_over_threads() -> None:
    for shape in ((32, 8, 8), (32, 13, 13)):  # tiles that are all alike, and tiles that end in a smaller one
        entry = raw(convolution(shape, (64, 32, 3, 3), pads=[1, 1, 1, 1]))
        assert_as_the_reference(entry, host_target(threads=2))
        text = assembly(entry, HASWELL | {"num-cores": 2})
        assert "TVMBackendParallelLaunch" in text
