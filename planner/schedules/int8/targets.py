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
    signed 16-bit pairs summed into 32 bits: exact for all bytes, as 255 * 128 * 2 = 65280 is far from 32 bits.  Maps
    are widened to 16 bits where they are padded anyway or right before, weights where they are read: widening both
    in the innermost step would take as long as multiplying.
``sdot`` (Arm dot product)
    signed by signed bytes into 32 bits: exact.  Maps are stored as signed bytes for such targets.
portable
    nothing but multiplication and addition of 32-bit integers.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    @property
    def dtype(self) -> str:
        """Type of the bytes that maps are stored as."""
        return "int8" if self.exact is Instruction.SDOT else "uint8"

    def instruction(self, *, fits: bool, paired: bool, signed: bool) -> Instruction:
        """Choose the instruction of a kernel: the fastest that is exact, the portable one if need be.

        Args:
            fits: Whether :func:`pairs_fit`.
            paired: Whether the kernel's input was widened and its weights packed for 16-bit pairs.
            signed: Whether the bytes of its input have a sign.
        """
        chosen = self.narrow if fits and not paired else self.exact
        suits = paired == (chosen is Instruction.PMADDWD) and signed == (chosen is Instruction.SDOT)
        return chosen if suits else Instruction.PORTABLE


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


def current() -> ByteUnit:
    """Give the unit of the target that code is being made for; outside of any, one that knows no instruction."""
    import tvm

    target = tvm.target.Target.current(allow_none=True)
    if target is None:
        return ByteUnit(exact=Instruction.PORTABLE, narrow=Instruction.PORTABLE, lanes=4, registers=16)
    return of_target(target)


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
        instruction: Which one, of those that multiply bytes.
        lanes: Accumulators, as many as one register holds.
        sums: ``int32`` of that many lanes.
        word: Four activations, an ``int32`` scalar.
        weights: ``int8``, four times as many lanes.

    Returns:
        The new accumulators.
    """
    bytes_type, sums_type = f"int8x{4 * lanes}", f"int32x{lanes}"
    every = tirx.Broadcast(word, lanes)
    if instruction is Instruction.SDOT:
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return tirx.call_llvm_pure_intrin(sums_type, name, sums, tirx.reinterpret(bytes_type, every), weights)
    if instruction is Instruction.VPDPBUSD:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return tirx.call_llvm_pure_intrin(
            sums_type, name, sums, _dot_operand(bytes_type, every), _dot_operand(bytes_type, weights)
        )
    ones = tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes)
    names = {4: "ssse3.pmadd.ub.sw.128", 8: "avx2.pmadd.ub.sw", 16: "avx512.pmaddubs.w.512"}
    pairs = tirx.call_llvm_pure_intrin(
        f"int16x{2 * lanes}", f"llvm.x86.{names[lanes]}", tirx.reinterpret(bytes_type, every), weights
    )
    return sums + _summed_pairs(lanes, pairs, ones)


def accumulate_pairs(lanes: int, sums: Any, activations: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Add to accumulators the products of two pairs of activations with two pairs of weights of each lane.

    Args:
        lanes: Accumulators, as many as one register holds.
        sums: ``int32`` of that many lanes.
        activations: The two pairs, each the same in all lanes, ``int16`` of twice as many lanes.
        weights: The two pairs of each lane, ``int16`` of twice as many lanes.

    Returns:
        The new accumulators.
    """
    one, other = (_summed_pairs(lanes, a, w) for a, w in zip(activations, weights, strict=True))
    return sums + one + other


def _summed_pairs(lanes: int, left: Any, right: Any) -> Any:
    """Multiply 16-bit lanes and add neighbours."""
    names = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", f"llvm.x86.{names[lanes]}", left, right)


def _dot_operand(bytes_type: str, value: Any) -> Any:
    """Give an operand of the dot product the type that the intrinsic has in the LLVM that is linked."""
    from tvm.target import codegen

    if codegen.llvm_version_major() >= 22:  # declared over bytes since then, over 32-bit words before
        return tirx.reinterpret(bytes_type, value)
    return tirx.reinterpret(f"int32x{int(bytes_type.split('x')[1]) // 4}", value)
