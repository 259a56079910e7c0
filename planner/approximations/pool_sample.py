"""Reduction sampling: a mean is taken over a regular part of its window.

Zhu, Misailovic, Kelner and Rinard, *Randomized accuracy-aware program transformations for efficient approximate
computations* (POPL 2012), and as a knob of networks Sharif et al., *ApproxTuner* (PPoPP 2021), section 2.4. Every
second row is read, or every second row and column: an average pooling with gaps, so that nothing is copied. A line is
fitted to each channel by least squares: a slope below 1 for what sampling adds in variance, and an offset that leaves
the mean as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from planner.approximations.base import Context, LayerView, Offer, Replacement

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["CHOICES", "KIND", "ON_REQUEST", "apply", "offer"]

KIND = "structure"
CHOICES = ("pool_sample@0.5", "pool_sample@0.25")
ON_REQUEST = True

_GAPS = {"pool_sample@0.5": (2, 1), "pool_sample@0.25": (2, 2)}
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_LARGEST = frozenset({"MaxPool", "GlobalMaxPool", "ReduceMax"})
_LEAST = 9
_MAP = 4
_SLOPES = (0.5, 2.0)
_TINY = 1e-12


def offer(view: LayerView) -> Offer:
    """Offer both shares for means over windows of nine places and more."""
    if view.op in _LARGEST:
        return Offer(reason=f"{view.op} of a part of its window is too small, and by how much depends on the image")
    if view.op not in _MEANS:
        return Offer(reason=f"{view.op} is no mean over a window")
    if len(view.input_shape) != _MAP or not _over_map(view):
        return Offer(reason=f"{view.op} of {view.input_shape} to {view.output_shape} is no mean over rows and columns")
    kernel = _window(view)[0]
    if kernel[0] * kernel[1] < _LEAST:
        return Offer(reason=f"its window has {kernel[0]}x{kernel[1]} places; leaving some out pays from {_LEAST} on")
    choices = tuple(choice for choice in CHOICES if _sampled(view, choice) is not None)
    return Offer(choices=choices) if choices else Offer(reason="no part of its window gives an output of the same size")


def _over_map(view: LayerView) -> bool:
    """Tell whether it is the mean over rows and columns, and over nothing else."""
    if view.op != "ReduceMean":
        values = view.attributes
        return not values.get("ceil_mode", 0) and values.get("auto_pad", b"NOTSET") in {b"NOTSET", b""}
    _, channels, height, width = view.input_shape
    certain = len(view.output_shape) == _MAP or channels not in {height, width}
    return certain and tuple(view.output_shape) in {(1, channels, 1, 1), (1, channels)} and height * width > 1


def _window(view: LayerView) -> tuple[tuple[int, int], tuple[int, int], tuple[int, ...], tuple[int, int]]:
    """Return a pooling's kernel, strides, pads and dilations."""
    if view.op != "AveragePool":
        size = (view.input_shape[2], view.input_shape[3])
        return size, size, (0, 0, 0, 0), (1, 1)
    values = view.attributes
    kernel, strides = tuple(values["kernel_shape"]), tuple(values.get("strides", (1, 1)))
    pads, dilations = tuple(values.get("pads", (0, 0, 0, 0))), tuple(values.get("dilations", (1, 1)))
    return (kernel[0], kernel[1]), (strides[0], strides[1]), pads, (dilations[0], dilations[1])


def _sampled(view: LayerView, choice: str) -> dict[str, Any] | None:
    """Return the attributes of the pooling with gaps; None where its output would have another size."""
    kernel, strides, pads, dilations = _window(view)
    counts, gaps, ends = [], [], []
    for axis, gap in enumerate(_GAPS[choice]):
        count = -(-kernel[axis] // gap)
        reach = (count - 1) * gap * dilations[axis] + 1
        size, made, before = view.input_shape[2 + axis], 1, pads[axis]
        if view.op == "AveragePool":
            made = view.output_shape[2 + axis]
        behind = max(0, (made - 1) * strides[axis] + reach - before - size)
        # onnxruntime takes no pooling that is padded by as much as it has places.
        if max(before, behind) >= count or (size + before + behind - reach) // strides[axis] + 1 != made:
            return None
        counts.append(count)
        gaps.append(gap * dilations[axis])
        ends.append((before, behind))
    return {
        "kernel_shape": counts,
        "strides": list(strides),
        "dilations": gaps,
        "pads": [ends[0][0], ends[1][0], ends[0][1], ends[1][1]],
        "count_include_pad": int(view.attributes.get("count_include_pad", 0)),
    }


def apply(context: Context, choice: str) -> Replacement:
    """Read a part of each window, and fit a line to each channel."""
    from onnx import helper

    view, anchor = context.view, context.anchor
    values = _sampled(view, choice)
    if values is None:
        raise AssertionError(f"layer {view.name!r}: {choice} was offered but has another size")
    name, target = view.name, anchor.output[0]
    pool = helper.make_node("AveragePool", [anchor.input[0]], [f"{name}.sampled"], name=f"{name}.sample", **values)
    slope, offset = _line(context.run(Replacement(nodes=(pool,), arrays={}), context.present), _means(context))
    arrays: dict[str, NDArray[Any]] = {
        f"{name}.slope": slope.astype(np.float32).reshape(1, -1, 1, 1),
        f"{name}.offset": offset.astype(np.float32).reshape(1, -1, 1, 1),
    }
    nodes: list[onnx.NodeProto] = [
        pool,
        helper.make_node("Mul", [f"{name}.sampled", f"{name}.slope"], [f"{name}.scaled"], name=f"{name}.scale"),
        helper.make_node("Add", [f"{name}.scaled", f"{name}.offset"], [f"{name}.mean"], name=f"{name}.shift"),
    ]
    if len(view.output_shape) == _MAP:
        nodes[-1].output[0] = target
    else:
        arrays[f"{name}.axes"] = np.array([2, 3], np.int64)
        nodes.append(helper.make_node("Squeeze", [f"{name}.mean", f"{name}.axes"], [target], name=f"{name}.squeeze"))
    return Replacement(nodes=tuple(nodes), arrays=arrays)


def _means(context: Context) -> NDArray[np.float32]:
    """Return the means over whole windows, ``[image][channel][row][column]``."""
    if context.view.op == "AveragePool":
        return context.run(Replacement(nodes=(context.anchor,), arrays={}), context.present)
    whole: NDArray[np.float32] = context.present.mean(axis=(2, 3), keepdims=True)
    return whole


def _line(sampled: NDArray[np.float32], whole: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit whole means to sampled ones, a line for each channel: slopes and offsets."""
    x, y = sampled.astype(np.float64), whole.astype(np.float64)
    mean_x, mean_y = (values.mean(axis=(0, 2, 3), keepdims=True) for values in (x, y))
    variance = ((x - mean_x) ** 2).mean(axis=(0, 2, 3))
    shared = ((x - mean_x) * (y - mean_y)).mean(axis=(0, 2, 3))
    # A channel that says nothing on the calibration images keeps the plain mean of what is read.
    slope = np.where(variance > _TINY, shared / np.maximum(variance, _TINY), 1.0).clip(*_SLOPES)
    return slope, mean_y.ravel() - slope * mean_x.ravel()
