"""Dot products of bytes: which instruction a target has for them, and when it is exact.

Every kernel of this package that multiplies bytes does the same step: to 32-bit accumulators, one an output
channel, it adds the dot product of four activations (one 32-bit word, the same for all channels) with four
weights of that channel.  What differs is the instruction:

``vpdpbusd`` (AVX-512 VNNI, AVX-VNNI)
    unsigned by signed bytes, summed into 32 bits without any intermediate saturation: exact.
``pmaddubsw`` then ``pmaddwd`` by one (SSSE3, AVX2, AVX-512BW)
    unsigned by signed bytes, pairs summed into 16 bits *with saturation*, pairs of those into 32 bits.  Exact only
    where no pair can leave 16 bits, which :func:`pairs_fit` proves from the weights themselves: a pair is
    ``x0 * w0 + x1 * w1`` with ``0 <= x <= greatest``, so it lies between ``greatest * (min(w0, 0) + min(w1, 0))``
    and ``greatest * (max(w0, 0) + max(w1, 0))``.  With 7-bit activations (``greatest`` = 127) any weights fit, as
    127 * 127 * 2 = 32258 < 32767 (and -128 * 127 * 2 = -32512 > -32768); with 8-bit activations those do whose
    neighbours sum to at most 128, for instance all 7-bit weights.
``pmaddwd`` (SSE2, AVX2, AVX-512BW)
    signed 16-bit pairs summed into 32 bits, after bytes were widened: exact for all bytes, as
    255 * 128 * 2 = 65280 is far from 32 bits.
``sdot`` (Arm dot product)
    signed by signed bytes into 32 bits: exact.  Maps are stored as signed bytes for such targets.
portable
    nothing but multiplication and addition of 32-bit integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

CHANNELS = 4
"""Bytes in a word: input channels that one step of a dot product takes."""


class Instruction(IntEnum):
    """Instruction that multiplies bytes; the number is what a schedule's parameters hold."""

    PORTABLE = 0
    PMADDWD = 1
    PMADDUBSW = 2
    VPDPBUSD = 3
    SDOT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteUnit:
    """What a target multiplies bytes with.

    Attributes:
        exact: The instruction for any bytes.
        narrow: The instruction where no pair of products can leave 16 bits.
        lanes: 32-bit accumulators in one register.
        registers: Vector registers.
    """

    exact: Instruction
    narrow: Instruction
    lanes: int
    registers: int

    def instruction(self, *, fits: bool) -> Instruction:
        """Choose the instruction, given whether :func:`pairs_fit`."""
        return self.narrow if fits else self.exact


def of_target(target: Any) -> ByteUnit:
    """Read off a ``tvm.target.Target`` what it multiplies bytes with, asking LLVM's table of CPU features."""
    from tvm.target import codegen

    def has(*features: str) -> bool:
        with target:
            return all(codegen.llvm_cpu_has_features(feature, target) for feature in features)

    dot, wide, narrow = Instruction.VPDPBUSD, Instruction.PMADDWD, Instruction.PMADDUBSW
    if has("avx512vnni", "avx512bw"):
        return ByteUnit(exact=dot, narrow=dot, lanes=16, registers=32)
    if has("avx512bw"):
        return ByteUnit(exact=wide, narrow=narrow, lanes=16, registers=32)
    if has("avxvnni"):
        return ByteUnit(exact=dot, narrow=dot, lanes=8, registers=16)
    if has("avx2"):
        return ByteUnit(exact=wide, narrow=narrow, lanes=8, registers=16)
    if has("ssse3"):
        return ByteUnit(exact=wide, narrow=narrow, lanes=4, registers=16)
    if has("dotprod"):
        return ByteUnit(exact=Instruction.SDOT, narrow=Instruction.SDOT, lanes=4, registers=32)
    return ByteUnit(exact=Instruction.PORTABLE, narrow=Instruction.PORTABLE, lanes=4, registers=16)


def stored_as(target: Any | None) -> str:
    """Say whether a target's maps are of unsigned or signed bytes; without a target they are unsigned."""
    return "int8" if target is not None and of_target(target).exact is Instruction.SDOT else "uint8"


def pairs_fit(packed: NDArray[np.int8], greatest: int) -> bool:
    """Tell whether no sum of two neighbouring products can leave 16 signed bits.

    Args:
        packed: Weights, neighbours along the last axis (of even length) being summed.
        greatest: The largest activation there can be; the least is 0.

    >>> pairs_fit(np.array([127, 127], np.int8), 127), pairs_fit(np.array([127, 127], np.int8), 255)
    (True, False)
    """
    pairs = packed.reshape(-1, 2).astype(np.int32)
    most = int(np.maximum(pairs, 0).sum(axis=1).max(initial=0)) * greatest
    least = int(np.minimum(pairs, 0).sum(axis=1).min(initial=0)) * greatest
    return most <= np.iinfo(np.int16).max and least >= np.iinfo(np.int16).min


def accumulate(instruction: Instruction, lanes: int, sums: Any, word: Any, weights: Any) -> Any:
    """Add to accumulators the dot products of four activations with four weights of each lane.

    Args:
        instruction: Which one; not the portable one.
        lanes: Accumulators, as many as one register holds.
        sums: ``int32`` of that many lanes.
        word: Four activations, an ``int32`` scalar.
        weights: ``int8``, four times as many lanes.

    Returns:
        The new accumulators.
    """
    bytes_type, pairs_type, sums_type = f"int8x{4 * lanes}", f"int16x{2 * lanes}", f"int32x{lanes}"
    every = tirx.Broadcast(word, lanes)
    if instruction is Instruction.SDOT:
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return tirx.call_llvm_pure_intrin(sums_type, name, sums, tirx.reinterpret(bytes_type, every), weights)
    if instruction is Instruction.VPDPBUSD:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return tirx.call_llvm_pure_intrin(
            sums_type, name, sums, _dot_operand(bytes_type, every), _dot_operand(bytes_type, weights)
        )
    widths = {4: ("sse2.pmadd.wd", "ssse3.pmadd.ub.sw.128"), 8: ("avx2.pmadd.wd", "avx2.pmadd.ub.sw")}
    add_words, add_bytes = widths.get(lanes, ("avx512.pmaddw.d.512", "avx512.pmaddubs.w.512"))

    def pairs(left: Any, right: Any) -> Any:
        return tirx.call_llvm_pure_intrin(sums_type, f"llvm.x86.{add_words}", left, right)

    if instruction is Instruction.PMADDUBSW:
        sixteen = tirx.call_llvm_pure_intrin(
            pairs_type, f"llvm.x86.{add_bytes}", tirx.reinterpret(bytes_type, every), weights
        )
        return sums + pairs(sixteen, tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes))
    # The bytes of even and of odd place, widened: activations without a sign, weights with theirs.
    eight = tirx.Broadcast(tirx.const(8, "int16"), 2 * lanes)
    mask = tirx.Broadcast(tirx.const(0x00FF, "int32") | tirx.const(0x00FF0000, "int32"), lanes)
    low = tirx.reinterpret(pairs_type, every & mask)
    high = tirx.reinterpret(
        pairs_type,
        tirx.reinterpret(f"uint16x{2 * lanes}", every) >> tirx.Broadcast(tirx.const(8, "uint16"), 2 * lanes),
    )
    both = tirx.reinterpret(pairs_type, weights)
    return sums + (pairs(low, (both << eight) >> eight) + pairs(high, both >> eight))


def _dot_operand(bytes_type: str, value: Any) -> Any:
    """Give an operand of the dot product the type that the intrinsic has in the LLVM that is linked."""
    from tvm.target import codegen

    if codegen.llvm_version_major() >= 22:  # declared over bytes since then, over 32-bit words before
        return tirx.reinterpret(bytes_type, value)
    return tirx.reinterpret(f"int32x{int(bytes_type.split('x')[1]) // 4}", value)
