"""Quantised networks, and what they compute as integer arithmetic written down once more in numpy.

The reference states the arithmetic to the bit: sums of products in int64; float32 multipliers rounded from float64;
one float32 product a rounding; rounding half to even; multipliers of sums of two maps of 16 significant bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from entries import compiled
from onnx import helper, numpy_helper

from planner.segments import Network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from networks import Builder
    from numpy.typing import NDArray

    from planner.compiler import Compiled
    from planner.segments import Entry


def quantise_statically(model: onnx.ModelProto, path: Path, images: NDArray[np.float32], **options: Any) -> Path:
    """Quantise a network the way users do: onnxruntime's static quantisation to QDQ form, weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{model.graph.input[0].name: image[None]} for image in images])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantize_static(copy, str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **options)
    return path


class Quantiser:
    """Write a QDQ network node by node on top of a ``networks.Builder``, with scales chosen by hand."""

    def __init__(self, builder: Builder, kind: type = np.uint8) -> None:
        self.builder, self.kind = builder, kind
        self.rng = np.random.default_rng(11)

    def point(self, x: str, name: str, scale: float, zero: int) -> str:
        """Round a tensor to bytes and back."""
        b = self.builder
        grid = [b.constant(np.float32(scale), f"{name}.s"), b.constant(self.kind(zero), f"{name}.z")]
        x = b.add("QuantizeLinear", [x, *grid], name=f"{name}.q")
        return b.add("DequantizeLinear", [x, *grid], name=f"{name}.dq")

    def weights(
        self, shape: tuple[int, ...], name: str, *, scale: float, limit: int = 127, per_channel: bool = True
    ) -> str:
        """Store int8 weights with a scale a filter, or one for all."""
        b = self.builder
        scales = (scale * self.rng.uniform(0.5, 1.5, shape[0] if per_channel else ())).astype(np.float32)
        stored = [
            b.constant(self.rng.integers(-limit, limit + 1, shape).astype(np.int8), f"{name}.q"),
            b.constant(scales, f"{name}.s"),
            b.constant(np.zeros(scales.shape, np.int8), f"{name}.z"),
        ]
        attributes = {"axis": 0} if per_channel else {}
        return b.add("DequantizeLinear", stored, name=name, **attributes)

    def bias(self, weight: str, count: int, name: str, *, scale: float) -> str:
        """Store an int32 bias with the scale of its layer's sums."""
        b = self.builder
        (scales,) = (numpy_helper.to_array(c) for c in b.constants if c.name == f"{weight.removesuffix(':0')}.s")
        scales = np.broadcast_to(scales * np.float32(scale), (count,)).astype(np.float32)
        stored = [
            b.constant(self.rng.integers(-3000, 3000, count).astype(np.int32), f"{name}.q"),
            b.constant(scales, f"{name}.s"),
            b.constant(np.zeros(count, np.int32), f"{name}.z"),
        ]
        return b.add("DequantizeLinear", stored, name=name, axis=0)


@dataclass(frozen=True)
class Bytes:
    """Dequantised bytes."""

    values: NDArray[Any]
    scale: np.float32
    zero: int

    @property
    def steps(self) -> NDArray[np.int64]:
        return self.values.astype(np.int64) - self.zero

    def real(self) -> NDArray[np.float32]:
        return self.steps.astype(np.float32) * self.scale


@dataclass(frozen=True)
class Sums:
    """Sums of products, offset already, with a scale for each entry of axis 1."""

    values: NDArray[np.int64]
    scales: NDArray[np.float64]
    least: float = -np.inf
    most: float = np.inf

    def along(self, scales: NDArray[Any]) -> NDArray[Any]:
        return scales.reshape(1, -1, *[1] * (self.values.ndim - 2))

    def real(self) -> NDArray[np.float32]:
        real = self.values.astype(np.float32) * self.along(self.scales.astype(np.float32))
        return np.clip(real, self.least, self.most).astype(np.float32)


@dataclass(frozen=True)
class Total:
    """The sum of one or two dequantised maps."""

    parts: tuple[Bytes, ...]
    least: float = -np.inf
    most: float = np.inf


def _nearest(bound: float, scale: np.float32) -> float:
    return float(np.rint(np.float32(bound) / scale)) if np.isfinite(bound) else bound


def _to_bytes(real: NDArray[Any], kind: Any, zero: int) -> NDArray[Any]:
    bounds = np.iinfo(kind)
    return np.clip(np.rint(real).astype(np.float64) + zero, bounds.min, bounds.max).astype(kind)


def _short(ratio: np.float64) -> np.float32:
    mantissa, exponent = np.frexp(ratio)
    return np.float32(np.ldexp(np.rint(mantissa * 2.0**16) / 2.0**16, exponent))


def _quantise(value: Any, scale: np.float32, zero: int, kind: Any) -> Bytes:
    if isinstance(value, Bytes):
        if (value.scale, value.zero, value.values.dtype) == (scale, zero, np.dtype(kind)):
            return value
        value = Total((value,))
    if isinstance(value, Sums):
        multipliers = (value.scales / np.float64(scale)).astype(np.float32)
        real = value.values.astype(np.float32) * value.along(multipliers)
        real = np.clip(real, _nearest(value.least, scale), _nearest(value.most, scale))
    elif isinstance(value, Total):
        # Each product is exact in float32, and so in float64 too; their sum is rounded to float32 once.
        terms = [p.steps * np.float64(_short(np.float64(p.scale) / np.float64(scale))) for p in value.parts]
        real = np.float32(sum(terms))
        real = np.clip(real, _nearest(value.least, scale), _nearest(value.most, scale))
    elif isinstance(value, list):
        values = [_quantise(part, scale, zero, kind).values for part in value]
        return Bytes(np.concatenate(values, axis=1), scale, zero)
    else:
        real = value / scale
    return Bytes(_to_bytes(real, kind, zero), scale, zero)


def _windows(data: NDArray[Any], kernel: Any, attributes: dict[str, Any], fill: int) -> NDArray[Any]:
    """Give ``(n, c, oh, ow, kh, kw)``."""
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    data = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    dilate = attributes.get("dilations", [1, 1])
    down, across = attributes.get("strides", [1, 1])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilate, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(data, reach, axis=(2, 3))
    return view[:, :, ::down, ::across, :: dilate[0], :: dilate[1]]


def _convolve(data: Bytes, weight: Any, attributes: dict[str, Any]) -> Sums:
    values, scales = weight
    windows = _windows(data.steps, values.shape[2:], attributes, 0)
    if attributes.get("group", 1) == 1:
        sums = np.tensordot(windows, values.astype(np.int64), axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    else:
        sums = np.einsum("nchwij,cij->nchw", windows, values[:, 0].astype(np.int64))
    return Sums(sums, np.float64(data.scale) * scales.astype(np.float64))


def _bias(sums: Sums, bias: Any) -> Sums:
    """Add a bias that is stored with the scales of the sums as it is; any other is rounded to their steps."""
    if isinstance(bias, tuple) and np.allclose(bias[1], sums.scales, rtol=1e-5, atol=0):
        steps = bias[0].astype(np.int64)
    else:
        real = bias[0].astype(np.float32) * bias[1] if isinstance(bias, tuple) else bias
        steps = np.rint(real.astype(np.float64) / sums.scales).astype(np.int64)
    return replace(sums, values=sums.values + sums.along(steps))


def _mean(data: Bytes, kernel: Any, attributes: dict[str, Any]) -> Sums:
    sums = _windows(data.steps, kernel, attributes, 0).sum(axis=(4, 5))
    channels = data.values.shape[1]
    return Sums(sums, np.full(channels, np.float64(data.scale) / np.prod(kernel)))


def _dequantise(x: Any, scale: NDArray[Any], zero: NDArray[Any]) -> Any:
    """Bytes that were rounded stay what they are; stored integers keep a scale for each entry of the first axis."""
    return x if isinstance(x, Bytes) else (x, np.broadcast_to(scale.reshape(-1), x.shape[:1]))


def _dense(x: Bytes, weight: Any, bias: Any) -> Sums:
    rows = x.steps @ weight[0].astype(np.int64).T
    return _bias(Sums(rows, np.float64(x.scale) * weight[1].astype(np.float64)), bias)


def _clip(x: Any, low: float = -np.inf, high: float = np.inf) -> Any:
    if isinstance(x, np.ndarray):
        return np.clip(x, low, high)
    x = Total((x,)) if isinstance(x, Bytes) else x
    return replace(x, least=max(x.least, float(low)), most=min(x.most, float(high)))


def _maximum(x: Bytes, kernel: Any, attributes: dict[str, Any]) -> Bytes:
    windows = _windows(x.values, kernel, attributes, np.iinfo(x.values.dtype).min)
    return replace(x, values=windows.max(axis=(4, 5)))


def _softmax(x: Any) -> NDArray[np.float32]:
    real = x.real().astype(np.float64)
    powers = np.exp(real - real.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def _flat(x: Bytes) -> Bytes:
    return replace(x, values=x.values.reshape(len(x.values), -1))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": lambda _, x, scale, zero: _quantise(x, np.float32(scale), int(zero), zero.dtype),
    "DequantizeLinear": lambda _, x, scale, zero: _dequantise(x, scale, zero),
    "Conv": lambda a, x, w, *bias: _bias(_convolve(x, w, a), bias[0]) if bias else _convolve(x, w, a),
    "Gemm": lambda _, x, w, bias: _dense(x, w, bias),
    "Relu": lambda _, x: _clip(x, 0.0),
    "Clip": lambda _, x, low, high: _clip(x, low, high),
    "Add": lambda _, x, y: Total((x, y)),
    "Concat": lambda _, *parts: list(parts),
    "MaxPool": lambda a, x: _maximum(x, a["kernel_shape"], a),
    "AveragePool": lambda a, x: _mean(x, a["kernel_shape"], a),
    "GlobalAveragePool": lambda _, x: _mean(x, x.values.shape[2:], {}),
    "Flatten": lambda _, x: _flat(x),
    "Reshape": lambda _, x, shape: _flat(x),
    "Softmax": lambda _, x: _softmax(x),
}


def reference(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a QDQ network on one image, integer arithmetic wherever operators are surrounded by bytes."""
    values: dict[str, Any] = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    values[model.graph.input[0].name] = image
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        operands = [values[name] for name in node.input if name]
        values[node.output[0]] = _OPERATORS[node.op_type](attributes, *operands)
    result = values[model.graph.output[0].name]
    return (result if isinstance(result, np.ndarray) else result.real()).reshape(-1)


def assert_as_the_reference(entry: Entry, target: dict[str, Any] | None = None, seed: int = 0) -> Compiled:
    """Compare a compiled network with the reference bit for bit, and give what was compiled."""
    network = Network(entry)
    image = np.random.default_rng(seed).normal(size=network.shape(network.input)).astype(np.float32)
    expected = reference(entry.model, image)
    found, artefact = compiled(entry, target)
    assert len(np.unique(expected)) > min(8, expected.size // 2), "a reference that says little"
    np.testing.assert_array_equal(artefact.run(entry.name, image).reshape(-1), expected)
    return found
