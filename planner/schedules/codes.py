"""Weights as codes of few bits: how they lie in memory, and how four are decoded at once.

A code is a whole number of 1 to 4 bits, or of 8.  What it stands for is a number of 8 bits with a sign: an entry of a
table, or the code less half of what there are; times a whole multiplier that a group of neighbouring inputs shares,
where there is one.  So every form of storage ends in the same int8, which kernels of float32 widen and kernels
of bytes multiply as it is.

The four numbers of one output at four neighbouring inputs are the bytes of a word.  A word of codes is decoded by
arithmetic on whole words, its bytes side by side and never carrying into one another; and several words of codes lie in
the bits that one word has, so that a shift and a mask take one out.  The idea is that of Lin et al., "QServe: W4A8KV4
Quantization and System Co-design for Efficient LLM Serving" (2024), section 5.2.3; choosing table entries by the
bits of a code is added here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

INPUTS = 4
"""Inputs whose numbers are the bytes of one word."""
_BYTE = 8
_EACH = 0x01010101
"""1 in each byte."""
_SIGNS = 0x80808080
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
"""Widths of the planes that the bits of a code are kept in, the lowest bits first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Say how codes are to be read.

    Attributes:
        bits: Of a code: 1, 2, 3, 4 or 8.
        table: Whether codes count the entries of a table; else they stand for themselves less half of what there are.
        multiplied: Whether there is a whole multiplier for each group of inputs.
        scaled: Whether there is a float32 scale for each group of inputs.
        block: Inputs in a group; 0 where there are none.

    >>> Form(bits=3, table=False, multiplied=True, scaled=False, block=32).widths
    (2, 1)
    """

    bits: int
    table: bool = False
    multiplied: bool = False
    scaled: bool = False
    block: int = 0

    def __post_init__(self) -> None:
        """Refuse bits that no planes hold, and groups that words straddle."""
        if self.bits not in _PLANES:
            raise ValueError(f"codes of {self.bits} bits; expected 1, 2, 3, 4 or 8")
        if self.table and self.multiplied:
            raise ValueError("entries of a table have no multipliers")
        if (self.multiplied or self.scaled) != (self.block > 0):
            raise ValueError(f"groups of {self.block} inputs; expected some where there is one figure for each")
        if self.multiplied and self.block % INPUTS:
            raise ValueError(f"groups of {self.block} inputs with a multiplier; expected a multiple of {INPUTS}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of a code that each plane holds."""
        return _PLANES[self.bits]

    @property
    def chunk(self) -> int:
        """Words of codes that a whole number of words of each plane holds."""
        return _BYTE // min(self.widths)

    @property
    def half(self) -> int:
        """The code of 0 where there is no table."""
        return 1 << (self.bits - 1)

    def decoder(self, operands: Sequence[te.Tensor], shape: Sequence[int], group: int) -> Decoder:
        """Take the operands of a convolution, packed by :func:`blocked.pack_convolution`.

        Args:
            operands: As :meth:`Decoder.of` takes them.
            shape: Of the numbers: blocks of outputs, of inputs, rows, columns, inputs of a block, lanes.
            group: Inputs of a block.
        """
        return Decoder.of(self, operands, shape, figures_of_channels(self, operands, group))

    def parts(self, words: int, lanes: int) -> int:
        """Choose into how many parts lanes are cut, each with rows of its own, so that rows come in whole chunks."""
        fitting = (n for n in range(1, lanes + 1) if lanes % n == 0 and words * n % self.chunk == 0)
        return next(fitting, 1)


def planes(codes: NDArray[np.uint8], form: Form) -> tuple[NDArray[np.uint32], ...]:
    """Put codes into the bits of words.

    Args:
        codes: ``[...][input][lane]``.
        form: What they are.

    Returns:
        For each plane ``[...][row][lane]``; inputs and rows are filled up to whole words and chunks.

    >>> [hex(row[0]) for row in planes(np.arange(8, dtype=np.uint8).reshape(8, 1), Form(bits=4))[0]]
    ['0x73625140']
    """
    *front, inputs, lanes = codes.shape
    words = -(-inputs // INPUTS)
    codes = np.pad(codes, [(0, 0)] * len(front) + [(0, words * INPUTS - inputs), (0, 0)])
    parts, chunk = form.parts(words, lanes), form.chunk
    rows = -(-words * parts // chunk) * chunk
    split = np.moveaxis(codes.reshape(*front, words, INPUTS, parts, lanes // parts), -3, -1)
    flat = split.reshape(*front, words * parts, lanes // parts, INPUTS)
    flat = np.pad(flat, [(0, 0)] * len(front) + [(0, rows - words * parts), (0, 0), (0, 0)])
    found, low = [], 0
    for width in form.widths:
        each = _BYTE // width
        field = (flat >> low) & ((1 << width) - 1)
        field = field.reshape(*front, rows // chunk, each, chunk // each, lanes // parts, INPUTS)
        shifts = (width * np.arange(each)).reshape(each, 1, 1, 1)
        plane = np.bitwise_or.reduce(field << shifts, axis=-4).astype(np.uint8)
        plane = np.ascontiguousarray(plane.reshape(*front, rows // each, lanes // parts, INPUTS))
        found.append(plane.view("<u4")[..., 0].astype(np.uint32))
        low += width
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Reads codes in a kernel.

    Attributes:
        form: What they are.
        planes: Words of codes, from :func:`planes`.
        words: Words of inputs that each row of lanes has.
        lanes: Lanes.
        table: The table's entries as int8, where there is one.
        figures: Multipliers or scales, where there are any.
        place: Gives the index of a figure from a number's own: what is in front, the input, the lane.
    """

    form: Form
    planes: Sequence[te.Tensor]
    words: int
    lanes: int
    table: te.Tensor | None = None
    figures: te.Tensor | None = None
    place: Callable[..., Sequence[Any]] | None = None

    @classmethod
    def of(
        cls,
        form: Form,
        operands: Sequence[te.Tensor],
        shape: Sequence[int],
        place: Callable[..., Sequence[Any]] | None = None,
    ) -> Decoder:
        """Take the operands that a kernel was handed, in the order of :meth:`Codes.packed`.

        Args:
            form: What the codes are.
            operands: The tensors.
            shape: Of the numbers, each counted: what is in front, inputs, lanes.
            place: Gives the index of a figure.
        """
        *_, inputs, lanes = shape
        count = len(form.widths)
        rest = list(operands[count:])
        table = rest.pop(0) if form.table else None
        figures = rest.pop(0) if form.multiplied or form.scaled else None
        return cls(
            form=form,
            planes=tuple(operands[:count]),
            words=-(-int(inputs) // INPUTS),
            lanes=int(lanes),
            table=table,
            figures=figures,
            place=place,
        )

    @property
    def deep(self) -> int:
        """Inputs whose codes share words."""
        return self.form.chunk * INPUTS

    @property
    def lanes_together(self) -> int:
        """Lanes whose codes lie side by side."""
        return self.lanes // self.form.parts(self.words, self.lanes)

    def word(self, front: Sequence[Any], word: Any, lane: Any) -> Any:
        """Give four numbers as the bytes of a ``uint32`` expression, the first in the lowest."""
        code = self._code(front, word, lane)
        if self.table is not None:
            return _chosen(self.table, code, self.form.bits)
        half = self.form.half
        if not self.form.multiplied or self.figures is None or self.place is None:
            return (code + _word(128 - half)) ^ _const(_SIGNS)
        figure = tirx.Cast("uint32", self.figures[tuple(self.place(*front, word * INPUTS, lane))])
        # Each byte is code * figure + (128 - half * figure), which lies between 0 and 255.
        return (code * figure + (_const(_SIGNS) - figure * _word(half))) ^ _const(_SIGNS)

    def number(self, front: Sequence[Any], depth: Any, lane: Any) -> Any:
        """Give one number as a float32 expression, with its group's scale but without its output's."""
        # Shifted as unsigned: TVM makes signed numbers that an index has a part in as wide as indices are.
        below = tirx.Cast("uint32", (INPUTS - 1 - depth % INPUTS) * _BYTE)
        top = tirx.Cast("int32", self.word(front, depth // INPUTS, lane) << below)
        number = tirx.Cast("float32", top >> tirx.const((INPUTS - 1) * _BYTE, "int32"))
        if not self.form.scaled or self.figures is None or self.place is None:
            return number
        return number * self.figures[tuple(self.place(*front, depth, lane))]

    def code(self, front: Sequence[Any], depth: Any, lane: Any) -> Any:
        """Give one code as a ``uint32`` expression."""
        shift = tirx.Cast("uint32", depth % INPUTS * _BYTE)
        return (self._code(front, depth // INPUTS, lane) >> shift) & _const((1 << self.form.bits) - 1)

    def _code(self, front: Sequence[Any], word: Any, lane: Any) -> Any:
        """Give four codes as the bytes of a word."""
        parts, chunk = self.form.parts(self.words, self.lanes), self.form.chunk
        width_of_part = self.lanes // parts
        row = word if parts == 1 else word * parts + lane // width_of_part
        place = lane if parts == 1 else lane % width_of_part
        code, low = None, 0
        for plane, width in zip(self.planes, self.form.widths, strict=True):
            if width == _BYTE:
                return plane[(*front, row, place)]
            rows = chunk * width // _BYTE
            within = row % chunk
            read = plane[(*front, row // chunk * rows + within % rows, place)]
            shift = tirx.Cast("uint32", within // rows * width)
            field = (read >> shift) & _word((1 << width) - 1)
            code = field if code is None else code | (field << _const(low))
            low += width
        return code


def _chosen(table: te.Tensor, code: Any, bits: int) -> Any:
    """Choose a table's entries by the bits of codes, four at a time."""
    found = [tirx.Cast("uint32", tirx.Cast("uint8", table[n])) * _const(_EACH) for n in range(1 << bits)]
    for bit in range(bits):
        mask = ((code >> _const(bit)) & _const(_EACH)) * _const(255)
        found = [low ^ ((low ^ high) & mask) for low, high in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def figures_of_channels(form: Form, operands: Sequence[te.Tensor], group: int) -> Callable[..., Sequence[Any]]:
    """Give what places the figures of a convolution, packed by :func:`blocked.pack_convolution`.

    Args:
        form: What the codes are.
        operands: As :meth:`Decoder.of` takes them.
        group: Input channels that lie together in the packed weights.
    """
    _, _, rows, columns, many, _ = (int(n) for n in operands[-1].shape) if form.block else [1] * 6

    def place(o: Any, outer: Any, row: Any, column: Any, inner: Any, b: Any) -> tuple[Any, ...]:
        number = (outer * group + inner) // form.block
        return o, number // many, row if rows > 1 else 0, column if columns > 1 else 0, number % many, b

    return place


def _const(value: int) -> Any:
    return tirx.const(value, "uint32")


def _word(byte: int) -> Any:
    """Give a constant with the same number in each byte."""
    return _const(byte * _EACH)
