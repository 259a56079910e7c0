"""What is computed between products of bytes: rounding to bytes, sums and unions of byte maps, and the way back.

All of it is stated to the bit, so that every target gives the same bytes:

- a product's sums become bytes as ``clip(rint(float32(sums + offset) * multiplier) + zero)``, where ``sums + offset``
  is exact in int32 and the one product is rounded to float32;
- two maps are added as ``clip(rint((a - zero_a) * multiplier_a + (b - zero_b) * multiplier_b) + zero)`` with
  multipliers of 16 significant bits: both products are exact in float32, so that it makes no difference whether a
  target fuses a multiplication with the addition;
- float32 becomes bytes as ONNX's QuantizeLinear has it, ``clip(rint(x / scale) + zero)``. The scale is an operand of
  those kernels: the compiler would turn a division by a literal into a product with its rounded reciprocal.

``rint`` rounds half to even.  It is done by adding 1.5 * 2^23, where float32 has a spacing of 1: the integer can
then be read off the lower bits, which takes one instruction less than rounding and converting, on any target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from planner.schedules.blocked import CHANNELS, FeatureMap
from planner.schedules.window import Window

WORD = 4
"""Bytes in a word: channels that a map of words can hold."""
_SHIFTER = 12582912.0
"""1.5 * 2^23."""
_SHIFTER_BITS = 0x4B400000
"""The same as float32, bit for bit."""
_PRODUCT_BITS = 16
"""Significant bits of a multiplier whose product with a difference of bytes is exact in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values that bytes stand for: ``(byte - zero) * scale``.

    Attributes:
        scale: Distance of two neighbouring values.
        zero: The byte that stands for 0.
        low: The least byte there can be.
        high: The greatest byte there can be.
        dtype: ``uint8`` or ``int8``.

    >>> Grid(scale=0.5, zero=128, low=0, high=255, dtype="uint8").within(0.0, 6.0)
    Grid(scale=0.5, zero=128, low=128, high=140, dtype='uint8')
    """

    scale: float
    zero: int
    low: int
    high: int
    dtype: str

    def within(self, least: float | None, most: float | None) -> Grid:
        """Give the grid of values that were cut to an interval before they were rounded.

        Rounding keeps order, so that cutting before is the same as cutting the bytes.
        """
        low = self.low if least is None else max(self.low, self.nearest(least))
        high = self.high if most is None else min(self.high, self.nearest(most))
        low, high = min(low, self.high), max(high, self.low)
        return Grid(scale=self.scale, zero=self.zero, low=low, high=max(low, high), dtype=self.dtype)

    def nearest(self, value: float) -> int:
        """Give the byte that stands for a value, unbounded."""
        return int(np.rint(np.float32(value) / np.float32(self.scale))) + self.zero

    def same_values(self, other: Grid) -> bool:
        """Tell whether bytes mean the same on both grids."""
        return (self.scale, self.zero, self.dtype) == (other.scale, other.zero, other.dtype)


def shortened(multiplier: float) -> float:
    """Round a multiplier to 16 significant bits.

    >>> shortened(1 / 3)
    0.33333587646484375
    """
    mantissa, exponent = np.frexp(multiplier)
    return float(np.ldexp(np.rint(np.ldexp(mantissa, _PRODUCT_BITS)), exponent - _PRODUCT_BITS))


def _byte(value: Any, grid: Grid) -> Any:
    """Round a float32 expression, in units of the grid's scale, to a byte."""
    least, most = (tirx.const(float(bound - grid.zero), "float32") for bound in (grid.low, grid.high))
    cut = te.max(te.min(value, most), least)
    bits = tirx.reinterpret("int32", cut + tirx.const(_SHIFTER, "float32"))
    return tirx.Cast(grid.dtype, bits - tirx.const(_SHIFTER_BITS - grid.zero, "int32"))


def _steps(read: Any, grid: Grid) -> Any:
    """Give how many steps a byte is away from zero, as float32."""
    return tirx.Cast("float32", tirx.Cast("int32", read) - tirx.const(grid.zero, "int32"))


def _cut(value: Any, least: float | None, most: float | None) -> Any:
    """Cut a float32 expression to an interval."""
    if most is not None:
        value = te.min(value, tirx.const(most, "float32"))
    return value if least is None else te.max(value, tirx.const(least, "float32"))


def requantise(sums: te.Tensor, multipliers: te.Tensor, *offsets: te.Tensor, grid: Grid) -> te.Tensor:
    """Round sums of products to bytes.

    Args:
        sums: ``(blocks, pixels, 16)`` int32.
        multipliers: ``(blocks, 1, 16)`` float32, into units of the grid's scale.
        offsets: ``(blocks, 1, 16)`` int32, added first: the bias, and what the zero of the input adds up to; none where
            they are all 0.
        grid: Of the result.
    """

    def value(o: Any, p: Any, b: Any) -> Any:
        return _byte(_whole(sums, offsets, (o, p, b)) * multipliers[o, 0, b], grid)

    return te.compute(sums.shape, value, name="requantise")


def real_sums(
    sums: te.Tensor, scales: te.Tensor, *offsets: te.Tensor, least: float | None, most: float | None
) -> te.Tensor:
    """Give sums of products as the float32 that they stand for; arguments as :func:`requantise` has them."""

    def value(o: Any, p: Any, b: Any) -> Any:
        return _cut(_whole(sums, offsets, (o, p, b)) * scales[o, 0, b], least, most)

    return te.compute(sums.shape, value, name="real_sums")


def _whole(sums: te.Tensor, offsets: tuple[te.Tensor, ...], place: tuple[Any, Any, Any]) -> Any:
    o, _, b = place
    return tirx.Cast("float32", sums[place] + offsets[0][o, 0, b] if offsets else sums[place])


def real(*maps: te.Tensor, grids: tuple[Grid, ...], least: float | None = None, most: float | None = None) -> te.Tensor:
    """Give the float32 that bytes stand for: of one map, or the sum of two, cut to an interval."""

    def value(*index: Any) -> Any:
        terms = [
            _steps(data[index], grid) * tirx.const(grid.scale, "float32")
            for data, grid in zip(maps, grids, strict=True)
        ]
        return _cut(terms[0] + terms[1] if len(terms) > 1 else terms[0], least, most)

    return te.compute(maps[0].shape, value, name="real")


def quantise(data: te.Tensor, *, grid: Grid) -> te.Tensor:
    """Round float32 to bytes, in whatever layout it is."""
    return te.compute(data.shape, lambda *index: _byte(data[index] / _scale(grid), grid), name="quantise")


def _scale(grid: Grid) -> Any:
    """Give the scale as a number in the code: as a constant of the module it would count as a weight."""
    return tirx.const(grid.scale, "float32")


def quantise_plain(data: te.Tensor, *, size: FeatureMap, grid: Grid) -> te.Tensor:
    """Round NCHW, or rows of ``channels`` entries, to blocked bytes; channels that pad a block hold the zero."""
    last = size.channels - 1

    def value(o: Any, p: Any, b: Any) -> Any:
        channel = o * CHANNELS + b
        image, row, column = size.place(p)
        near = te.min(channel, last) if size.channels % CHANNELS else channel
        read = data[image, near, row, column] if len(data.shape) == 4 else data[p, near]
        byte = _byte(read / _scale(grid), grid)
        if size.channels % CHANNELS == 0:
            return byte
        return te.if_then_else(channel <= last, byte, tirx.const(grid.zero, grid.dtype))

    return te.compute(size.blocked_shape, value, name="quantise")


def quantise_words(data: te.Tensor, *, size: FeatureMap, grid: Grid) -> te.Tensor:
    """Round NCHW of up to four channels to words, the first channel in the lowest byte.

    Returns:
        ``(1, pixels, 1)`` int32.
    """

    def value(_: Any, p: Any, __: Any) -> Any:
        image, row, column = size.place(p)
        word = tirx.const(0, "int32")
        for channel in range(size.channels):
            byte = tirx.Cast("int32", _byte(data[image, channel, row, column] / _scale(grid), grid))
            word = word | ((byte & 255) << (8 * channel))
        return word

    return te.compute((1, size.pixels, 1), value, name="quantise")


def unpack_words(data: te.Tensor, *, size: FeatureMap, grid: Grid) -> te.Tensor:
    """Spread words over blocks of 16 channels; those that there are none of hold the zero."""

    def value(o: Any, p: Any, b: Any) -> Any:
        byte = tirx.Cast(grid.dtype, data[0, p, 0] >> (te.min(b, WORD - 1) * 8))
        return te.if_then_else(b < size.channels, byte, tirx.const(grid.zero, grid.dtype))

    return te.compute(size.blocked_shape, value, name="unpack")


def add(*maps: te.Tensor, grids: tuple[Grid, ...], grid: Grid) -> te.Tensor:
    """Add one or two byte maps of the same size and round the sum to bytes."""
    multipliers = [shortened(float(np.float64(g.scale) / np.float64(grid.scale))) for g in grids]

    def value(*index: Any) -> Any:
        terms = [
            _steps(data[index], g) * tirx.const(multiplier, "float32")
            for data, g, multiplier in zip(maps, grids, multipliers, strict=True)
        ]
        return _byte(terms[0] + terms[1] if len(terms) > 1 else terms[0], grid)

    return te.compute(maps[0].shape, value, name="add")


def join(*maps: te.Tensor, grids: tuple[Grid, ...], grid: Grid) -> te.Tensor:
    """Join byte maps of the same pixels along their channel blocks, each rounded to the grid of the result."""
    starts = [0]
    for data in maps:
        starts.append(starts[-1] + int(data.shape[0]))
    multipliers = [shortened(float(np.float64(g.scale) / np.float64(grid.scale))) for g in grids]

    def part(place: int, o: Any, p: Any, b: Any) -> Any:
        read = maps[place][o - starts[place], p, b]
        if grids[place].same_values(grid) and grid.low <= grids[place].low and grids[place].high <= grid.high:
            return read
        return _byte(_steps(read, grids[place]) * tirx.const(multipliers[place], "float32"), grid)

    def value(o: Any, p: Any, b: Any) -> Any:
        read = part(len(maps) - 1, o, p, b)
        for place in reversed(range(len(maps) - 1)):
            read = te.if_then_else(o < starts[place + 1], part(place, o, p, b), read)
        return read

    return te.compute((starts[-1], *maps[0].shape[1:]), value, name="join")


def pad(data: te.Tensor, *, source: FeatureMap, window: Window, zero: int) -> te.Tensor:
    """Surround a map of bytes (or of words of four) with the byte that stands for 0.

    Args:
        data: ``(blocks, pixels, 16)`` bytes or ``(1, pixels, 1)`` words.
        source: Its size.
        window: Whose padding to add.
        zero: The byte.

    Returns:
        ``(blocks, N * height', width', 16)``, or 1 in place of 16.
    """
    top, left, _, _ = window.padding
    height, width = window.padded_size(source)
    words = str(data.dtype) == "int32"
    fill = int(np.array([zero] * 4).astype(np.uint8).view(np.int32)[0]) if words else zero

    def value(o: Any, h: Any, w: Any, b: Any) -> Any:
        image, row = (0, h) if source.images == 1 else (h // height, h % height)
        inside = te.all(row >= top, row < source.height + top, w >= left, w < source.width + left)
        read = data[o, (image * source.height + row - top) * source.width + (w - left), b]
        return te.if_then_else(inside, read, tirx.const(fill, str(data.dtype)))

    return te.compute((data.shape[0], source.images * height, width, data.shape[2]), value, name="pad")


def widen(data: te.Tensor, *, source: FeatureMap, window: Window, zero: int) -> te.Tensor:
    """Make a map's bytes int16, in a frame of the byte that stands for 0 where the window asks for one."""
    framed = pad(data, source=source, window=window, zero=zero) if window.padded else data
    return te.compute(framed.shape, lambda *index: tirx.Cast("int16", framed[index]), name="widen")


def plain_bytes(data: te.Tensor, *, size: FeatureMap, shift: int, dtype: str) -> te.Tensor:
    """Gather blocked bytes back into NCHW.

    Args:
        data: ``(blocks, pixels, 16)``.
        size: Its size.
        shift: Added to each, modulo 256: what takes them from one signedness to the other.
        dtype: Of the result.
    """

    def value(n: Any, c: Any, h: Any, w: Any) -> Any:
        read = tirx.Cast("int32", data[c // CHANNELS, (n * size.height + h) * size.width + w, c % CHANNELS])
        return tirx.Cast(dtype, read + tirx.const(shift, "int32"))

    return te.compute(size.plain_shape, value, name="plain_bytes")
