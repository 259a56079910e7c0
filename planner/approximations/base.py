"""What an approximation is given, what it hands back, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.epilogue import Epilogue
from planner.errors import InputError
from planner.execution import BATCH, run_nodes
from planner.linear import ROWS, Linear, Moments

if TYPE_CHECKING:
    import onnx

    from planner.layering import Shape
    from planner.refit import Aim

__all__ = [
    "Approximation",
    "Context",
    "LayerView",
    "Offer",
    "Replacement",
    "Stored",
    "corrected",
    "exact",
    "shifted",
    "stored",
]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """Show an approximation a layer before anything runs, so that it can say what it offers.

    Attributes:
        name: Name of the layer.
        op: ONNX operator of its anchor.
        linear: The anchor's weights, or None where it has none.
        input_shape: Shape the anchor reads at batch 1.
        output_shape: Shape the anchor writes at batch 1.
        first: Whether it is the first layer with weights.
        last: Whether it is the last layer with weights, the classifier.
        positions: Places of a map in each channel that was flattened to what the anchor reads; 1 where none was.
        input_shapes: Shapes of all that the anchor reads, constants left out, at batch 1.
        attributes: Attributes of its operator.
        unfit: Why its weights, if it has any, cannot be changed.

    >>> LayerView(
    ...     name="pool1",
    ...     op="MaxPool",
    ...     linear=None,
    ...     input_shape=(1, 8, 4, 4),
    ...     output_shape=(1, 8, 2, 2),
    ...     first=False,
    ...     last=False,
    ... ).is_conv
    False
    """

    name: str
    op: str
    linear: Linear | None = field(repr=False)
    input_shape: Shape
    output_shape: Shape
    first: bool
    last: bool
    positions: int = 1
    input_shapes: tuple[Shape, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    unfit: str = ""

    def __post_init__(self) -> None:
        """Check that the layer has a name."""
        if not self.name:
            raise InputError("a layer without a name; expected the name of its anchor")

    @property
    def is_conv(self) -> bool:
        """Whether the anchor is a 2-D convolution with constant weights."""
        return self.linear is not None and self.linear.is_conv


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Say which choices an approximation offers for a layer, or why it offers none.

    >>> Offer(reason="it has no weights").choices
    ()
    """

    choices: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        """Check that there are choices or a reason, not both."""
        if bool(self.choices) == bool(self.reason):
            raise InputError(f"an offer of {self.choices} with the reason {self.reason!r}; expected one of the two")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replacement:
    """Hold what stands for a layer's anchor: it reads what the anchor read and writes what the anchor wrote.

    Attributes:
        nodes: ONNX nodes in topological order.
        arrays: The constants they read.

    >>> Replacement(nodes=(), arrays={})
    Traceback (most recent call last):
    ...
    planner.errors.InputError: a replacement has no nodes
    """

    nodes: tuple[onnx.NodeProto, ...] = field(repr=False)
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that there are nodes."""
        if not self.nodes:
            raise InputError("a replacement has no nodes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """Hand an approximation a layer with its activations on the calibration images.

    Attributes:
        view: The layer.
        weights: The anchor's weights as they now are: refitted, if anything before the layer changed; None where it
            has none.
        replacement: What stands for the anchor so far: itself, or what an earlier part of a composition made.
        present: What the layer reads in the approximated network, ``[image][...]``.
        exact: What it reads in the exact network, ``[image][...]``.
        statistics: Gives the second moments of ``present``, as rows of the anchor; they are computed once.
        aim: Gives what the layer ought to give, at a sample of its outputs; it is computed once.
        epilogue: What follows the anchor in its layer.
        opset: ONNX operator set of the network.
        batch: Images a call that the network can be run on.
        rows: Positions of its outputs that sums are taken over, at most.
    """

    view: LayerView
    weights: Linear | None = field(repr=False)
    replacement: Replacement
    present: Float32 = field(repr=False)
    exact: Float32 = field(repr=False)
    statistics: Callable[[], Moments] = field(repr=False)
    aim: Callable[[], Aim] = field(repr=False)
    epilogue: Epilogue
    opset: int
    batch: int = BATCH
    rows: int = ROWS

    def __post_init__(self) -> None:
        """Check that present and exact inputs belong to the same images."""
        if self.present.shape != self.exact.shape:
            raise InputError(
                f"layer {self.view.name!r}: present inputs have shape {self.present.shape}, "
                f"exact ones {self.exact.shape}"
            )

    @property
    def linear(self) -> Linear:
        """The anchor's weights.

        Raises:
            InputError: It has none.
        """
        if self.weights is None:
            raise InputError(f"layer {self.view.name!r} has no weights")
        return self.weights

    @property
    def biased(self) -> Linear:
        """The anchor's weights with a bias, of noughts where it has none."""
        linear = self.linear
        return linear if linear.bias is not None else replace(linear, bias=np.zeros(linear.outputs, np.float32))

    @property
    def anchor(self) -> onnx.NodeProto:
        """The anchor's node, for an approximation that replaces it whole.

        Raises:
            InputError: Another approximation has replaced it already.
        """
        if len(self.replacement.nodes) != 1:
            raise InputError(f"layer {self.view.name!r}: its operator has been replaced already")
        return self.replacement.nodes[0]

    @property
    def exact_outputs(self) -> Float32:
        """What the anchor gives in the exact network, ``[image][...]``, computed at each call."""
        if self.view.linear is None:
            raise InputError(f"layer {self.view.name!r} has no weights")
        whole = exact(self.anchor, self.view.linear)
        return self.run(whole, self.exact)

    def run(self, what: Replacement, inputs: Float32) -> Float32:
        """Run a replacement of this layer's anchor on some inputs, ``[image][...]``."""
        source, target = what.nodes, what.nodes[-1].output[0]
        feeds = {name for node in source for name in node.input if name} - set(what.arrays)
        feeds -= {name for node in source for name in node.output}
        (feed,) = feeds
        return run_nodes(source, what.arrays, {feed: inputs}, [target], opset=self.opset, batch=self.batch)[target]


class Approximation(Protocol):
    """The face of a module in this package."""

    KIND: str
    CHOICES: tuple[str, ...]

    def offer(self, view: LayerView) -> Offer:
        """Say which choices apply to a layer, or why none does."""

    def apply(self, context: Context, choice: str) -> Replacement:
        """Return what stands for the layer's anchor under a choice."""


def exact(anchor: onnx.NodeProto, linear: Linear) -> Replacement:
    """Return an anchor as it is, with the given weights in place of its own.

    Args:
        anchor: A ``Conv``, a ``Gemm`` or a ``MatMul``.
        linear: Its weights.

    Returns:
        The anchor itself; its bias is added where it had none and the weights bring one.
    """
    node = type(anchor)()
    node.CopyFrom(anchor)
    if linear.transposed:
        new = Replacement(nodes=(node,), arrays={node.input[1]: np.ascontiguousarray(linear.weight.T)})
        return new if linear.bias is None else shifted(new, linear.bias)
    arrays: dict[str, NDArray[Any]] = {node.input[1]: linear.weight}
    if linear.bias is not None:
        if len(node.input) > 2 and node.input[2]:
            bias = node.input[2]
        else:
            bias = f"{anchor.name}.bias"
            del node.input[2:]
            node.input.append(bias)
        arrays[bias] = linear.bias
    return Replacement(nodes=(node,), arrays=arrays)


def shifted(new: Replacement, shift: NDArray[np.floating[Any]]) -> Replacement:
    """Add something to each output channel of a replacement.

    Args:
        new: The replacement; its last operator with weights gets a bias if it has none. Behind a ``MatMul``, which can
            have none, an ``Add`` follows.
        shift: What is added, ``[output]``.
    """
    from onnx import helper

    nodes, arrays = list(new.nodes), dict(new.arrays)
    index = max(place for place, node in enumerate(nodes) if node.op_type in {"Conv", "Gemm", "MatMul"})
    node = type(nodes[index])()
    node.CopyFrom(nodes[index])
    nodes[index] = node
    if node.op_type == "MatMul":
        bias, target = f"{node.name}.shift", node.output[0]
        following = nodes[index + 1] if index + 1 < len(nodes) else None
        if following is not None and following.op_type == "Add" and bias in following.input:
            arrays[bias] = (arrays[bias] + shift).astype(np.float32)
            return replace(new, nodes=tuple(nodes), arrays=arrays)
        node.output[0] = f"{node.name}.product"
        nodes.insert(index + 1, helper.make_node("Add", [node.output[0], bias], [target], name=f"{node.name}.add"))
        arrays[bias] = np.asarray(shift, np.float32)
    elif len(node.input) > 2 and node.input[2]:
        arrays[node.input[2]] = (arrays[node.input[2]] + shift).astype(np.float32)
    else:
        del node.input[2:]
        node.input.append(f"{node.name}.bias")
        arrays[node.input[2]] = np.asarray(shift, np.float32)
    return replace(new, nodes=tuple(nodes), arrays=arrays)


def corrected(context: Context, new: Replacement, *, like: Replacement, images: int = 256) -> Replacement:
    """Shift a replacement's last bias so that its mean output is that of another one (bias correction).

    After Nagel, van Baalen, Blankevoort and Welling, *Data-free quantization through weight equalization and
    bias correction* (ICCV 2019), section 4.2, with means measured on the layer's present inputs.

    Args:
        context: The layer.
        new: What is corrected.
        like: What has the right means.
        images: How many of the calibration images the means are taken over.

    Returns:
        The corrected replacement.
    """
    present = context.present[:images]
    difference = context.run(like, present).astype(np.float64) - context.run(new, present)
    channel = difference.ndim - 1 if context.linear.transposed else 1
    axes = tuple(axis for axis in range(difference.ndim) if axis != channel)
    return shifted(new, difference.mean(axis=axes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """Say how weights are stored: an operator, and the constants from which it gives them back as float32.

    >>> Stored(op="Cast", constants={"float16": np.zeros(3, np.float16)}, attributes={"to": 1}).op
    'Cast'
    """

    op: str
    constants: Mapping[str, NDArray[Any]] = field(repr=False)
    attributes: Mapping[str, int]

    def __post_init__(self) -> None:
        """Check that there are constants."""
        if not self.constants:
            raise InputError(f"weights stored by {self.op} without constants")


def _turned(form: Stored | None) -> Stored | None:
    """Return how weights are stored as ``[input][output]``, from how they are as ``[output][input]``."""
    if form is None:
        return None
    constants = {role: np.ascontiguousarray(array.T) for role, array in form.constants.items()}
    turned = {key: 1 - value if key == "axis" else value for key, value in form.attributes.items()}
    return replace(form, constants=constants, attributes=turned)


def stored(context: Context, store: Callable[[Float32], Stored | None]) -> Replacement:
    """Store the weights of whatever stands for an anchor in another form, and correct the bias.

    Args:
        context: The layer.
        store: Says how weights, ``[output][input]...``, are stored; None where they had better stay.

    Returns:
        The replacement, with an operator that widens the weights in front of each that reads them.
    """
    from onnx import helper

    before = context.replacement
    arrays: dict[str, NDArray[Any]] = dict(before.arrays)
    nodes = []
    for node in before.nodes:
        name = node.input[1] if len(node.input) > 1 else ""
        weights = node.op_type in {"Conv", "Gemm", "MatMul"} and name in arrays and arrays[name].dtype == np.float32
        form = None
        if weights:
            form = (
                _turned(store(np.ascontiguousarray(arrays[name].T)))
                if node.op_type == "MatMul"
                else store(arrays[name])
            )
        if form is None:
            nodes.append(node)
            continue
        del arrays[name]
        constants = {f"{name}.{role}": array for role, array in form.constants.items()}
        arrays |= constants
        widened, widen = f"{name}.float32", f"{node.name}.{'cast' if form.op == 'Cast' else 'dequantize'}"
        operator = helper.make_node(form.op, list(constants), [widened], name=widen)
        operator.attribute.extend(helper.make_attribute(key, value) for key, value in form.attributes.items())
        nodes.append(operator)
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[1] = widened
        nodes.append(copy)
    new = Replacement(nodes=tuple(nodes), arrays=arrays)
    return corrected(context, new, like=before)
