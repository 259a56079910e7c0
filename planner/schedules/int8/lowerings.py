"""What the operators of a QDQ network become when they may work on integers.

An ONNX network that was quantised statically surrounds each operator by DequantizeLinear and QuantizeLinear.  The
lowerings here follow the integers through (:mod:`maps`) and emit kernels of bytes; where an operator, its
weights or its numbers do not allow that, they leave the call to the float32 families.

How many bits activations have is known from the network itself: a Clip (or Relu) right before a QuantizeLinear bounds
the bytes, and so does a narrower Clip anywhere in a chain of bytes.  Activations that were cut to 128 bytes from 0 on
are 7-bit, and take faster instructions on targets without a dot product of bytes (:func:`targets.pairs_fit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te

from planner.schedules.blocked import CHANNELS, FeatureMap, pack_convolution, pack_depthwise
from planner.schedules.int8 import arithmetic, convolution, depthwise, pooling, targets
from planner.schedules.int8.arithmetic import WORD, Grid
from planner.schedules.int8.maps import ByteMap, StoredBytes, Sums, Total, Union, greater, smaller
from planner.schedules.int8.targets import Instruction
from planner.schedules.rewriter import ALONE, FUSABLE, shape_of
from planner.schedules.storage import Codes
from planner.schedules.window import Window

if TYPE_CHECKING:
    from planner.schedules.constants import Weight
    from planner.schedules.rewriter import Rewriter

_MAP = 4
"""Dimensions of a feature map."""
_EXACT_BIAS = 2**30
"""Bound of int32 biases and offsets that leaves room for the sums they are added to."""


def _grid(rewriter: Rewriter, call: relax.Call, dtype: str) -> Grid | None:
    """Read the grid off a quantize or dequantize of one scale; None where there are several, or other types."""
    scale, zero = (rewriter.constants.of(operand) for operand in call.args[1:3])
    if scale is None or zero is None or scale.values.size != 1 or zero.values.size != 1:
        return None
    if dtype not in {"uint8", "int8"}:
        return None
    stored = rewriter.bytes.dtype
    shift = {("int8", "uint8"): 128, ("uint8", "int8"): -128}.get((dtype, stored), 0)
    low, high = (0, 255) if stored == "uint8" else (-128, 127)
    point = int(zero.values.reshape(-1)[0]) + shift
    return Grid(scale=float(scale.values.reshape(-1)[0]), zero=point, low=low, high=high, dtype=stored)


def lower_quantize(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Round to bytes: integers directly, float32 in the layout it is in."""
    source = call.args[0]
    dtype = str(var.ty.dtype)
    grid = _grid(rewriter, call, dtype)
    if grid is None or rewriter.constants.of(source) is not None:
        return False
    known = rewriter.deferred.get(source)
    if isinstance(known, ByteMap | Sums | Total | Union):
        result: ByteMap | None = known.quantised(rewriter, grid)
    else:
        result = _round(rewriter, source, grid)
    if result is None:
        return False
    rewriter.deferred[var] = StoredBytes(map=replace(result, shape=tuple(shape_of(var))), dtype=dtype)
    return True


def _round(rewriter: Rewriter, source: Any, grid: Grid) -> ByteMap | None:
    """Round float32 to bytes."""
    shape = tuple(shape_of(source))
    grid = grid.within(*rewriter.intervals.get(source, (None, None)))
    if source in rewriter.blocked:
        data, size = rewriter.blocked[source]
        result = rewriter.call(arithmetic.quantise, data, hint="quantize", grid=grid)
        return ByteMap(data=result, size=size, grid=grid, shape=shape)
    if len(shape) == _MAP:
        size = FeatureMap.of(shape)
    elif len(shape) == 2:  # rows of channels: images of a single pixel
        size = FeatureMap(channels=shape[1], height=1, width=1, images=shape[0])
    else:
        return None
    words = len(shape) == _MAP and size.channels <= WORD
    quantise = arithmetic.quantise_words if words else arithmetic.quantise_plain
    data = rewriter.call(quantise, rewriter.as_plain(source), hint="quantize", size=size, grid=grid)
    return ByteMap(data=data, size=size, grid=grid, shape=shape)


def lower_dequantize(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Note that a value stands for bytes."""
    known = rewriter.deferred.get(call.args[0])
    if not isinstance(known, StoredBytes):
        return False
    grid = _grid(rewriter, call, known.dtype)
    if grid is None:
        return False
    bounded = replace(grid, low=known.map.grid.low, high=known.map.grid.high)
    rewriter.deferred[var] = replace(known.map, grid=bounded)
    return True


def lower_conv2d(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Multiply bytes by bytes where the map is of bytes and the weights are int8 with a scale a filter."""
    known, attrs = rewriter.deferred.get(call.args[0]), call.attrs
    weight = _bytes(rewriter.constants.of(call.args[1]), axis=0)
    if not isinstance(known, ByteMap) or attrs.data_layout != "NCHW" or weight is None:
        return False
    groups, filters = int(attrs.groups), weight.values.shape[0]
    alone = groups == known.size.channels == filters and groups > 1
    if groups != 1 and not alone:
        return False
    output = FeatureMap.of(shape_of(var))
    window = Window.of(attrs, weight.values.shape[2:])
    return _multiply(rewriter, var, known, weight, output, window, alone=alone)


def lower_matmul(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Multiply rows of bytes by a matrix of int8 with a scale a column."""
    known = rewriter.deferred.get(call.args[0])
    weight = _bytes(rewriter.constants.of(call.args[1]), axis=1)
    if not isinstance(known, ByteMap) or len(known.shape) != 2 or weight is None:
        return False
    size, (rows, outputs) = known.size, shape_of(var)
    if rows != size.images or weight.values.ndim != 2:
        return False
    # A flattened map is multiplied by a window of its own size, so that its blocks stay as they are.
    filters = weight.values.T.reshape(outputs, size.channels, size.height, size.width)
    window = Window(kernel=(size.height, size.width), strides=(1, 1), padding=(0, 0, 0, 0))
    output = FeatureMap(channels=outputs, height=1, width=1, images=rows)
    codes = None if weight.codes is None else weight.codes.transposed((1, 0)).as_filters(filters.shape)
    turned = _Bytes(values=filters, scales=weight.scales, codes=codes)
    return _multiply(rewriter, var, known, turned, output, window, alone=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bytes:
    """Weights of int8 with a scale for each entry of one axis, and the codes that they are stored as, if any."""

    values: NDArray[np.int8]
    scales: NDArray[np.float64]
    codes: Codes | None = None


def _bytes(weight: Weight | None, *, axis: int) -> _Bytes | None:
    """Give a constant of int8 with one scale an entry of an axis; None where it is something else."""
    if weight is None or weight.scales is None or weight.values.dtype != np.int8:
        return None
    scales = weight.scales.astype(np.float64)
    if weight.axis != axis:
        if np.any(scales != scales[0]):
            return None
        scales = np.full(weight.values.shape[axis], scales[0])  # one for all, whichever axis it was noted for
    codes = weight.codes_along(1 - axis)
    values = weight.values.astype(np.int8, copy=False)
    return _Bytes(values=values, scales=scales, codes=codes if isinstance(codes, Codes) else None)


def _multiply(
    rewriter: Rewriter,
    var: relax.Var,
    known: ByteMap,
    weight: _Bytes,
    output: FeatureMap,
    window: Window,
    *,
    alone: bool,
) -> bool:
    """Emit the kernel of a convolution of bytes and note what its sums stand for."""
    values, grid = weight.values, known.grid
    columns = values.reshape(values.shape[0], -1).astype(np.int64)
    offsets = -grid.zero * columns.sum(axis=1)
    reach = max(abs(grid.low), abs(grid.high)) * np.abs(columns).sum(axis=1).max(initial=0)
    if reach + np.abs(offsets).max(initial=0) >= _EXACT_BIAS:
        return False
    kernel: Callable[..., te.Tensor]
    details: dict[str, Any] = {}
    if alone:
        known = known.in_blocks(rewriter)
        kernel, hint, packed = depthwise.depthwise, "depthwise", pack_depthwise(values)
        data, details = known.data, {"zero": grid.zero}
    else:
        kernel, hint, packed = convolution.convolution, "conv2d", convolution.pack(values)
        fits = grid.low >= 0 and targets.pairs_fit(packed, grid.high)
        paired = not fits and rewriter.bytes.exact is Instruction.PMADDWD
        if paired:
            packed = convolution.pack(values, paired=True, words=known.words)
        data = _padded(rewriter, known, window, widened=paired and not known.words)
        details = {"fits": fits, "paired": paired, "dtype": grid.dtype}
    operands: tuple[NDArray[Any], ...] = (packed,)
    coded = None if alone or known.words else weight.codes
    if coded is not None and (coded.zero is not None or values.shape[1] % CHANNELS == 0):
        operands = coded.packed(convolution.lay_out, pack_convolution, fill=coded.zero or 0)
        details["form"] = coded.form
    sums = rewriter.call(
        kernel, data, *(relax.const(operand) for operand in operands), hint=hint, pattern=FUSABLE,
        source=known.size, output=output, window=window, **details,
    )  # fmt: skip
    scales = np.float64(np.float32(grid.scale)) * weight.scales
    shape = tuple(shape_of(var))
    rewriter.deferred[var] = Sums(data=sums, size=output, offsets=offsets.astype(np.int32), scales=scales, shape=shape)
    return True


def _padded(rewriter: Rewriter, known: ByteMap, window: Window, *, widened: bool = False) -> Any:
    """Pad a map of bytes, and widen it to 16 bits, once, however many windows of the same padding read it."""
    if not window.padded and not widened:
        return known.data
    change, hint = (arithmetic.widen, "widen") if widened else (arithmetic.pad, "pad")

    def make() -> Any:
        return rewriter.call(
            change, known.data, hint=hint, pattern=ALONE, source=known.size, window=window, zero=known.grid.zero
        )

    return rewriter.once((hint, known.data, window.padding, known.grid.zero), make)


def lower_add(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Add a bias to sums of products, or two byte maps to each other."""
    left, right = (rewriter.deferred.get(operand) for operand in call.args)
    if isinstance(left, ByteMap) and isinstance(right, ByteMap):
        if left.shape != right.shape or left.size != right.size:
            return False
        parts = (left.in_blocks(rewriter), right.in_blocks(rewriter))
        rewriter.deferred[var] = Total(parts=parts, shape=left.shape)
        return True
    for known, other in ((left, call.args[1]), (right, call.args[0])):
        bias = rewriter.constants.of(other)
        if isinstance(known, Sums) and bias is not None and (known.least, known.most) == (None, None):
            steps = _bias(known, bias)
            if steps is None:
                return False
            rewriter.deferred[var] = replace(known, offsets=known.offsets + steps)
            return True
    return False


def _bias(sums: Sums, bias: Weight) -> NDArray[np.int32] | None:
    """Give a bias in units of the sums' scales, one a channel; None where it has another shape or is out of reach.

    What a network stores as int32 with the very scales of the sums is taken as it is, a float32 bias is rounded.
    """
    trailing = bias.values.shape[-2:] if len(sums.shape) == _MAP else (1, 1)
    if bias.values.size not in {1, sums.size.channels} or (bias.values.size > 1 and trailing != (1, 1)):
        return None
    if len(sums.shape) != _MAP and bias.values.shape and bias.values.shape[-1] != bias.values.size:
        return None
    stored = bias.scales is not None and np.allclose(bias.scales, sums.scales, rtol=1e-5, atol=0)
    if stored and bias.values.dtype == np.int32:
        steps = bias.values.reshape(-1).astype(np.float64)
    else:
        steps = np.rint(bias.widened().reshape(-1).astype(np.float64) / sums.scales)
    if not np.all(np.abs(steps) < _EXACT_BIAS):
        return None
    return np.broadcast_to(steps, sums.offsets.shape).astype(np.int32)


def lower_relu(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Cut at 0."""
    return _cut(rewriter, var, call.args[0], 0.0, None)


def lower_clip(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Cut to an interval."""
    bounds = [getattr(bound, "value", None) for bound in call.args[1:3]]
    numbers = [float(bound) for bound in bounds if isinstance(bound, int | float)]
    if len(numbers) != len(bounds):
        return False
    return _cut(rewriter, var, call.args[0], numbers[0], numbers[1])


def lower_bound(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Cut at one end: the maximum or the minimum of a value and a number."""
    left, right = (rewriter.constants.of(operand) for operand in call.args)
    number, source = (right, call.args[0]) if right is not None else (left, call.args[1])
    if number is None or number.values.size != 1:
        return False
    bound = float(number.widened().reshape(-1)[0])
    ends = (bound, None) if call.op.name == "relax.maximum" else (None, bound)
    return _cut(rewriter, var, source, *ends)


def _cut(rewriter: Rewriter, var: relax.Var, source: Any, least: float | None, most: float | None) -> bool:
    known = rewriter.deferred.get(source)
    if isinstance(known, ByteMap):
        known = known.cut(rewriter, least, most)
    elif isinstance(known, Sums | Total | Union):
        known = known.cut(least, most)
    if isinstance(known, ByteMap | Sums | Total | Union):
        rewriter.deferred[var] = known
        return True
    # float32: what it is rounded to is bounded by that
    before = rewriter.intervals.get(source, (None, None))
    rewriter.intervals[var] = (greater(before[0], least), smaller(before[1], most))
    return False


def lower_max_pool(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Take the sliding maximum of bytes: rounding keeps order."""
    known = rewriter.deferred.get(call.args[0])
    if not isinstance(known, ByteMap) or len(known.shape) != _MAP:
        return False
    known = known.in_blocks(rewriter)
    output, window = FeatureMap.of(shape_of(var)), Window.of(call.attrs, call.attrs.pool_size)
    data = rewriter.call(
        pooling.maximum, known.data, hint="max_pool", pattern=FUSABLE,
        source=known.size, output=output, window=window,
    )  # fmt: skip
    rewriter.deferred[var] = replace(known, data=data, size=output, shape=output.plain_shape)
    return True


def lower_avg_pool(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Sum bytes under a window that never overhangs the map, and divide when the sums are rounded."""
    attrs = call.attrs
    known = rewriter.deferred.get(call.args[0])
    if not isinstance(known, ByteMap) or len(known.shape) != _MAP:
        return False
    window, output = Window.of(attrs, attrs.pool_size), FeatureMap.of(shape_of(var))
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(
        (output.height, output.width), window.strides, window.kernel, window.dilation, strict=True
    )]  # fmt: skip
    if window.padded or reach[0] > known.size.height or reach[1] > known.size.width:
        return False
    return _mean(rewriter, var, known, output, window)


def lower_global_mean(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Sum the bytes of a whole map."""
    known, shape = rewriter.deferred.get(call.args[0]), shape_of(var)
    if not isinstance(known, ByteMap) or len(known.shape) != _MAP or shape[2:] != [1, 1]:
        return False
    if call.op.name == "relax.mean" and sorted(int(a) % _MAP for a in call.attrs.axis) != [2, 3]:
        return False
    window = Window(kernel=(known.size.height, known.size.width), strides=(1, 1), padding=(0, 0, 0, 0))
    return _mean(rewriter, var, known, FeatureMap.of(shape), window)


def _mean(rewriter: Rewriter, var: relax.Var, known: ByteMap, output: FeatureMap, window: Window) -> bool:
    known = known.in_blocks(rewriter)
    sums = rewriter.call(
        pooling.total, known.data, hint="avg_pool", pattern=FUSABLE, source=known.size, output=output, window=window
    )
    count = window.kernel[0] * window.kernel[1]
    offsets = np.full(output.channels, -known.grid.zero * count, np.int32)
    scales = np.full(output.channels, np.float64(np.float32(known.grid.scale)) / count)
    rewriter.deferred[var] = Sums(data=sums, size=output, offsets=offsets, scales=scales, shape=output.plain_shape)
    return True


def lower_concat(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Note that byte maps lie side by side, all but the last of whole blocks."""
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    parts = [
        part for part in map(rewriter.deferred.get, fields) if isinstance(part, ByteMap) and len(part.shape) == _MAP
    ]
    if not parts or len(parts) != len(fields) or int(call.attrs.axis) % _MAP != 1:
        return False
    if any(part.size.channels % CHANNELS for part in parts[:-1]):
        return False
    size = FeatureMap.of(shape_of(var))
    rewriter.deferred[var] = Union(parts=tuple(part.in_blocks(rewriter) for part in parts), size=size)
    return True


def lower_reshape(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Flatten a map of bytes or of sums by calling it flat; its blocks stay where they are."""
    known, shape = rewriter.deferred.get(call.args[0]), tuple(shape_of(var))
    if not isinstance(known, ByteMap | Sums) or known.size.channels <= WORD:
        return False
    flat = (known.size.images, known.size.channels * known.size.height * known.size.width)
    if shape not in {flat, known.size.plain_shape}:
        return False
    rewriter.deferred[var] = replace(known, shape=shape)
    return True


LOWERINGS = {
    "relax.quantize": lower_quantize,
    "relax.dequantize": lower_dequantize,
    "relax.nn.conv2d": lower_conv2d,
    "relax.matmul": lower_matmul,
    "relax.add": lower_add,
    "relax.nn.relu": lower_relu,
    "relax.clip": lower_clip,
    "relax.maximum": lower_bound,
    "relax.minimum": lower_bound,
    "relax.nn.max_pool2d": lower_max_pool,
    "relax.nn.avg_pool2d": lower_avg_pool,
    "relax.nn.adaptive_avg_pool2d": lower_global_mean,
    "relax.mean": lower_global_mean,
    "relax.concat": lower_concat,
    "relax.reshape": lower_reshape,
    "relax.nn.batch_flatten": lower_reshape,
    "relax.flatten": lower_reshape,
}
