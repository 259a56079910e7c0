"""A PrimFunc under schedule, and what all schedule rules have in common: parameters that can be written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from planner.schedules.vectors import VectorUnit

Parameters = Mapping[str, int]
"""What a rule chooses for one kernel, by name: tile sizes, unrolling, blocking."""

CHOSEN = "blinkplan.schedule"
"""Attribute of a PrimFunc that says how it is to be scheduled, in the words of :meth:`FamilyRule.text`."""


def parse(text: str) -> tuple[str, dict[str, int]]:
    """Read what :meth:`FamilyRule.text` wrote.

    >>> parse("convolution pixels=14 blocks=2")
    ('convolution', {'pixels': 14, 'blocks': 2})
    """
    family, *pairs = text.split()
    return family, {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}


class Kernel:
    """One PrimFunc with its schedule and its blocks by name."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        """Start a schedule on ``func``."""
        self.func = func
        self.sch = s_tir.Schedule(func)

    def narrowed(self) -> Kernel:
        """Give the same kernel with 32-bit indices, before anything is scheduled.

        Relax gives kernels 64-bit indices, which TVM narrows before it partitions loops; a hint to partition a
        loop does not survive that.
        """
        module = tvm.IRModule({"main": self.func})
        return Kernel(tirx.transform.ForceNarrowIndexToInt32()(module)["main"])

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

    def annotations(self, name: str) -> Mapping[str, Any]:
        """Give all that the compute definition noted on a block."""
        noted: Mapping[str, Any] = self.sch.get(self.block(name)).annotations
        return noted

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

    def inlined(self) -> Any:
        """Inline all blocks into the last one, and give that."""
        *before, last = self.sch.get_child_blocks(self.sch.get_sblock("root"))
        for block in before:
            self.sch.compute_inline(block)
        return last

    def inline_into_epilogue(self, anchor: str) -> Any:
        """Inline all that follows the anchor into the last block, and keep the anchor's result in registers.

        Returns:
            The block that writes the kernel's output: the fused epilogue, or a copy where there is none.
        """
        sch = self.sch
        place = self.names().index(anchor)
        blocks = sch.get_child_blocks(sch.get_sblock("root"))
        before, after = blocks[:place], blocks[place + 1 :]
        for block in reversed(before):
            # What only the epilogue reads, such as another tensor that it rounds, may stand ahead of the anchor.
            readers = {sch.get(reader).name_hint for reader in sch.get_consumers(block)}
            if readers and readers.isdisjoint(self.names()[: place + 1]):
                sch.compute_inline(block)
        for block in after[:-1]:
            sch.compute_inline(block)
        if not after:
            return sch.cache_write(self.block(anchor), 0, "local")
        sch.set_scope(self.block(anchor), 0, "local")
        return after[-1]


class FamilyRule(ScheduleRule):
    """Schedule the kernels of one family, those that hold the block ``ANCHOR``.

    A family derives from this, names itself and its anchor, and says which parameters it would take by default,
    which others are worth measuring, and what schedule they give.
    """

    FAMILY = ""
    ANCHOR = ""

    def __init__(self, unit: VectorUnit) -> None:
        """Remember the vector unit that parameters are chosen for."""
        self.unit = unit

    def matches(self, kernel: Kernel) -> bool:
        """Tell whether this rule is the one for a kernel."""
        return kernel.has(self.ANCHOR)

    def default(self, kernel: Kernel) -> Parameters:
        """Choose the parameters of a kernel from its shapes and the target."""
        raise NotImplementedError

    def candidates(self, kernel: Kernel) -> Iterable[Parameters]:
        """List the parameters that a measured search tries, the default among them."""
        return (self.default(kernel),)

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a kernel with given parameters."""
        raise NotImplementedError

    def parameters(self, kernel: Kernel) -> Parameters:
        """Give the parameters that a kernel is scheduled with: those noted on it, else the default ones.

        Raises:
            ValueError: What is noted is for another family.
        """
        noted = (kernel.func.attrs or {}).get(CHOSEN)
        if noted is None:
            return self.default(kernel)
        family, parameters = parse(str(noted))
        if family != self.FAMILY:
            raise ValueError(f"a schedule of family {family!r} was noted on a kernel of family {self.FAMILY!r}")
        return parameters

    def text(self, parameters: Parameters) -> str:
        """Write parameters down, as they stand in the build config."""
        return " ".join([self.FAMILY, *(f"{key}={value}" for key, value in parameters.items())])

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> s_tir.Schedule | None:
        """Schedule ``func`` where it is of this family; None where it is not."""
        kernel = Kernel(func)
        if not self.matches(kernel):
            return None
        return self.schedule(kernel, self.parameters(kernel))
