"""Storing the weights of whatever stands for a layer's anchor as codes of few bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.approximations.base import Context, Replacement
from planner.errors import InputError
from planner.execution import run_nodes
from planner.linear import Linear, linear_of, moments
from planner.storage.rounding import Problem, Rounded, Steps, fitted_codebook, fitted_steps, rounded, shift

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from planner.layering import Shape
    from planner.linear import Moments
    from planner.storage.coded_weights import Coded
    from planner.storage.power_weights import Powers

__all__ = ["FEWEST_INPUTS", "as_codes", "clustered", "in_steps", "reason_against"]

FEWEST_INPUTS = 16
"""Inputs below which scales and filling take back what is saved."""
_WORD = 4
"""Input channels that kernels of bytes read together."""
_BLOCK = 16
"""Input channels in a block of such kernels."""
_LARGEST = {4: 15, 3: 31, 2: 63}
"""Greatest multiplier of numbers of so many bits: the product fits 8 bits."""


def reason_against(linear: Linear | None, op: str, form: str) -> str:
    """Say why a layer's weights are not stored as codes of few bits; nothing where they can be.

    Args:
        linear: The layer's weights.
        op: Its operator.
        form: What the codes are called.
    """
    if linear is None:
        return f"{op} has no weights that could be stored as {form}"
    if linear.transposed:
        return f"kernels read {form} of convolutions and of Gemm, and it is {op}"
    if linear.groups > 1:
        return f"its channels fall into {linear.groups} groups, and kernels read {form} in one only"
    inputs = linear.weight.shape[1]
    if inputs < FEWEST_INPUTS:
        return f"of {inputs} inputs, scales would take more bytes than are saved; {FEWEST_INPUTS} are needed"
    return ""


def in_steps(linear: Linear, found: Moments, positions: int, *, bits: int, block: int) -> Coded:
    """Round weights to whole numbers of few bits, times a multiplier for each group of inputs and a scale an output.

    Args:
        linear: The weights.
        found: Moments of their inputs.
        positions: Places of a map in each channel that was flattened to inputs; 1 where none was.
        bits: 2 to 4.
        block: Input channels in a group, at each place of the kernel; the last may have fewer. Of a flattened map,
            a group has all places of as many channels as come near to that, in fours.
    """
    from planner.storage.coded_weights import Coded

    if positions > 1:
        block = _WORD * positions * max(1, round(block / (_WORD * positions)))
    problem = Problem.of(linear.matrix, found)
    channels, taps = linear.weight.shape[1], linear.depth // linear.weight.shape[1]
    count = -(-channels // block)
    groups = (np.arange(channels) // block)[:, None] * taps + np.arange(taps)
    steps, scale = fitted_steps(problem, groups.reshape(-1), bits=bits, largest=_LARGEST[bits])
    result = rounded(problem, steps, scale)
    shape = linear.weight.shape
    multipliers = steps.multipliers.reshape(shape[0], count, *shape[2:]).astype(np.uint8)
    grouped = count * taps > 1
    return Coded(
        codes=(_counted(result, steps) + (1 << (bits - 1))).astype(np.uint8).reshape(shape),
        bits=bits,
        scale=result.scale.astype(np.float32),
        multipliers=multipliers if grouped else None,
        block=block if grouped else 0,
    )


def _counted(result: Rounded, steps: Steps) -> NDArray[np.int64]:
    """Take multipliers out of whole numbers."""
    return result.whole // steps.multipliers[:, steps.groups]


def clustered(linear: Linear, found: Moments, positions: int, *, bits: int) -> Coded:
    """Round weights to the entries of one table a layer, times a scale an output.

    Args:
        linear: The weights.
        found: Moments of their inputs.
        positions: Of no importance here.
        bits: Of a code; the table has 2 to that power of entries.
    """
    from planner.storage.coded_weights import Coded

    problem = Problem.of(linear.matrix, found)
    # Kernels of bytes fill channels up to whole blocks, with weights of 0.
    book, scale = fitted_codebook(problem, 1 << bits, with_zero=linear.weight.shape[1] % _BLOCK != 0)
    result = rounded(problem, book, scale)
    return Coded(
        codes=book.codes(result.whole.astype(np.float64)).astype(np.uint8).reshape(linear.weight.shape),
        bits=bits,
        scale=result.scale.astype(np.float32),
        table=book.levels.astype(np.int8),
    )


def as_codes(context: Context, encode: Callable[[Linear, Moments, int], Coded | Powers | None]) -> Replacement:
    """Store the weights of whatever stands for an anchor as codes, and put what that does to means into the bias.

    After Nagel, van Baalen, Blankevoort and Welling, *Data-free quantization through weight equalization and bias
    correction* (ICCV 2019), section 4.2, with the means of the layer's present inputs.

    Args:
        context: The layer.
        encode: Gives the codes of weights whose inputs have such moments, and are so many places of each channel; None
            where they had better stay.

    Returns:
        The replacement, with operators that widen the weights in front of each node that reads them.
    """
    arrays: dict[str, NDArray[Any]] = dict(context.replacement.arrays)
    nodes: list[onnx.NodeProto] = []
    for node in context.replacement.nodes:
        linear = linear_of(node, arrays) if len(node.input) > 1 else None
        if linear is None or reason_against(linear, node.op_type, "codes"):
            nodes.append(node)
            continue
        if not np.isfinite(linear.weight).all():
            raise InputError(
                f"layer {context.view.name!r}: its weights hold NaN or infinite values; expected finite ones"
            )
        found = _moments(context, Replacement(nodes=(*nodes, node), arrays=arrays), linear)
        coded = encode(linear, found, 1 if nodes else context.view.positions)
        if coded is None:
            nodes.append(node)
            continue
        weight = node.input[1]
        copy = type(node)()
        copy.CopyFrom(node)
        widened, constants = coded.written(weight, f"{weight}.float32")
        copy.input[1] = f"{weight}.float32"
        bias = np.zeros(linear.outputs, np.float32) if linear.bias is None else linear.bias
        if linear.bias is None:
            del copy.input[2:]
            copy.input.append(f"{node.name}.bias")
        change = shift(linear.matrix, coded.values.reshape(linear.matrix.shape).astype(np.float64), found)
        arrays |= {**constants, copy.input[2]: (bias + change).astype(np.float32)}
        del arrays[weight]
        nodes += [*widened, copy]
    return replace(context.replacement, nodes=tuple(nodes), arrays=arrays)


def _moments(context: Context, so_far: Replacement, linear: Linear) -> Moments:
    """Give the moments of what the last of some nodes reads, behind those whose weights are codes already."""
    node, anchor = so_far.nodes[-1], context.linear
    walks = (linear.weight.shape[1:], linear.pads, linear.dilations, linear.groups)
    first = len(so_far.nodes) == 1
    if first and walks == (anchor.weight.shape[1:], anchor.pads, anchor.dilations, anchor.groups):
        return context.statistics()
    inputs = context.present
    if not first:
        source = node.input[0]
        made = {name for item in so_far.nodes for name in item.output}
        read = {name for item in so_far.nodes for name in item.input if name}
        (feed,) = read - made - set(so_far.arrays)
        if source != feed:
            found = run_nodes(
                so_far.nodes[:-1], so_far.arrays, {feed: inputs}, [source], opset=context.opset, batch=context.batch
            )
            inputs = found[source]
    return moments(linear, inputs, output_shape=_output_shape(linear, inputs.shape), limit=context.rows)


def _output_shape(linear: Linear, shape: Shape) -> Shape:
    """Give the shape of what a layer writes at batch 1."""
    if not linear.is_conv:
        return (1, linear.outputs)
    top, left, bottom, right = linear.pads
    padded = (shape[2] + top + bottom, shape[3] + left + right)
    reach = [(size - 1) * step + 1 for size, step in zip(linear.weight.shape[2:], linear.dilations, strict=True)]
    rows, columns = ((size - taps) // step + 1 for size, taps, step in zip(padded, reach, linear.strides, strict=True))
    return (1, linear.outputs, rows, columns)
