"""Grouping of a folded network's nodes into layers, and what can be counted about them without running."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING

from planner.draft import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

__all__ = [
    "ELEMENTWISE",
    "Shape",
    "boundaries",
    "bytes_of",
    "group",
    "held_types",
    "in_order",
    "live_bytes",
    "multiply_accumulates",
    "parameters_of",
]

Shape = tuple[int, ...]

ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf"),
        *("Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Mean"),
        *("Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Round"),
        *("Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh"),
        *("ThresholdedRelu"),
    }
)
"""Operators that make each element of their result from the elements at its place."""

_FUSED = ELEMENTWISE | {
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"),
    *("QuantizeLinear", "DequantizeLinear"),
}
"""Elementwise operators, rounding to bytes and back, and what only relabels memory: they join the layer they read."""

_RELABELLING = frozenset({"DequantizeLinear", "Cast", "Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""What is held as it was before: numbers read back from bytes, and the same numbers in another shape."""

_NOT_PARAMETERS = {
    "Resize": (1, 2),
    "Clip": (1, 2),
    "Pad": (2,),
    "Upsample": (1,),
    "Dropout": (1,),
    "Pow": (1,),
}
"""Inputs that are settings of the operator though they are written as floating-point constants."""


_STORED = frozenset({"DequantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv"})
"""Operators whose whole numbers are weights, or what comes with them."""
_TABLED = {"BitShift": 2, "Gather": 3}
"""Type of the whole numbers that codes of weights are shifted out of, or that they choose: uint8 and int8 in ONNX."""


def bytes_of(elements: int, data_type: int) -> int:
    """Return the bytes that a tensor takes, two numbers of 4 bits in each.

    Args:
        elements: Its elements.
        data_type: Their type, as ONNX numbers them.

    >>> bytes_of(7, 22)
    4
    """
    from onnx import TensorProto, helper

    if data_type in {TensorProto.INT4, TensorProto.UINT4}:
        return -(-elements // 2)
    return elements * int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def group(nodes: Sequence[onnx.NodeProto], constants: set[str]) -> list[list[onnx.NodeProto]]:
    """Group nodes into layers: each an anchor followed by its fused epilogue.

    An elementwise node joins the latest of the layers it reads from. Every node of a layer therefore reads
    from that layer and earlier ones only, and the order of the anchors is a topological order of the layers.
    A node that reads constants alone, or what such nodes make, joins the layer that reads it.

    Args:
        nodes: The nodes in topological order.
        constants: Names of the initialisers.

    Returns:
        The nodes of each layer, anchor first.
    """
    layers: list[list[onnx.NodeProto]] = []
    home: dict[str, int] = {}
    waiting: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        reads = [name for name in node.input if name and name not in constants]
        from_constants = all(name in waiting for name in reads)
        before = [item for name in reads for item in waiting.pop(name, ())]
        if from_constants:
            waiting.update({name: [*before, node] for name in node.output})
            continue
        owners = [home[name] for name in reads if name in home]
        if node.op_type in _FUSED and owners:
            index = max(owners)
            layers[index].extend([*before, node])
        else:
            index = len(layers)
            layers.append([node, *before])
        home.update({name: index for item in (*before, node) for name in item.output})
    return layers


def in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Order a layer's nodes so that each comes behind those whose results it reads.

    A layer names its anchor first; what makes the anchor's weights from stored integers has to run before it.
    """
    ordered: list[onnx.NodeProto] = []
    waiting = list(nodes)
    while waiting:
        unmade = {name for node in waiting for name in node.output}
        ordered.extend(node for node in waiting if not unmade.intersection(node.input))
        waiting = [node for node in waiting if unmade.intersection(node.input)]
    return ordered


def boundaries(
    layers: Sequence[Sequence[onnx.NodeProto]], constants: set[str], output_name: str
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return, for each layer, the tensors it reads from outside and those it makes for others.

    Args:
        layers: The nodes of each layer.
        constants: Names of the initialisers.
        output_name: The network's output, which counts as read.

    Returns:
        For each layer its inputs and outputs, each in the order in which they first appear.
    """
    made = [{name for node in nodes for name in node.output if name} for nodes in layers]
    reads = [
        list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in own | constants))
        for nodes, own in zip(layers, made, strict=True)
    ]
    wanted = {name for names in reads for name in names} | {output_name}
    return [
        (
            tuple(names),
            tuple(dict.fromkeys(name for node in nodes for name in node.output if name in wanted)),
        )
        for nodes, names in zip(layers, reads, strict=True)
    ]


def live_bytes(
    ends: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], sizes: Mapping[str, int], output_name: str
) -> list[int]:
    """Return the bytes of the tensors alive while each layer runs: its own, and those live across it.

    Args:
        ends: Inputs and outputs of each layer, in the order in which the layers run.
        sizes: Bytes of every tensor between layers.
        output_name: The network's output, alive to the end.

    Returns:
        Bytes for each layer; a lower bound of what any storage plan needs while it runs.
    """
    born: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, (reads, makes) in enumerate(ends):
        for name in (*reads, *makes):
            born.setdefault(name, step)
            last[name] = step
    last[output_name] = len(ends) - 1
    change: dict[int, int] = defaultdict(int)
    for name, first in born.items():
        change[first] += sizes[name]
        change[last[name] + 1] -= sizes[name]
    alive, total = [], 0
    for step in range(len(ends)):
        total += change[step]
        alive.append(total)
    return alive


def held_types(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, int]) -> dict[str, int]:
    """Return the types in which tensors are held that are no float32: those of quantised numbers.

    What is read back from bytes is held as those bytes: whoever reads it turns them back for itself.

    Args:
        nodes: The nodes in topological order.
        constants: Element type of each initialiser, as ONNX numbers them.

    Returns:
        Types of the tensors that nodes round, and of what others make of these without changing their numbers.
    """
    from onnx import TensorProto

    found: dict[str, int] = {}
    for node in nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            zero = node.input[2] if len(node.input) > 2 else ""
            found[node.output[0]] = constants.get(zero, TensorProto.UINT8)
        elif node.op_type in _RELABELLING and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def multiply_accumulates(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Return one node's multiply-accumulate operations at batch 1: convolutions and matrix products."""
    if node.op_type == "Conv":
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        depth = shapes[node.input[0]][0 if attributes(node).get("transA", 0) else 1]
        return prod(shapes[node.output[0]]) * depth
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


def parameters_of(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, int]) -> tuple[str, ...]:
    """Return the names of the constants that are weights, biases and their scales.

    Args:
        nodes: The nodes that read them.
        constants: Element type of each initialiser, as ONNX numbers them.

    Returns:
        Names in the order of their first use. Shapes, indices, bounds of a clip and scales of a resize are
        settings of an operator and do not count; neither do whole numbers, unless they are weights stored as
        such.
    """
    from onnx import TensorProto

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    found: dict[str, None] = {}
    widened = _from_constants(nodes, constants)
    for node in nodes:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[0] not in {*constants, *widened}:
            continue  # how an activation is rounded is a setting of the kernel that rounds it
        settings = _NOT_PARAMETERS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in constants and index not in settings:
                stored = node.op_type in _STORED or (index == 0 and constants[name] == _TABLED.get(node.op_type))
                if constants[name] in floats or stored:
                    found[name] = None
    return tuple(found)


def _from_constants(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, int]) -> set[str]:
    """Return the tensors that some nodes make from constants alone: weights that are widened."""
    made: set[str] = set()
    for node in in_order(nodes):
        if all(name in constants or name in made for name in node.input if name):
            made.update(node.output)
    return made
