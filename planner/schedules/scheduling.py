"""A PrimFunc under schedule: the few questions and steps that every rule needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx


class Kernel:
    """One PrimFunc with its schedule and its blocks by name."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        """Start a schedule on ``func``."""
        self.func = func
        self.sch = s_tir.Schedule(func)

    def names(self) -> list[str]:
        """Names of the blocks under the root, in program order."""
        sch = self.sch
        return [sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))]

    def has(self, name: str) -> bool:
        """Tell whether a block of that name is there."""
        return name in self.names()

    def block(self, name: str) -> Any:
        """Give the block of that name."""
        return self.sch.get_sblock(name)

    def annotation(self, name: str, key: str) -> Any:
        """Give what the compute definition noted on a block."""
        return self.sch.get(self.block(name)).annotations[key]

    def loops(self, name: str) -> Sequence[Any]:
        """Give the loops of the block of that name, outermost first."""
        loops: Sequence[Any] = self.sch.get_loops(self.block(name))
        return loops

    def extent(self, loop: Any) -> int:
        """Give the trip count of a loop."""
        return int(self.sch.get(loop).extent)

    def divisor(self, loop: Any, candidates: Sequence[int]) -> int:
        """Give the first candidate that divides the trip count of a loop, else 1."""
        extent = self.extent(loop)
        return next((c for c in candidates if extent % c == 0), 1)

    def inline_into_epilogue(self, anchor: str) -> Any:
        """Inline all that follows the anchor into the last block, and keep the anchor's result in registers.

        Returns:
            The block that writes the kernel's output: the fused epilogue, or a copy where there is none.
        """
        sch = self.sch
        root = sch.get_sblock("root")
        after = [b for b in sch.get_child_blocks(root) if sch.get(b).name_hint != anchor]
        for block in after[:-1]:
            sch.compute_inline(block)
        if not after:
            return sch.cache_write(self.block(anchor), 0, "local")
        sch.set_scope(self.block(anchor), 0, "local")
        return after[-1]
