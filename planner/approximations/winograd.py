"""Winograd's algorithm for 3x3 convolutions: fewer multiplications for more bytes, and values equal but for rounding.

Lavin and Gray, *Fast algorithms for convolutional neural networks* (CVPR 2016), F(2x2, 3x3).  The ONNX node stays as it
is and carries a mark; whoever generates code for it transforms the weights, which take 16/9 of the bytes then.  What
runs the network as it stands may ignore the mark.
"""

from __future__ import annotations

from dataclasses import replace

from planner.approximations.base import Context, LayerView, Offer, Replacement
from planner.segments import SCHEDULE, WINOGRAD

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "schedule"
CHOICES = ("winograd",)
ON_REQUEST = True

_CHANNELS = 16
_LEAST_TILES = 9


def offer(view: LayerView) -> Offer:
    """Offer it for convolutions that the kernel takes: 3x3, one group, stride 1, channels in whole blocks of 16."""
    linear = view.linear
    if linear is None or not linear.is_conv:
        return Offer(reason=f"{view.op} is no convolution with constant weights")
    if linear.weight.shape[2:] != (3, 3):
        return Offer(reason=f"its filters are {linear.weight.shape[2]}x{linear.weight.shape[3]}, not 3x3")
    if linear.groups != 1:
        return Offer(reason=f"it has {linear.groups} groups; the transforms cost more than a thin group saves")
    if linear.strides != (1, 1) or linear.dilations != (1, 1):
        return Offer(reason=f"its strides are {linear.strides} and its dilations {linear.dilations}, not 1")
    outputs, inputs = linear.weight.shape[:2]
    if inputs % _CHANNELS or outputs < _CHANNELS:
        return Offer(reason=f"it reads {inputs} and writes {outputs} channels; expected whole blocks of {_CHANNELS}")
    height, width = view.output_shape[2:]
    if -(-height // 2) * -(-width // 2) < _LEAST_TILES:
        return Offer(reason=f"its output of {height}x{width} has too few tiles to pay for larger weights")
    return Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Mark the anchor."""
    node = type(context.anchor)()
    node.CopyFrom(context.anchor)
    node.metadata_props.add(key=SCHEDULE, value=WINOGRAD)
    return replace(context.replacement, nodes=(node,))
