"""Low rank: a layer as two thinner ones.

The filters of a convolution are a matrix [output][input·row·column]; of rank r, it is a convolution of r
filters of the old size followed by a 1x1 convolution: Denton, Zaremba, Bruna, LeCun and Fergus, *Exploiting
linear structure within convolutional networks for efficient evaluation* (NIPS 2014); Jaderberg, Vedaldi and
Zisserman, *Speeding up convolutional neural networks with low rank expansions* (BMVC 2014). What is kept is
not the largest part of the weights but of the outputs, as in Zhang, Zou, He and Sun, *Accelerating very deep
convolutional networks* (PAMI 2016), section 3.1: the subspace of the outputs' covariance W·Cov(inputs)·Wᵀ,
with a bias that leaves their mean as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.linear import Linear, Moments

__all__ = ["CHOICES", "KIND", "apply", "factorise", "offer", "rank_of"]

KIND = "structure"
CHOICES = ("lowrank@0.5", "lowrank@0.25")

_FEW_SAMPLES = 0.3
_MOST = 0.5


def rank_of(outputs: int, depth: int, share: float) -> int:
    """Return the largest rank at which two thin layers cost no more than a share of the one they replace.

    Rank r costs r·(outputs + depth) products where there were outputs·depth.

    >>> rank_of(64, 576, 0.5)
    28
    """
    return int(share * outputs * depth / (outputs + depth))


def offer(view: LayerView) -> Offer:
    """Offer both shares, except where the rank would be 0 and for layers known not to bear it."""
    linear = view.linear
    if linear is None:
        return Offer(reason=f"{view.op} has no weights that could be factorised")
    if linear.groups != 1:
        return Offer(reason=f"it has {linear.groups} groups; each is thin already")
    if view.last:
        return Offer(reason="it is the classifier, whose outputs are the result")
    if view.first and view.is_conv:
        return Offer(reason="it is the first convolution, which costs much accuracy and little time")
    choices = tuple(name for name in CHOICES if rank_of(linear.outputs, linear.depth, _share(name)) >= 1)
    return Offer(choices=choices) if choices else Offer(reason=f"{linear.outputs} x {linear.depth} is too small")


def factorise(
    linear: Linear, moments: Moments, rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Factorise a layer's weights so that its outputs keep as much of their variance as rank r allows.

    Args:
        linear: The layer, of one group.
        moments: Moments of its inputs.
        rank: The rank r.

    Returns:
        ``(expand, reduce, bias)``: ``[output][r]``, ``[r][product]`` and ``[output]``; expand·reduce
        approximates the weights. Where there are few samples for the number of products, as in dense layers,
        the covariance of the outputs is shrunk toward the one that white inputs would give, which is the
        plain singular value decomposition.

    Raises:
        InputError: The rank is below 1 or above the number of outputs.
    """
    if not 1 <= rank <= linear.outputs:
        raise InputError(f"rank {rank} of a layer of {linear.outputs} outputs; expected 1 to {linear.outputs}")
    weights = linear.matrix.astype(np.float64)
    spread = weights @ moments.covariance[0] @ weights.T
    if moments.rows <= moments.images:
        white = weights @ weights.T
        shrink = min(_MOST, _FEW_SAMPLES * linear.depth / moments.rows)
        spread = (1 - shrink) * spread + shrink * white * (np.trace(spread) / max(np.trace(white), 1e-30))
    basis = np.linalg.eigh(spread)[1][:, ::-1][:, :rank]
    reduce = basis.T @ weights
    bias = np.zeros(linear.outputs) if linear.bias is None else linear.bias.astype(np.float64)
    bias = bias + (weights - basis @ reduce) @ moments.mean[0]
    return basis.astype(np.float32), reduce.astype(np.float32), bias.astype(np.float32)


def apply(context: Context, choice: str) -> Replacement:
    """Replace the anchor by two of its kind, of the rank that leaves the named share of its work."""
    from onnx import helper

    anchor, linear = context.anchor, context.linear
    rank = rank_of(linear.outputs, linear.depth, _share(choice))
    expand, reduce, bias = factorise(linear, context.statistics(), rank)
    name = context.view.name
    middle = f"{name}.reduced"
    first = type(anchor)()
    first.CopyFrom(anchor)
    first.name = f"{name}.reduce"
    del first.input[1:]
    first.input.append(f"{name}.reduce.weight")
    first.output[0] = middle
    shape = (linear.outputs, rank, 1, 1) if linear.is_conv else (linear.outputs, rank)
    second = helper.make_node(
        anchor.op_type,
        [middle, f"{name}.expand.weight", f"{name}.expand.bias"],
        [anchor.output[0]],
        name=f"{name}.expand",
        **({"kernel_shape": [1, 1]} if linear.is_conv else {"transB": 1}),
    )
    return Replacement(
        nodes=(first, second),
        arrays={
            f"{name}.reduce.weight": reduce.reshape(rank, *linear.weight.shape[1:]),
            f"{name}.expand.weight": np.ascontiguousarray(expand.reshape(shape)),
            f"{name}.expand.bias": bias,
        },
    )


def _share(choice: str) -> float:
    return float(choice.partition("@")[2])
