"""Convolutions and matrix products as what they have in common: rows of inputs times a matrix of weights.

A convolution is a matrix product over its output positions (im2col). Sums over positions are taken over a
deterministic sample of them, so that they cost a fraction of a second whatever the size of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.draft import attributes
from planner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from planner.layering import Shape

__all__ = [
    "ROWS",
    "WEIGHTED",
    "Linear",
    "Moments",
    "input_rows",
    "linear_of",
    "moments",
    "output_rows",
    "sample",
    "unfit",
    "values_at",
]

_BLOCK = 4096
ROWS = 30_000
"""Positions that sums are taken over unless fewer are asked for."""
_WORK = 2e10
_DIMENSIONS = {"Conv": 4, "Gemm": 2, "MatMul": 2}
"""Dimensions of the weights that operators multiply their inputs with."""
WEIGHTED = frozenset({*_DIMENSIONS, "ConvTranspose"})
"""Operators that have weights as a rule."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """Hold the weights of a convolution or a matrix product, and how it walks over its input.

    Attributes:
        weight: float32, ``[output][input][row][column]`` for a convolution, ``[output][input]`` for a
            product.
        bias: float32 ``[output]``, or None.
        strides: Rows and columns from one output position to the next.
        pads: Zeros around the input: top, left, bottom, right.
        dilations: Rows and columns from one tap of the kernel to the next.
        groups: Number of groups that the channels fall into.
        transposed: Whether the network holds the weights as ``[input][output]``, as a ``MatMul`` does.

    >>> Linear(weight=np.ones((8, 4), np.float32), bias=None).depth
    4
    """

    weight: Float32 = field(repr=False)
    bias: Float32 | None = field(repr=False)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        """Check the weights' shape against the bias and the groups."""
        if self.weight.ndim not in {2, 4} or self.weight.dtype != np.float32:
            raise InputError(
                f"weights are {self.weight.dtype} of shape {self.weight.shape}; expected float32, "
                "[output][input] or [output][input][row][column]"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise InputError(f"the bias has shape {self.bias.shape}; expected {self.weight.shape[:1]}")
        if self.transposed and (self.is_conv or self.groups != 1):
            raise InputError(f"weights of shape {self.weight.shape} are held transposed; expected [output][input]")
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise InputError(f"{self.weight.shape[0]} output channels do not fall into {self.groups} groups")

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim != 2

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0])

    @property
    def depth(self) -> int:
        """Products summed for one output value."""
        return prod(self.weight.shape[1:])

    @property
    def matrix(self) -> Float32:
        """The weights as ``[output][product]``."""
        return self.weight.reshape(self.outputs, -1)


def linear_of(node: onnx.NodeProto, arrays: Mapping[str, NDArray[np.generic]]) -> Linear | None:
    """Return the constant float32 weights of a 2-D ``Conv``, of ``Gemm`` as x·Wᵀ + b, or of ``MatMul`` by a matrix.

    Args:
        node: A node of a folded network.
        arrays: The network's constants.

    Returns:
        The weights, or None where the node is something else; `unfit` says what.
    """
    if unfit(node, arrays):
        return None
    constants = [name for name in node.input[1:] if name]
    values = attributes(node)
    weight = arrays[node.input[1]].astype(np.float32, copy=False)
    bias = arrays[constants[1]].astype(np.float32, copy=False) if len(constants) > 1 else None
    if node.op_type == "MatMul":
        return Linear(weight=np.ascontiguousarray(weight.T), bias=None, transposed=True)
    if node.op_type == "Gemm":
        return Linear(weight=weight, bias=bias)
    strides, pads = values.get("strides", (1, 1)), values.get("pads", (0, 0, 0, 0))
    dilations = values.get("dilations", (1, 1))
    return Linear(
        weight=weight,
        bias=bias,
        strides=(strides[0], strides[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        dilations=(dilations[0], dilations[1]),
        groups=values.get("group", 1),
    )


def unfit(
    node: onnx.NodeProto,
    arrays: Mapping[str, NDArray[np.generic]],
    readers: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Say why a node has no weights that can be changed; nothing where it has.

    Args:
        node: A node of a folded network.
        arrays: The network's constants.
        readers: Names of the nodes that read each constant, where it matters who else does.
    """
    if node.op_type not in _DIMENSIONS or len(node.input) < 2:
        return f"{node.op_type} has no weights of rows of inputs"
    constants = [name for name in node.input[1:] if name]
    if any(name not in arrays for name in constants):
        return f"the weights of {node.op_type} are no constant"
    if node.input[0] in arrays:
        return f"{node.op_type} multiplies a constant from the left"
    weight, dimensions = arrays[constants[0]], _DIMENSIONS[node.op_type]
    if weight.dtype != np.float32 or weight.ndim != dimensions:
        found = f"{weight.dtype} of {weight.ndim} dimensions"
        return f"the weights of {node.op_type} are {found}; expected float32 of {dimensions}"
    if node.op_type == "Gemm":
        plain = attributes(node) == {"transB": 1}
        if not plain or (len(constants) > 1 and arrays[constants[1]].shape != weight.shape[:1]):
            return "Gemm does more than multiply rows with weights and add a bias to each output"
    for name in constants:
        others = sorted({reader for reader in (readers or {}).get(name, ()) if reader != node.name})
        if others:
            return f"its constant {name!r} is read by {', '.join(others)} too"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Hold second moments of a layer's inputs, the constant 1 of the bias being the last of them.

    Attributes:
        gram: float64 ``[group][product][product]``, the mean over rows of u·uᵀ, u = (its inputs, 1).
        cross: float64 ``[group][output][product]``, the mean of y·uᵀ for target outputs y, or None without
            targets.
        rows: Number of rows sampled.
        images: Number of images they come from.

    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    >>> moments(Linear(weight=np.ones((1, 2), np.float32), bias=None), x).gram[0][-1].tolist()
    [2.0, 3.0, 1.0]
    """

    gram: Float64 = field(repr=False)
    cross: Float64 | None = field(repr=False)
    rows: int
    images: int

    def __post_init__(self) -> None:
        """Check that there is one square matrix a group."""
        if self.gram.ndim != 3 or self.gram.shape[1] != self.gram.shape[2] or self.rows < 1:
            raise InputError(f"the gram has shape {self.gram.shape} of {self.rows} rows; expected (groups, d, d)")

    @property
    def mean(self) -> Float64:
        """Mean of the inputs, ``[group][product]``, without the constant."""
        return self.gram[:, -1, :-1]

    @property
    def covariance(self) -> Float64:
        """Covariance of the inputs, ``[group][product][product]``, without the constant."""
        mean = self.mean
        return self.gram[:, :-1, :-1] - mean[:, :, None] * mean[:, None, :]


def sample(linear: Linear, output_shape: Shape, images: int, *, rows: int = ROWS, seed: int = 0) -> NDArray[np.int64]:
    """Choose the output positions that moments are summed over, the same for the same layer and seed.

    Args:
        linear: The layer.
        output_shape: Shape of its output at batch 1.
        images: Number of images.
        rows: How many at most.
        seed: Seed of the choice.

    Returns:
        Positions, counted over images, rows and columns, in ascending order: all of them, or ``rows``, or fewer
        for very deep layers, but not below four times the number of products while that is at most 30,000.
    """
    total = images * prod(output_shape[2:] if linear.is_conv else output_shape[1:-1])
    depth = linear.depth + 1
    limit = min(ROWS, max(min(rows, int(_WORK / depth**2)), 4 * depth))
    if total <= limit:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))


def input_rows(linear: Linear, inputs: Float32, positions: NDArray[np.int64], output_shape: Shape) -> Iterator[Float32]:
    """Yield the inputs of sampled outputs in blocks, ``[group][row][product + 1]``, the last column ones."""
    if not linear.is_conv:
        inputs = inputs.reshape(-1, linear.depth)
        for start in range(0, len(positions), _BLOCK):
            rows = inputs[positions[start : start + _BLOCK]]
            yield np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)[None]
        return
    top, left, bottom, right = linear.pads
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = linear.weight.shape[2:]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, linear.dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: linear.strides[0], :: linear.strides[1], :: linear.dilations[0], :: linear.dilations[1]]
    image, row, column = np.unravel_index(positions, (len(inputs), *output_shape[2:]))
    for start in range(0, len(positions), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = windows[image[part], :, row[part], column[part]]
        rows = np.ones((linear.groups, len(block), linear.depth + 1), np.float32)
        rows[:, :, :-1] = block.reshape(len(block), linear.groups, -1).swapaxes(0, 1)
        yield rows


def output_rows(linear: Linear, inputs: Float32, positions: NDArray[np.int64], output_shape: Shape) -> Float32:
    """Return what a layer gives at the sampled positions, float32 ``[group][row][output]``."""
    weights = linear.matrix.reshape(linear.groups, -1, linear.depth)
    bias = np.zeros(linear.outputs, np.float32) if linear.bias is None else linear.bias
    full = np.concatenate([weights, bias.reshape(linear.groups, -1, 1)], axis=2).swapaxes(1, 2)
    return np.concatenate([rows @ full for rows in input_rows(linear, inputs, positions, output_shape)], axis=1)


def values_at(tensor: Float32, linear: Linear, positions: NDArray[np.int64]) -> Float32:
    """Return a tensor of the shape of a layer's outputs at sampled positions, ``[group][row][output]``.

    Args:
        tensor: The tensor, ``[image][...]``.
        linear: The layer.
        positions: Positions, as `sample` chooses them.
    """
    if not linear.is_conv:
        return tensor.reshape(-1, tensor.shape[-1])[positions][None]
    image, row, column = np.unravel_index(positions, (len(tensor), *tensor.shape[2:]))
    values = tensor[image, :, row, column]
    return np.ascontiguousarray(values.reshape(len(values), linear.groups, -1).swapaxes(0, 1))


def moments(
    linear: Linear,
    inputs: Float32,
    *,
    output_shape: Shape | None = None,
    targets: Float32 | None = None,
    limit: int = ROWS,
) -> Moments:
    """Sum the second moments of a layer's inputs, in float64 over float32 blocks.

    Args:
        linear: The layer.
        inputs: Its inputs, ``[image][...]``.
        output_shape: Shape of its output at batch 1; may be left out for a matrix product.
        targets: What it ought to give at the sampled positions, ``[group][row][output]``, as `output_rows`
            returns.
        limit: How many positions are summed over at most.

    Returns:
        The moments, with the cross moments where there are targets.
    """
    shape = output_shape or (1, linear.outputs)
    positions = sample(linear, shape, len(inputs), rows=limit)
    size = linear.depth + 1
    gram = np.zeros((linear.groups, size, size))
    cross = np.zeros((linear.groups, linear.outputs // linear.groups, size))
    start = 0
    for rows in input_rows(linear, inputs, positions, shape):
        gram += rows.swapaxes(1, 2) @ rows
        if targets is not None:
            cross += targets[:, start : start + rows.shape[1]].swapaxes(1, 2) @ rows
        start += rows.shape[1]
    count = len(positions)
    return Moments(gram=gram / count, cross=None if targets is None else cross / count, rows=count, images=len(inputs))
