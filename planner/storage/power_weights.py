"""Filters as few powers of two times a basis in ONNX: written as operators that give them back, and read from those.

Of each four neighbouring inputs a fixed number keeps its coefficients in a row of a filter. A coefficient is a code of
4 bits, a sign and an exponent; which inputs they belong to is told once a row, in 2 bits each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.draft import attributes
from planner.errors import InputError
from planner.storage import code_planes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

__all__ = ["EXPONENTS", "INPUTS", "Powers", "read"]

EXPONENTS = 7
"""Powers of two that a coefficient can be, from 1 on; the next code is 0."""
INPUTS = 4
"""Neighbouring inputs of which a fixed number has coefficients."""
_SIGN = 8
_BITS, _PLACE_BITS = 4, 2
_INT8 = np.dtype(np.int8)
_CHAIN = ("Reshape", "ReduceSum", "Mul")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Powers:
    """Hold a convolution's filters.

    Attributes:
        coefficients: int8 ``[output][slot][row][column of the basis]``, 0 or powers of two up to 64 with a sign; each
            four inputs have ``kept`` slots.
        places: uint8 ``[output][slot][row][1]``, which of its four inputs a slot belongs to.
        kept: 1 to 4.
        basis: int8 ``[output][column of the basis][column]``.
        scale: float32 ``[output]``.
    """

    coefficients: NDArray[np.int8] = field(repr=False)
    places: NDArray[np.uint8] = field(repr=False)
    kept: int
    basis: NDArray[np.int8] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        outputs, slots, rows, columns = self.coefficients.shape
        if not 1 <= self.kept <= INPUTS or slots % self.kept:
            raise InputError(f"{slots} slots, {self.kept} for each four inputs; expected 1 to 4 for each")
        if self.places.shape != (outputs, slots, rows, 1) or int(self.places.max(initial=0)) >= INPUTS:
            raise InputError(f"places of shape {self.places.shape}; expected {(outputs, slots, rows, 1)}, 0 to 3")
        if self.basis.shape != (outputs, columns, columns) or self.scale.shape != (outputs,):
            raise InputError(f"bases of shape {self.basis.shape}; expected {(outputs, columns, columns)}, and scales")

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Codes of the coefficients: 8 for a minus, and the exponent, 7 for none."""
        size = np.abs(self.coefficients.astype(np.int16))
        exponent = np.where(size > 0, np.log2(np.maximum(size, 1)), EXPONENTS)
        return (np.where(self.coefficients < 0, _SIGN, 0) + exponent).astype(np.uint8)

    @property
    def numbers(self) -> NDArray[np.float32]:
        """The filters in units of the scales, ``[output][input][row][column]``."""
        outputs, slots, rows, columns = self.coefficients.shape
        fours = slots // self.kept
        spread = np.zeros((outputs, fours, INPUTS, rows, columns), np.float32)
        chosen = self.coefficients.reshape(outputs, fours, self.kept, rows, columns).astype(np.float32)
        places = self.places.reshape(outputs, fours, self.kept, rows, 1).astype(np.int64)
        np.put_along_axis(spread, np.broadcast_to(places, chosen.shape), chosen, axis=2)
        full = spread.reshape(outputs, fours * INPUTS, rows, columns)
        found: NDArray[np.float32] = np.einsum("oiyj,ojx->oiyx", full, self.basis.astype(np.float32))
        return found

    @property
    def values(self) -> NDArray[np.float32]:
        """The filters."""
        return self.numbers * self.scale[:, None, None, None]

    def written(self, weight: str, output: str) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
        """Write the filters as ONNX; arguments and result as `planner.storage.coded_weights.Coded.written` has them."""
        from onnx import TensorProto, helper

        outputs, slots, rows, columns = self.coefficients.shape
        fours = slots // self.kept
        nodes, arrays, codes = code_planes.written(f"{weight}.powers", self.codes, _BITS)
        more, constants, places = code_planes.written(f"{weight}.places", self.places, _PLACE_BITS)
        nodes += more
        arrays |= constants

        def add(op: str, operands: Sequence[str], role: str, **settings: Any) -> str:
            name = f"{weight}.{role}"
            nodes.append(helper.make_node(op, list(operands), [name], name=name, **settings))
            return name

        def constant(role: str, value: Any) -> str:
            arrays[f"{weight}.{role}"] = value
            return f"{weight}.{role}"

        index = add("Cast", [codes], "powers.index", to=TensorProto.INT32)
        chosen = add("Gather", [constant("powers.table", _table()), index], "powers.chosen")
        chosen = add("Cast", [chosen], "powers.float32", to=TensorProto.FLOAT)
        split = constant("powers.split", np.array([outputs, fours, self.kept, 1, rows, columns], np.int64))
        chosen = add("Reshape", [chosen, split], "powers.fours")
        index = add("Cast", [places], "places.index", to=TensorProto.INT32)
        split = constant("places.split", np.array([outputs, fours, self.kept, 1, rows, 1], np.int64))
        each = constant("places.each", np.arange(INPUTS, dtype=np.int32).reshape(INPUTS, 1, 1))
        there = add("Equal", [add("Reshape", [index, split], "places.fours"), each], "places.there")
        there = add("Cast", [there], "places.float32", to=TensorProto.FLOAT)
        spread = add("Mul", [chosen, there], "spread")
        spread = add("ReduceSum", [spread, constant("slots", np.array([2], np.int64))], "summed", keepdims=0)
        whole = constant("whole", np.array([outputs, fours * INPUTS, rows, columns], np.int64))
        spread = add("Reshape", [spread, whole], "coefficients")
        basis = [constant("basis", self.basis), constant("scale", self.scale)]
        basis_shape = constant("basis.shape", np.array([outputs, 1, columns, columns], np.int64))
        scaled = add("Reshape", [add("DequantizeLinear", basis, "basis.float32", axis=0), basis_shape], "basis.each")
        nodes.append(helper.make_node("MatMul", [spread, scaled], [output], name=f"{weight}.joined"))
        return nodes, arrays


def _table() -> NDArray[np.int32]:
    """Give what each code of 4 bits stands for."""
    sizes = np.append(1 << np.arange(EXPONENTS), 0)
    return np.concatenate([sizes, -sizes]).astype(np.int32)


def read(output: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> Powers | None:
    """Read filters that `Powers.written` wrote; arguments as `planner.storage.coded_weights.read` has them.

    Returns:
        The filters; None where they are written in some other way.
    """

    def back(name: str, *operators: str) -> Sequence[str]:
        """Follow first operands through operators; the operands of the last one, nothing where others are there."""
        reads: Sequence[str] = [name]
        for operator in operators:
            node = makers.get(reads[0])
            if node is None or node.op_type != operator:
                return ()
            reads = node.input
        return reads

    joined = back(output, "MatMul")
    parts = back(joined[0], *_CHAIN) if joined else ()
    basis = back(joined[1], "Reshape", "DequantizeLinear") if joined else ()
    if not parts or len(basis) != 2:
        return None
    split, chosen = back(parts[0], "Reshape"), back(parts[0], "Reshape", "Cast", "Gather")
    codes = back(chosen[1], "Cast") if chosen else ()
    places = back(parts[1], "Cast", "Equal", "Reshape", "Cast")
    if not split or not codes or not places or not np.array_equal(constants.get(chosen[0], 0), _table()):
        return None
    found = [code_planes.computed(name, makers, constants) for name in (codes[0], places[0])]
    whole, scale = constants.get(basis[0]), constants.get(basis[1])
    if found[0] is None or found[1] is None or whole is None or scale is None or whole.dtype != _INT8:
        return None
    if attributes(makers[back(joined[1], "Reshape")[0]]).get("axis", 1) != 0:
        return None
    return Powers(
        coefficients=_table()[found[0]].astype(np.int8),
        places=found[1],
        kept=int(constants[split[1]][2]),
        basis=whole,
        scale=scale,
    )
