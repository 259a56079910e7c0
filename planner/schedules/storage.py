"""Weights stored in fewer bytes than float32, and how a kernel reads them.

A kernel is handed the stored weights as they are and widens each where it multiplies: nothing is unpacked ahead of
time, so that what is saved in the artefact is saved in memory and in traffic too.  There are three forms:

- float16, and int8 with one scale an output: :attr:`Weight.values <planner.schedules.constants.Weight>` in that type;
- :class:`Groups`: whole numbers of 4 or 8 bits with a scale for each group of neighbouring inputs;
- everything else: float32.

Scales of groups: Dettmers and Zettlemoyer, "The case for 4-bit precision: k-bit Inference Scaling Laws" (ICML 2023),
section 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from planner.schedules.blocked import CHANNELS
from planner.schedules.scheduling import Kernel

UNPACK = "unpack_weights"
"""Name of the kernels that stand for stored weights until they are lowered into those that read them."""
UNPACKED = "unpacked"
UNPACK_ONCE = "unpack"
_FIGURES = re.compile(r"_axis(\d+)_block(\d+)_bits(\d+)_")
_HALF = 4
_LEAST, _MOST = -8, 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Whole numbers with a scale for each group of neighbours along an axis.

    Attributes:
        whole: int8; between -8 and 7 where ``bits`` is 4.
        scales: float32, of the same rank; along ``axis`` there is one for each group.
        axis: The axis that groups lie along, the inputs.
        block: Numbers in a group; the last group of an axis may have fewer.
        bits: 4 or 8.

    >>> Groups(whole=np.zeros((3, 8), np.int8), scales=np.ones((3, 2), np.float32), axis=1, block=4, bits=4).bits
    4
    """

    whole: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int
    block: int
    bits: int

    def __post_init__(self) -> None:
        """Refuse groups that do not cover the numbers, and numbers that do not fit their bits."""
        expected = list(self.whole.shape)
        expected[self.axis] = -(-expected[self.axis] // self.block)
        if list(self.scales.shape) != expected:
            raise ValueError(f"scales of shape {self.scales.shape}; groups of {self.block} need {tuple(expected)}")
        if self.bits not in {_HALF, 8}:
            raise ValueError(f"weights of {self.bits} bits; expected 4 or 8")
        if self.bits == _HALF and self.whole.size and (self.whole.min() < _LEAST or self.whole.max() > _MOST):
            raise ValueError("numbers of 4 bits lie between -8 and 7")

    def transposed(self, axes: Sequence[int]) -> Groups:
        """Permute the axes."""
        order = tuple(axes)
        return Groups(
            whole=self.whole.transpose(order),
            scales=self.scales.transpose(order),
            axis=order.index(self.axis),
            block=self.block,
            bits=self.bits,
        )

    def widened(self) -> NDArray[np.float32]:
        """Give the weights as float32."""
        spread = np.repeat(self.scales, self.block, axis=self.axis)
        within = tuple(slice(size) for size in self.whole.shape)
        return self.whole.astype(np.float32) * spread[within]

    def emit(self, builder: relax.BlockBuilder, name: str) -> relax.Var:
        """Bring the weights into a Relax function that is being built.

        Args:
            builder: What builds it.
            name: Name of the variable.

        Returns:
            A variable of their float32 values, from which :func:`recognised` gives them back.
        """
        numbers, scales = (relax.const(np.ascontiguousarray(array)) for array in (self.whole, self.scales))
        kernel = f"{UNPACK}_axis{self.axis}_block{self.block}_bits{self.bits}_"
        call = builder.call_te(unpack, numbers, scales, axis=self.axis, block=self.block, primfunc_name_hint=kernel)
        return builder.emit(call, name_hint=name)

    def packed(self, pack: Callable[[NDArray[Any]], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Lay the numbers and their scales out as a kernel reads them.

        Args:
            pack: What lays out float32 weights for that kernel, inputs along the last axis but one.

        Returns:
            The numbers, two a byte where they have 4 bits, and the scales.
        """
        numbers = pack(self.whole)
        return (pairs(numbers) if self.bits == _HALF else numbers), pack(self.scales)


def pairs(numbers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Put two numbers of 4 bits into each byte, neighbours along the last axis but one, the first in the low half.

    >>> pairs(np.array([[1], [-2], [3]], np.int8)).tolist()
    [[225], [3]]
    """
    if numbers.shape[-2] % 2:
        numbers = np.pad(numbers, [(0, 0)] * (numbers.ndim - 2) + [(0, 1), (0, 0)])
    low, high = numbers[..., 0::2, :], numbers[..., 1::2, :]
    return ((low & 15) | (high << _HALF)).astype(np.uint8)


def decode(packed: te.Tensor, index: Sequence[Any]) -> Any:
    """Give a stored number as a float32 expression, without its scale.

    Args:
        packed: float32, float16, int8, or uint8 from :func:`pairs`.
        index: Its place, counted in numbers and not in bytes.
    """
    kind = str(packed.dtype)
    if kind == "float32":
        return packed[tuple(index)]
    if kind != "uint8":
        return tirx.Cast("float32", packed[tuple(index)])
    *front, depth, lane = index
    both = tirx.Cast("int32", tirx.Cast("int8", packed[(*front, depth // 2, lane)]))
    half, sign = tirx.const(15, "int32"), tirx.const(8, "int32")
    # Chosen rather than shifted by the index: that would make the numbers as wide as indices are.
    number = tirx.Select(depth % 2 == 0, ((both & half) ^ sign) - sign, both >> tirx.const(_HALF, "int32"))
    return tirx.Cast("float32", number)


def unpacked(
    packed: te.Tensor, scale: te.Tensor, shape: Sequence[int], place: Callable[..., Sequence[Any]]
) -> te.Tensor:
    """Describe weights whose groups share scales as a stage of the kernel that reads them.

    Args:
        packed: The numbers.
        scale: Their scales.
        shape: Shape of the numbers when each is counted.
        place: Gives the index of a number's scale from its own.

    Returns:
        float32, for a schedule to inline or to keep for as long as it is read; see :func:`settle`.
    """
    return te.compute(tuple(shape), lambda *i: decode(packed, i) * scale[tuple(place(*i))], name=UNPACKED)


def settle(kernel: Kernel, parameters: Mapping[str, int], loop: Any) -> None:
    """Schedule the stage made by :func:`unpacked`, where a kernel has one.

    Args:
        kernel: The kernel.
        parameters: With ``unpack`` 1, weights are unpacked once in each turn of the loop, for all that is computed
            in it, and take room there; with 0, wherever they are read.
        loop: The loop over blocks of outputs.
    """
    if not kernel.has(UNPACKED):
        return
    sch, block = kernel.sch, kernel.block(UNPACKED)
    if not parameters[UNPACK_ONCE]:
        sch.compute_inline(block)
        return
    sch.compute_at(block, loop)
    *_, depth, lane = sch.get_loops(block)
    lanes = next((n for n in (CHANNELS, CHANNELS // 2) if kernel.extent(lane) % n == 0), 1)
    if kernel.extent(lane) > lanes:
        part, lane = sch.split(lane, [None, lanes])
        sch.unroll(part)
    if kernel.extent(depth) % 2 == 0:
        _, both = sch.split(depth, [None, 2])
        sch.unroll(both)
    sch.vectorize(lane)


def unpack(numbers: te.Tensor, scales: te.Tensor, *, axis: int, block: int) -> te.Tensor:
    """Describe the weights that groups of numbers stand for; what remains where no kernel reads them as stored."""

    def value(*index: Any) -> Any:
        group = tuple(i // block if place == axis else i for place, i in enumerate(index))
        return tirx.Cast("float32", numbers[index]) * scales[group]

    return te.compute(numbers.shape, value, name="unpack")


def recognised(call: Any) -> Groups | None:
    """Give the stored weights that :meth:`Groups.emit` brought in; None where a call is something else."""
    if getattr(call.op, "name", "") != "relax.call_tir" or not call.args[0].name_hint.startswith(UNPACK):
        return None
    found = _FIGURES.search(call.args[0].name_hint)
    if found is None:
        return None
    axis, block, bits = (int(figure) for figure in found.groups())
    whole, scales = (operand.value.numpy() for operand in call.args[1].fields)
    return Groups(whole=whole, scales=scales, axis=axis, block=block, bits=bits)
