"""Low rank: a layer as two thinner ones.

The filters of a convolution are a matrix [output][input·row·column]; of rank r, it is a convolution of r
filters of the old size followed by a 1x1 convolution: Denton, Zaremba, Bruna, LeCun and Fergus, *Exploiting
linear structure within convolutional networks for efficient evaluation* (NIPS 2014); Jaderberg, Vedaldi and
Zisserman, *Speeding up convolutional neural networks with low rank expansions* (BMVC 2014). What is kept is
not the largest part of the weights but of the outputs, as in Zhang, Zou, He and Sun, *Accelerating very deep
convolutional networks* (PAMI 2016), section 3.1: the subspace of the outputs' covariance W·Cov(inputs)·Wᵀ,
with a bias that leaves their mean as it was; section 3.2, the responses behind the activation, is had by turns of
fitting the weights to what counts (`planner.refit.Aim`) and factorising them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement, shifted
from planner.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.linear import Linear, Moments

    Factors = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "factorise", "offer", "rank_of"]

KIND = "structure"
CHOICES = ("lowrank@0.75", "lowrank@0.5", "lowrank@0.35", "lowrank@0.25")
ON_REQUEST = ("lowrank@0.75", "lowrank@0.35")

_FEW_SAMPLES = 0.3
_MOST = 0.5
_ROUNDS = 4


def rank_of(outputs: int, depth: int, share: float) -> int:
    """Return the largest rank at which two thin layers cost no more than a share of the one they replace.

    Rank r costs r·(outputs + depth) products where there were outputs·depth.

    >>> rank_of(64, 576, 0.5)
    28
    """
    return int(share * outputs * depth / (outputs + depth))


def offer(view: LayerView) -> Offer:
    """Offer the shares whose ranks differ, except for layers known not to bear it."""
    linear = view.linear
    if linear is None:
        return Offer(reason=f"{view.op} has no weights that could be factorised")
    if linear.groups != 1:
        return Offer(reason=f"it has {linear.groups} groups; each is thin already")
    if view.last:
        return Offer(reason="it is the classifier, whose outputs are the result")
    if view.first and view.is_conv:
        return Offer(reason="it is the first convolution, which costs much accuracy and little time")
    ranks: dict[int, str] = {}
    for name in sorted(CHOICES, key=ON_REQUEST.__contains__):  # of one rank, the name that need not be asked for
        ranks.setdefault(rank_of(linear.outputs, linear.depth, _share(name)), name)
    ranks.pop(0, None)
    if not ranks:
        return Offer(reason=f"{linear.outputs} x {linear.depth} weights are too few: the rank would be 0")
    return Offer(choices=tuple(name for name in CHOICES if name in ranks.values()))


def factorise(linear: Linear, moments: Moments, rank: int) -> Factors:
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


def _fitted(context: Context, rank: int) -> Factors:
    """Factorise a layer, by turns with a fit of its weights to what counts behind the activation."""
    found = factorise(context.linear, context.statistics(), rank)
    if not context.epilogue.bounded:
        return found
    aim, exact = context.aim(), context.biased
    for _ in range(_ROUNDS):
        expand, reduce, bias = found
        now = replace(exact, weight=(expand @ reduce).reshape(exact.weight.shape), bias=bias)
        found = factorise(aim.step(exact, now), aim.moments, rank)
    return found


def apply(context: Context, choice: str) -> Replacement:
    """Replace the anchor by two of its kind, of the rank that leaves the named share of its work."""
    from onnx import helper

    anchor, linear = context.anchor, context.linear
    rank = rank_of(linear.outputs, linear.depth, _share(choice))
    expand, reduce, bias = _fitted(context, rank)
    name = context.view.name
    middle = f"{name}.reduced"
    first = type(anchor)()
    first.CopyFrom(anchor)
    first.name = f"{name}.reduce"
    del first.input[1:]
    first.input.append(f"{name}.reduce.weight")
    first.output[0] = middle
    shape = (linear.outputs, rank, 1, 1) if linear.is_conv else (linear.outputs, rank)
    values: dict[str, Any] = {"kernel_shape": [1, 1]} if linear.is_conv else {"transB": 1}
    second = helper.make_node(
        anchor.op_type,
        [middle, f"{name}.expand.weight"],
        [anchor.output[0]],
        name=f"{name}.expand",
        **({} if linear.transposed else values),
    )
    reduce, expand = reduce.reshape(rank, *linear.weight.shape[1:]), expand.reshape(shape)
    weights = (reduce.T, expand.T) if linear.transposed else (reduce, expand)
    arrays = {
        f"{name}.{role}.weight": np.ascontiguousarray(w) for role, w in zip(("reduce", "expand"), weights, strict=True)
    }
    if not linear.transposed:
        second.input.append(f"{name}.expand.bias")
        return Replacement(nodes=(first, second), arrays={**arrays, f"{name}.expand.bias": bias})
    return shifted(Replacement(nodes=(first, second), arrays=arrays), bias)


def _share(choice: str) -> float:
    return float(choice.partition("@")[2])
