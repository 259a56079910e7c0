"""Weights stored in fewer bytes than float32, and how a kernel reads them.

A kernel is handed the stored weights as they are and widens each where it multiplies, or a block of them right before:
nothing is unpacked ahead of time, so that what is saved in the artefact is saved in memory and in traffic too.  There
are three forms:

- float16, and int8 with one scale an output: :attr:`Weight.values <planner.schedules.constants.Weight>` in that type;
- :class:`Codes`: codes of a few bits, for groups of neighbouring inputs times a multiplier or a scale;
- everything else: float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from planner.schedules.blocked import CHANNELS
from planner.schedules.codes import INPUTS, Decoder, Form, planes
from planner.schedules.scheduling import Kernel

UNPACK = "unpack_weights"
"""Name of the kernels that stand for stored weights until they are lowered into those that read them."""
UNPACKED = "unpacked"
UNPACK_ONCE = "unpack"
_FIGURES = re.compile(r"_axis(\d+)_block(\d+)_bits(\d+)_outputs(\d+)_of([a-z]*)_")
LANES = "lanes_of_a_plane"
DEEP = "numbers_that_share_words"
_HALF = 16
_LARGEST = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codes:
    """Weights as codes, with what they stand for.

    Attributes:
        codes: uint8, one for each weight.
        bits: Of a code: 1, 2, 3, 4 or 8.
        axis: The axis that inputs lie along.
        table: int8, what each code stands for; None where that is the code less half of what there are.
        figures: For each group of inputs along ``axis`` a whole multiplier, uint8, or a scale, float32; or None. Rows
            and columns of a filter may share them.
        block: Inputs in a group, of which the last may have fewer; 0 where there are none.
        scales: float32, a scale for each output, where numbers and multipliers are not all.
        outputs: The axis that those run along.

    >>> stored = Codes(codes=np.full((3, 8), 9, np.uint8), bits=4, axis=1)
    >>> stored.numbers()[0, 0], stored.form.half
    (np.int8(1), 8)
    """

    codes: NDArray[np.uint8]
    bits: int
    axis: int
    table: NDArray[np.int8] | None = None
    figures: NDArray[Any] | None = None
    block: int = 0
    scales: NDArray[np.float32] | None = None
    outputs: int = 0

    def __post_init__(self) -> None:
        """Refuse codes that do not fit their bits, and groups that do not cover them."""
        count = 1 << self.bits
        largest = int(self.codes.max(initial=0))
        if largest >= count:
            raise ValueError(f"a code of {largest}; codes of {self.bits} bits lie between 0 and {count - 1}")
        if self.table is not None and self.table.shape != (count,):
            raise ValueError(f"a table of shape {self.table.shape}; codes of {self.bits} bits need {count} entries")
        if self.figures is not None:
            expected, shape = list(self.codes.shape), self.figures.shape
            expected[self.axis] = -(-expected[self.axis] // self.block)
            taps = range(2, len(expected))
            if any(n != m and not (i in taps and n == 1) for i, (n, m) in enumerate(zip(shape, expected, strict=True))):
                raise ValueError(f"scales of shape {shape}; groups of {self.block} need {tuple(expected)}")
            if self.form.multiplied and int(self.figures.max(initial=0)) * (count - 1) > _LARGEST:
                raise ValueError(f"a multiplier of {int(self.figures.max())}; codes times it must fit 8 bits")
        if self.scales is not None and self.scales.shape != (self.codes.shape[self.outputs],):
            raise ValueError(f"{self.scales.shape} scales for {self.codes.shape[self.outputs]} outputs")

    @property
    def form(self) -> Form:
        """How a kernel has to read them."""
        kind = None if self.figures is None else self.figures.dtype
        return Form(
            bits=self.bits,
            table=self.table is not None,
            multiplied=kind == np.uint8,
            scaled=kind == np.float32,
            block=self.block,
        )

    @property
    def zero(self) -> int | None:
        """The code of 0; None where a table has no 0."""
        if self.table is None:
            return self.form.half
        found = np.flatnonzero(self.table == 0)
        return int(found[0]) if len(found) else None

    def transposed(self, axes: Sequence[int]) -> Codes:
        """Permute the axes."""
        order = tuple(axes)
        return Codes(
            codes=self.codes.transpose(order),
            bits=self.bits,
            axis=order.index(self.axis),
            table=self.table,
            figures=None if self.figures is None else self.figures.transpose(order),
            block=self.block,
            scales=self.scales,
            outputs=order.index(self.outputs),
        )

    def as_filters(self, shape: Sequence[int]) -> Codes | None:
        """Give a matrix, ``[output][input]``, as filters of the size of the map that was flattened to its inputs.

        Args:
            shape: ``[output][channel][row][column]``.

        Returns:
            The filters; None where groups of inputs are no groups of whole words of channels.
        """
        positions = int(shape[2] * shape[3])
        if self.block % (INPUTS * positions) and (self.figures is not None) and positions > 1:
            return None
        figures = None if self.figures is None else self.figures[:, :, None, None]
        return replace(self, codes=self.codes.reshape(shape), figures=figures, block=self.block // positions)

    def numbers(self) -> NDArray[np.int8]:
        """Give the numbers of 8 bits, multipliers included."""
        if self.table is not None:
            return self.table[self.codes]
        numbers = self.codes.astype(np.int16) - self.form.half
        if self.figures is not None and self.form.multiplied:
            numbers *= self._spread(self.figures)
        return numbers.astype(np.int8)

    def widened(self) -> NDArray[np.float32]:
        """Give the weights as float32."""
        values = self.numbers().astype(np.float32)
        if self.figures is not None and self.form.scaled:
            values *= self._spread(self.figures)
        if self.scales is not None:
            values *= self.scales.reshape([-1 if i == self.outputs else 1 for i in range(values.ndim)])
        return values

    def _spread(self, figures: NDArray[Any]) -> NDArray[Any]:
        full: NDArray[Any] = np.repeat(figures, self.block, axis=self.axis)
        return full[tuple(slice(size) for size in self.codes.shape)]

    def emit(self, builder: relax.BlockBuilder, name: str) -> relax.Var:
        """Bring the weights into a Relax function that is being built.

        Args:
            builder: What builds it.
            name: Name of the variable.

        Returns:
            A variable of their float32 values, from which :func:`recognised` gives them back.
        """
        parts = {"c": self.codes, "t": self.table, "f": self.figures, "s": self.scales}
        there = {key: np.ascontiguousarray(part) for key, part in parts.items() if part is not None}
        figures = f"axis{self.axis}_block{self.block}_bits{self.bits}_outputs{self.outputs}"
        kernel = f"{UNPACK}_{figures}_of{''.join(there)}_"

        def values(*operands: te.Tensor) -> te.Tensor:
            return unpack(dict(zip(there, operands, strict=True)), form=self.form, axis=self.axis, outputs=self.outputs)

        call = builder.call_te(values, *(relax.const(part) for part in there.values()), primfunc_name_hint=kernel)
        return builder.emit(call, name_hint=name)

    def packed(
        self,
        pack: Callable[[NDArray[Any]], NDArray[Any]],
        pack_figures: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        *,
        fill: int = 0,
    ) -> tuple[NDArray[Any], ...]:
        """Lay everything but the outputs' scales out as a kernel reads it.

        Args:
            pack: What lays out float32 weights for that kernel, inputs along the last axis but one.
            pack_figures: What lays out multipliers or scales, groups in place of inputs; ``pack`` where it is None.
            fill: The code where ``pack`` finds no weights.

        Returns:
            The planes of the codes, the table, and the multipliers or scales, as far as there are any.
        """
        laid = pack(self.codes ^ np.uint8(fill)) ^ np.uint8(fill)
        rest = [] if self.table is None else [self.table]
        figures = [] if self.figures is None else [(pack_figures or pack)(self.figures)]
        return (*planes(laid, self.form), *rest, *figures)


def decode(packed: te.Tensor, index: Sequence[Any]) -> Any:
    """Give a stored number as a float32 expression, without its scale.

    Args:
        packed: float32, float16 or int8.
        index: Its place.
    """
    read = packed[tuple(index)]
    return read if str(packed.dtype) == "float32" else tirx.Cast("float32", read)


class Reader(Protocol):
    """What reads stored numbers in a kernel."""

    @property
    def lanes_together(self) -> int:
        """Lanes whose codes lie side by side."""

    @property
    def deep(self) -> int:
        """Inputs whose codes share words."""

    def number(self, front: Sequence[Any], depth: Any, lane: Any) -> Any:
        """Give one number as a float32 expression."""


def unpacked(decoder: Reader, shape: Sequence[int]) -> te.Tensor:
    """Describe weights that are codes as a stage of the kernel that reads them.

    Args:
        decoder: What reads codes.
        shape: Shape of the numbers when each is counted.

    Returns:
        float32, for a schedule to inline or to keep for as long as it is read; see :func:`settle`.
    """
    notes = {LANES: decoder.lanes_together, DEEP: decoder.deep}
    return te.compute(tuple(shape), lambda *i: decoder.number(i[:-2], i[-2], i[-1]), name=UNPACKED, attrs=notes)


def unpacked_words(decoder: Decoder, shape: Sequence[int], *, paired: bool) -> te.Tensor:
    """Describe weights that are codes as a stage of the kernel of bytes that reads them.

    Args:
        decoder: What reads codes.
        shape: What is in front, words of inputs, lanes.
        paired: Whether bytes are multiplied as pairs of 16 bits: the first two of all lanes, then the other two.

    Returns:
        uint32 of ``shape``, or uint16 with twice as many lanes; for :func:`settle`.
    """
    *front, words, lanes = shape
    notes = {LANES: decoder.lanes_together, DEEP: decoder.form.chunk}
    if not paired:
        return te.compute(tuple(shape), lambda *i: decoder.word(i[:-2], i[-2], i[-1]), name=UNPACKED, attrs=notes)

    def half(*index: Any) -> Any:
        *before, word, lane = index
        shift = tirx.Cast("uint32", lane // lanes * _HALF)
        return tirx.Cast("uint16", decoder.word(before, word, lane % lanes) >> shift)

    return te.compute((*front, words, 2 * lanes), half, name=UNPACKED, attrs=notes)


def settle(kernel: Kernel, parameters: Mapping[str, int], loop: Any, inmost: Any = None) -> None:
    """Schedule the stage made by :func:`unpacked` or :func:`unpacked_words`, where a kernel has one.

    Args:
        kernel: The kernel.
        parameters: With ``unpack`` 1, weights are unpacked once in each turn of the loop, for all that is computed
            in it, and take room there; with 0, wherever they are read.
        loop: The loop over blocks of outputs.
        inmost: The loop within which weights are unpacked wherever they are read; None to write that there.
    """
    if not kernel.has(UNPACKED):
        return
    sch, block = kernel.sch, kernel.block(UNPACKED)
    if not parameters[UNPACK_ONCE] and inmost is None:
        sch.compute_inline(block)
        return
    outside = loop if parameters[UNPACK_ONCE] else inmost
    together, deep = (int(kernel.annotation(UNPACKED, key)) for key in (LANES, DEEP))
    sch.compute_at(block, outside, preserve_unit_loops=True)
    *_, depth, lane = sch.get_loops(block)
    lanes = next(n for n in range(min(CHANNELS, together), 0, -1) if kernel.extent(lane) % n == 0 == together % n)
    if kernel.extent(lane) > lanes:
        part, lane = sch.split(lane, [None, lanes])
        sch.unroll(part)
    several = kernel.divisor(depth, (deep, deep // 2, deep // 4, INPUTS))
    if several > 1:
        _, several = sch.split(depth, [None, several])
        sch.unroll(several)
    sch.vectorize(lane)


def unpack(parts: Mapping[str, te.Tensor], *, form: Form, axis: int, outputs: int) -> te.Tensor:
    """Describe the weights that codes stand for; what remains where no kernel reads them as stored."""
    codes = parts["c"]

    def value(*index: Any) -> Any:
        code = codes[index]
        if form.table:
            number = tirx.Cast("float32", parts["t"][code])
        else:
            number = tirx.Cast("float32", tirx.Cast("int32", code) - form.half)
        if form.block:
            group = tuple(i // form.block if place == axis else i for place, i in enumerate(index))
            number = number * tirx.Cast("float32", parts["f"][group])
        return number * parts["s"][index[outputs]] if "s" in parts else number

    return te.compute(codes.shape, value, name="unpack")


def recognised(call: Any) -> Codes | None:
    """Give the stored weights that :meth:`Codes.emit` brought in; None where a call is something else."""
    if getattr(call.op, "name", "") != "relax.call_tir" or not call.args[0].name_hint.startswith(UNPACK):
        return None
    found = _FIGURES.search(call.args[0].name_hint)
    if found is None:
        return None
    axis, block, bits, outputs = (int(figure) for figure in found.groups()[:4])
    operands = call.args[1].fields if isinstance(call.args[1], relax.Tuple) else [call.args[1]]
    parts = dict(zip(found[5], (operand.value.numpy() for operand in operands), strict=True))
    return Codes(
        codes=parts["c"],
        bits=bits,
        axis=axis,
        table=parts.get("t"),
        figures=parts.get("f"),
        block=block,
        scales=parts.get("s"),
        outputs=outputs,
    )
