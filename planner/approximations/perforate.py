"""Perforation: a convolution computes every second row of its output, and the rows between are interpolated.

Figurnov, Ibraimova, Vetrov and Kohli, *PerforatedCNNs: acceleration through elimination of redundant
convolutions* (NIPS 2016), with the mask of a regular grid of rows, and linear interpolation instead of the
nearest computed value.
"""

from __future__ import annotations

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement

__all__ = ["CHOICES", "KIND", "apply", "offer"]

KIND = "structure"
CHOICES = ("perforate@rows",)

_LEAST_ROWS = 4


def offer(view: LayerView) -> Offer:
    """Offer rows for every convolution of at least four output rows."""
    if not view.is_conv:
        return Offer(reason=f"{view.op} is no 2-D convolution with constant weights")
    if view.output_shape[2] < _LEAST_ROWS:
        return Offer(reason=f"its output has {view.output_shape[2]} rows; at least {_LEAST_ROWS} are needed")
    return Offer(choices=CHOICES)


def apply(context: Context, choice: str) -> Replacement:
    """Double the anchor's stride over rows, and restore the height by one linear ``Resize``.

    Of an even height 2m, rows 0, 2, ... are computed and the last row repeats the one before (``asymmetric``,
    scale 2). Of an odd height 2m - 1 the last row is computed as well (``align_corners``).
    """
    from onnx import helper

    anchor, linear, name = context.anchor, context.linear, context.view.name
    height = context.view.output_shape[2]
    computed = -(-height // 2)
    values = {item.name: helper.get_attribute_value(item) for item in anchor.attribute}
    values["strides"] = [2 * linear.strides[0], linear.strides[1]]
    conv = helper.make_node("Conv", list(anchor.input), [f"{name}.rows"], name=f"{name}.perforated", **values)
    # Halfway between height and height + 1, so that rounding down gives the height whatever the precision.
    scale = 2.0 if height % 2 == 0 else (height + 0.5) / computed
    resize = helper.make_node(
        "Resize",
        [f"{name}.rows", "", f"{name}.scales"],
        [anchor.output[0]],
        name=f"{name}.interpolate",
        mode="linear",
        coordinate_transformation_mode="asymmetric" if height % 2 == 0 else "align_corners",
    )
    scales = np.array([1.0, 1.0, scale, 1.0], np.float32)
    return Replacement(nodes=(conv, resize), arrays={**context.replacement.arrays, f"{name}.scales": scales})
