"""Filters that are few powers of two times a basis: how they lie in memory, and how a kernel reads them.

A number is the sum, over the coefficients that its filter has in its row for its input, of a power of two times an
entry of the filter's basis.  Which coefficients those are is told by codes of 2 bits, compared rather than searched.
Zhao et al., "SmartExchange: Trading Higher-cost Memory Storage/Access for Lower-cost Computation" (ISCA 2020).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from planner.schedules.blocked import CHANNELS, pack_depthwise
from planner.schedules.codes import INPUTS, Decoder, Form, planes

UNPACK_POWERS = "unpack_powers"
"""Name of the kernels that stand for such filters until they are lowered into those that read them."""
_KEPT = re.compile(r"_kept(\d+)_")
_CODES, _PLACES = Form(bits=4), Form(bits=2)
_EXPONENT, _SIGN, _SIZES = 7, 8, 127
_TOGETHER = 8
"""Inputs whose numbers are written one after the other, without a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowersForm:
    """Say how such filters are to be read: how many of each four inputs have coefficients in a row."""

    kept: int

    def decoder(self, operands: Sequence[te.Tensor], shape: Sequence[int], group: int) -> PowersDecoder:
        """Take the operands that a kernel was handed, in the order of :meth:`PowerFilters.packed`.

        Args:
            operands: The tensors.
            shape: Of the numbers: blocks of outputs, of inputs, rows, columns, inputs of a block, lanes.
            group: Inputs of a block.
        """
        _, blocks, _, _, _, lanes = shape
        slots = int(blocks) * group * self.kept // INPUTS
        together = CHANNELS if slots % CHANNELS == 0 else slots
        codes, places, basis = operands
        words = -(-together // INPUTS)
        return PowersDecoder(
            kept=self.kept,
            group=group,
            together=together,
            codes=Decoder(form=_CODES, planes=(codes,), words=words, lanes=int(lanes)),
            places=Decoder(form=_PLACES, planes=(places,), words=words, lanes=int(lanes)),
            basis=basis,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PowersDecoder:
    """Reads such filters in a kernel.

    Attributes:
        kept: Of each four inputs, how many have coefficients in a row.
        group: Inputs of a block.
        together: Slots of coefficients of a block.
        codes: Reads coefficients.
        places: Reads which input a slot belongs to.
        basis: int8 ``[block of outputs][column of the basis][column][lane]``.
    """

    kept: int
    group: int
    together: int
    codes: Decoder
    places: Decoder
    basis: te.Tensor

    @property
    def lanes_together(self) -> int:
        """Lanes whose codes lie side by side."""
        return min(self.codes.lanes_together, self.places.lanes_together)

    @property
    def deep(self) -> int:
        """Inputs that are better read one after the other."""
        return _TOGETHER

    def number(self, front: Sequence[Any], depth: Any, lane: Any) -> Any:
        """Give one number as a float32 expression, without its output's scale."""
        block, outer, row, column = front
        channel = outer * self.group + depth
        here = tirx.Cast("uint32", depth % INPUTS)
        total: Any = None
        for place in range(self.kept):
            slot = channel // INPUTS * self.kept + place
            within, at = slot // self.together, slot % self.together
            belongs = self.places.code((block, within, row, 0), at, lane) == here
            found = self._joined((block, within, row), at, lane, column)
            found = tirx.Select(belongs, found, tirx.const(0.0, "float32"))
            total = found if total is None else total + found
        return total

    def _joined(self, front: Sequence[Any], slot: Any, lane: Any, column: Any) -> Any:
        """Multiply the coefficients of a slot by a column of the basis."""
        total: Any = None
        for number in range(int(self.basis.shape[1])):
            code = self.codes.code((*front, number), slot, lane)
            size = (tirx.const(1, "uint32") << (code & tirx.const(_EXPONENT, "uint32"))) & tirx.const(_SIZES, "uint32")
            power = tirx.Cast("float32", tirx.Cast("int32", size))
            negative = (code & tirx.const(_SIGN, "uint32")) == tirx.const(_SIGN, "uint32")
            power = tirx.Select(negative, tirx.const(0.0, "float32") - power, power)
            term = power * tirx.Cast("float32", self.basis[front[0], number, column, lane])
            total = term if total is None else total + term
        return total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerFilters:
    """Filters of a convolution, and what they stand for.

    Attributes:
        codes: uint8 ``[output][slot][row][column of the basis]``: 8 for a minus, and an exponent, 7 for none.
        places: uint8 ``[output][slot][row][1]``.
        basis: int8 ``[output][column of the basis][column]``.
        scales: float32 ``[output]``.
        kept: Slots of each four inputs.
        numbers: float32, the filters in units of the scales.
    """

    codes: NDArray[np.uint8]
    places: NDArray[np.uint8]
    basis: NDArray[np.int8]
    scales: NDArray[np.float32]
    kept: int
    numbers: NDArray[np.float32]

    @property
    def block(self) -> int:
        """Inputs in a group with a figure of its own: there are none."""
        return 0

    @property
    def axis(self) -> int:
        """The axis that inputs lie along."""
        return 1

    @property
    def form(self) -> PowersForm:
        """How a kernel has to read them."""
        return PowersForm(kept=self.kept)

    def transposed(self, axes: Sequence[int]) -> None:
        """Give nothing: no kernel reads such filters but as they are."""

    def emit(self, builder: relax.BlockBuilder, name: str) -> relax.Var:
        """Bring the filters into a Relax function, as :meth:`storage.Codes.emit` does."""
        parts = (self.codes, self.places, self.basis, self.scales, self.numbers)
        operands = [relax.const(np.ascontiguousarray(part)) for part in parts]
        hint = f"{UNPACK_POWERS}_kept{self.kept}_"
        return builder.emit(builder.call_te(_scaled, *operands, primfunc_name_hint=hint), name_hint=name)

    def packed(self, pack: Callable[[NDArray[Any]], NDArray[Any]], **_: Any) -> tuple[NDArray[Any], ...]:
        """Lay everything but the outputs' scales out as a kernel reads it; ``pack`` lays filters out."""
        codes, places = planes(pack(self.codes), _CODES), planes(pack(self.places), _PLACES)
        return (*codes, *places, pack_depthwise(self.basis[:, None]))


def _scaled(codes: te.Tensor, places: te.Tensor, basis: te.Tensor, scales: te.Tensor, numbers: te.Tensor) -> te.Tensor:
    """Describe the filters; what remains where no kernel reads them as stored."""
    return te.compute(numbers.shape, lambda *i: numbers[i] * scales[i[0]], name="unpack")


def recognised(call: Any) -> PowerFilters | None:
    """Give the filters that :meth:`PowerFilters.emit` brought in; None where a call is something else."""
    if getattr(call.op, "name", "") != "relax.call_tir" or not call.args[0].name_hint.startswith(UNPACK_POWERS):
        return None
    found = _KEPT.search(call.args[0].name_hint)
    if found is None:
        return None
    names = ("codes", "places", "basis", "scales", "numbers")
    parts: Mapping[str, Any] = {
        name: operand.value.numpy() for name, operand in zip(names, call.args[1].fields, strict=True)
    }
    return PowerFilters(**parts, kept=int(found[1]))
