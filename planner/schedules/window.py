"""A window that slides over a feature map, as convolutions and poolings have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.schedules.blocked import FeatureMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window: kernel, strides, padding (top, left, bottom, right) and dilation."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, attrs: Any, kernel: Sequence[int]) -> Window:
        """Read a window off the attributes of a Relax call."""

        def integers(values: Any) -> tuple[int, ...]:
            return tuple(int(v) for v in values)

        padding = integers(attrs.padding)
        if len(padding) == 2:
            padding = padding * 2
        height, width = integers(kernel)
        strides, dilation = integers(attrs.strides), integers(attrs.dilation)
        return cls(
            kernel=(height, width),
            strides=(strides[0], strides[1]),
            padding=(padding[0], padding[1], padding[2], padding[3]),
            dilation=(dilation[0], dilation[1]),
        )

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel reads the one input pixel of the same index."""
        return self.kernel == (1, 1) and self.strides == (1, 1) and not self.padded

    @property
    def padded(self) -> bool:
        """Whether any side is padded."""
        return any(self.padding)

    def read(self, data: Any, source: FeatureMap, index: tuple[Any, Any, Any, Any, Any]) -> Any:
        """Read one element of the blocked input of a window.

        Args:
            data: The input as it is, ``(blocks, pixels, 16)``, or padded, ``(blocks, rows', columns', 16)``.
            source: Size of the input before padding.
            index: Block of channels, image, row and column (of the padded map where it is one), lane.
        """
        block, image, row, column, lane = index
        if len(data.shape) == 3:
            return data[block, (image * source.height + row) * source.width + column, lane]
        return data[block, image * self.padded_size(source)[0] + row, column, lane]

    def padded_size(self, source: FeatureMap) -> tuple[int, int]:
        """Height and width of the padded input."""
        top, left, bottom, right = self.padding
        return source.height + top + bottom, source.width + left + right
