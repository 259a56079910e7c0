"""What becomes of an anchor's output inside its own layer: what is added to it, and what is cut off.

A fit that knows this asks for no more than matters: a sum that is right, and only where the activation lets it through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

__all__ = ["Epilogue", "epilogue_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Epilogue:
    """Say what follows an anchor before anybody else reads it.

    Attributes:
        addend: Tensor from another layer that is added to the anchor's output, or None.
        low: Values of the sum below this are all the same to whoever reads it.
        high: Values of the sum above this are, too.

    >>> Epilogue(low=0.0).bounded
    True
    """

    addend: str | None = None
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.low < self.high:
            raise ValueError(f"an activation between {self.low} and {self.high}; expected the first to be less")

    @property
    def bounded(self) -> bool:
        """Whether anything is cut off."""
        return not (math.isinf(self.low) and math.isinf(self.high))


def epilogue_of(
    nodes: Sequence[onnx.NodeProto],
    readers: Mapping[str, int],
    arrays: Mapping[str, NDArray[Any]],
) -> Epilogue:
    """Read the epilogue of a layer as far as it is a sum, a ``Relu`` or a ``Clip``, in this order.

    Args:
        nodes: The layer's nodes, anchor first.
        readers: How many inputs of nodes of the network each tensor is, the network's output counted as one.
        arrays: The network's constants.

    Returns:
        The epilogue. What else there is ends it: from there on every value counts.
    """
    following = {name: node for node in nodes[1:] for name in node.input}
    made = {name for node in nodes for name in node.output}
    tensor, addend = nodes[0].output[0], None
    node = following.get(tensor)
    if node is not None and node.op_type == "Add" and readers[tensor] == 1:
        other = next((name for name in node.input if name != tensor), tensor)
        if other in arrays or other in made:
            return Epilogue()
        tensor, addend = node.output[0], other
        node = following.get(tensor)
    if node is None or readers[tensor] != 1:
        return Epilogue(addend=addend)
    if node.op_type == "Relu":
        return Epilogue(addend=addend, low=0.0)
    bounds = list(node.input[1:]) if node.op_type == "Clip" else []
    if node.op_type == "Clip" and all(not name or name in arrays for name in bounds):
        values = [float(arrays[name]) if name else None for name in [*bounds, "", ""][:2]]
        low, high = (-math.inf if values[0] is None else values[0]), (math.inf if values[1] is None else values[1])
        if low < high:
            return Epilogue(addend=addend, low=low, high=high)
    return Epilogue(addend=addend)
