"""Making a map larger by whole factors, linearly between its pixels, and cutting rows and columns off it.

These are the forms that perforated convolutions take: what they left out is interpolated from what they computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import relax, te, tirx

from planner.schedules.blocked import FeatureMap
from planner.schedules.rewriter import shape_of

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter


def interpolate(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, factors: tuple[int, int]) -> te.Tensor:
    """Enlarge a blocked map by whole factors: every such row is copied, those between are weighted means.

    Rows behind the last repeat it; columns likewise.

    Args:
        data: ``(blocks, pixels, 16)``.
        source: Its size.
        output: Size of the result.
        factors: How many rows, and how many columns, become of one.
    """
    down, across = factors

    def between(first: Any, second: Any, place: Any, factor: int) -> Any:
        if factor == 2:  # the mean of one pixel and itself is exact, and asks nothing
            return (first + second) * tirx.const(0.5, "float32")
        share = tirx.Cast("float32", place % factor) * tirx.const(1.0 / factor, "float32")
        return first + (second - first) * share

    def following(place: Any, factor: int, limit: int) -> Any:
        ahead = (place + 1) // 2 if factor == 2 else place // factor + 1
        return te.min(ahead, limit - 1)

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        first = image * source.height

        def along(row: Any) -> Any:
            start = (first + row) * source.width
            if across == 1:
                return data[o, start + x, b]
            left, right = data[o, start + x // across, b], data[o, start + following(x, across, source.width), b]
            return between(left, right, x, across)

        if down == 1:
            return along(y)
        return between(along(y // down), along(following(y, down, source.height)), y, down)

    return te.compute(output.blocked_shape, value, name="interpolate")


def cut(data: te.Tensor, *, source: FeatureMap, output: FeatureMap, top: int, left: int) -> te.Tensor:
    """Copy a rectangle out of a blocked map."""

    def value(o: Any, p: Any, b: Any) -> Any:
        image, y, x = output.place(p)
        return data[o, (image * source.height + top + y) * source.width + left + x, b]

    return te.compute(output.blocked_shape, value, name="cut")


def lower_resize(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower linear interpolation by whole factors: from the first pixel on, or between the corners."""
    source, attrs = call.args[0], call.attrs
    if source not in rewriter.blocked or attrs.layout != "NCHW" or attrs.method != "linear":
        return False
    data, size = rewriter.blocked[source]
    output = FeatureMap.of(shape_of(var))
    pairs = ((size.height, output.height), (size.width, output.width))
    if attrs.coordinate_transformation_mode == "asymmetric":
        factors = [large // small if large % small == 0 else 0 for small, large in pairs]
    elif attrs.coordinate_transformation_mode == "align_corners":
        factors = [
            1 if large == small else (large - 1) // (small - 1) if small > 1 and (large - 1) % (small - 1) == 0 else 0
            for small, large in pairs
        ]
    else:
        return False
    if min(factors) < 1:
        return False
    both = (factors[0], factors[1])
    result = rewriter.call(interpolate, data, hint="interpolate", source=size, output=output, factors=both)
    rewriter.blocked[var] = (result, output)
    return True


def lower_slice(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower cutting off rows and columns, with nothing left out between."""
    source = call.args[0]
    if source not in rewriter.blocked or len(shape_of(var)) != 4:
        return False
    axes, begins, _, strides = ([int(n) for n in argument] for argument in (*call.args[1:4], call.args[4]))
    if not {axis % 4 for axis in axes} <= {2, 3} or any(stride != 1 for stride in strides):
        return False
    data, size = rewriter.blocked[source]
    start = {axis % 4: begin for axis, begin in zip(axes, begins, strict=True)}
    begin = {
        axis: max(0, at + length if at < 0 else at)
        for axis, length, at in ((2, size.height, start.get(2, 0)), (3, size.width, start.get(3, 0)))
    }
    output = FeatureMap.of(shape_of(var))
    result = rewriter.call(cut, data, hint="cut", source=size, output=output, top=begin[2], left=begin[3])
    rewriter.blocked[var] = (result, output)
    return True


LOWERINGS = {"relax.image.resize2d": lower_resize, "relax.strided_slice": lower_slice}
