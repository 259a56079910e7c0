"""Feature maps that integers stand for, on their way through a function.

A QDQ network says ``float = dequantize(bytes)`` before and ``bytes = quantize(float)`` after every operator, and
means that the operator may as well work on the bytes.  So nothing is computed where such a float is made: what is
known of it is kept as one of the classes here, and only what reads it decides.  A ``quantize`` rounds straight from
integers to bytes, an operator that knows no integers has the float32 made (:meth:`Rewriter.settle`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from planner.schedules.blocked import FeatureMap, per_channel
from planner.schedules.families import concatenation
from planner.schedules.int8 import arithmetic
from planner.schedules.int8.arithmetic import Grid

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter


def _constant(array: NDArray[Any], size: FeatureMap) -> Any:
    return relax.const(np.ascontiguousarray(per_channel(array, size.channels)))


def _give(rewriter: Rewriter, var: relax.Var, data: Any, size: FeatureMap, shape: tuple[int, ...]) -> None:
    """Hand a blocked float32 map to whoever reads ``var``; to tensors that are no maps in their own shape."""
    rewriter.blocked[var] = (data, size)
    if shape != size.plain_shape:
        plain = rewriter.as_plain(var)
        del rewriter.blocked[var]
        rewriter.plain[var] = rewriter.bb.emit(relax.op.reshape(plain, shape), name_hint=rewriter.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteMap:
    """Bytes that are there, and the values that they stand for.

    Attributes:
        data: ``(blocks, pixels, 16)`` bytes, or ``(1, pixels, 1)`` words of four.
        size: Size of the map.
        grid: What the bytes stand for.
        shape: Shape of the tensor in the network: NCHW, or the map flattened.
    """

    data: Any
    size: FeatureMap
    grid: Grid
    shape: tuple[int, ...]

    @property
    def words(self) -> bool:
        """Whether the map is of words of four channels."""
        return int(self.data.ty.shape.values[-1]) == 1

    def in_blocks(self, rewriter: Rewriter) -> ByteMap:
        """Give the map in blocks of 16 channels, whether or not it is of words."""
        if not self.words:
            return self
        data = rewriter.call(arithmetic.unpack_words, self.data, hint="unpack", size=self.size, grid=self.grid)
        return replace(self, data=data)

    def cut(self, rewriter: Rewriter, least: float | None, most: float | None) -> ByteMap | Total:
        """Cut to an interval, which costs nothing where no byte is beyond it."""
        if self.grid.within(least, most) == self.grid:
            return self
        return Total(parts=(self.in_blocks(rewriter),), shape=self.shape, least=least, most=most)

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Make the float32 that the bytes stand for."""
        blocked = self.in_blocks(rewriter)
        data = rewriter.call(arithmetic.real, blocked.data, hint="dequantize", grids=(self.grid,))
        _give(rewriter, var, data, self.size, self.shape)

    def quantised(self, rewriter: Rewriter, grid: Grid) -> ByteMap:
        """Round to another grid."""
        if self.grid.same_values(grid):
            return self
        return Total(parts=(self.in_blocks(rewriter),), shape=self.shape).quantised(rewriter, grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """The bytes themselves, as a network sees them whose integers are read by something else than a dequantize.

    Attributes:
        map: The bytes.
        dtype: Their type in the network; they may be stored as the other one.
    """

    map: ByteMap
    dtype: str

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Gather the bytes into NCHW."""
        shift = {("uint8", "int8"): -128, ("int8", "uint8"): 128}.get((self.map.grid.dtype, self.dtype), 0)
        data, size = self.map.in_blocks(rewriter).data, self.map.size
        plain = rewriter.call(arithmetic.plain_bytes, data, hint="to_plain", size=size, shift=shift, dtype=self.dtype)
        rewriter.plain[var] = rewriter.bb.emit(relax.op.reshape(plain, self.map.shape), name_hint=rewriter.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums of products of bytes: ``(sums + offsets) * scales``, cut to an interval.

    Attributes:
        data: ``(blocks, pixels, 16)`` int32.
        size: Size of the map.
        offsets: int32, one a channel.
        scales: float64, one a channel.
        shape: Shape of the tensor in the network.
        least: What smaller values are set to, if anything.
        most: What greater values are set to, if anything.
    """

    data: Any
    size: FeatureMap
    offsets: NDArray[np.int32]
    scales: NDArray[np.float64]
    shape: tuple[int, ...]
    least: float | None = None
    most: float | None = None

    @property
    def _added(self) -> tuple[Any, ...]:
        """The offsets as an operand; none where all are 0, which equal constants of other layers could stand for."""
        return (_constant(self.offsets, self.size),) if self.offsets.any() else ()

    def cut(self, least: float | None, most: float | None) -> Sums:
        """Cut to a narrower interval."""
        return replace(self, least=greater(self.least, least), most=smaller(self.most, most))

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Make the float32 that the sums stand for."""
        scales = _constant(self.scales.astype(np.float32), self.size)
        data = rewriter.call(
            arithmetic.real_sums, self.data, scales, *self._added, hint="dequantize", least=self.least, most=self.most
        )
        _give(rewriter, var, data, self.size, self.shape)

    def quantised(self, rewriter: Rewriter, grid: Grid) -> ByteMap:
        """Round to bytes."""
        grid = grid.within(self.least, self.most)
        multipliers = (self.scales / np.float64(grid.scale)).astype(np.float32)
        data = rewriter.call(
            arithmetic.requantise,
            self.data,
            _constant(multipliers, self.size),
            *self._added,
            hint="quantize",
            grid=grid,
        )
        return ByteMap(data=data, size=self.size, grid=grid, shape=self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The sum of one or two byte maps, cut to an interval.

    Attributes:
        parts: The maps, all of one size and in blocks.
        shape: Shape of the tensor in the network.
        least: What smaller values are set to, if anything.
        most: What greater values are set to, if anything.
    """

    parts: tuple[ByteMap, ...]
    shape: tuple[int, ...]
    least: float | None = None
    most: float | None = None

    def cut(self, least: float | None, most: float | None) -> Total:
        """Cut to a narrower interval."""
        return replace(self, least=greater(self.least, least), most=smaller(self.most, most))

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Make the float32 sum."""
        size = self.parts[0].size
        grids = tuple(part.grid for part in self.parts)
        data = rewriter.call(
            arithmetic.real,
            *(part.data for part in self.parts),
            hint="dequantize",
            grids=grids,
            least=self.least,
            most=self.most,
        )
        _give(rewriter, var, data, size, self.shape)

    def quantised(self, rewriter: Rewriter, grid: Grid) -> ByteMap:
        """Round to bytes."""
        grid = grid.within(self.least, self.most)
        grids = tuple(part.grid for part in self.parts)
        data = rewriter.call(arithmetic.add, *(part.data for part in self.parts), hint="add", grids=grids, grid=grid)
        return ByteMap(data=data, size=self.parts[0].size, grid=grid, shape=self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Union:
    """Byte maps joined along their channels, all but the last of whole blocks.

    Attributes:
        parts: The maps, all of the same pixels and in blocks.
        size: Size of the union.
        least: What smaller values are set to, if anything.
        most: What greater values are set to, if anything.
    """

    parts: tuple[ByteMap, ...]
    size: FeatureMap
    least: float | None = None
    most: float | None = None

    def cut(self, least: float | None, most: float | None) -> Union:
        """Cut to a narrower interval."""
        return replace(self, least=greater(self.least, least), most=smaller(self.most, most))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the network."""
        return self.size.plain_shape

    def settle(self, rewriter: Rewriter, var: relax.Var) -> None:
        """Make the float32 union."""
        parts = [
            rewriter.call(arithmetic.real, p.data, hint="dequantize", grids=(p.grid,), least=self.least, most=self.most)
            for p in self.parts
        ]
        data = rewriter.call(concatenation.concatenate, *parts, hint="concat")
        _give(rewriter, var, data, self.size, self.shape)

    def quantised(self, rewriter: Rewriter, grid: Grid) -> ByteMap:
        """Round to bytes."""
        grid = grid.within(self.least, self.most)
        grids = tuple(part.grid for part in self.parts)
        data = rewriter.call(
            arithmetic.join, *(part.data for part in self.parts), hint="concat", grids=grids, grid=grid
        )
        return ByteMap(data=data, size=self.size, grid=grid, shape=self.shape)


def greater(one: float | None, other: float | None) -> float | None:
    """Give the greater of two bounds; None stands for no bound."""
    return other if one is None else one if other is None else max(one, other)


def smaller(one: float | None, other: float | None) -> float | None:
    """Give the smaller of two bounds; None stands for no bound."""
    return other if one is None else one if other is None else min(one, other)
