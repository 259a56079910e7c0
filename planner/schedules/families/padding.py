"""How a map is put into a frame of zeros: row by row, the frame apart from the copy."""

from __future__ import annotations

from tvm import s_tir

from planner.schedules.layouts import PAD
from planner.schedules.scheduling import FamilyRule, Kernel, Parameters


class PaddingRule(FamilyRule):
    """Schedule :func:`.layouts.pad`: columns are split where the frame begins, so that no copy asks where it is."""

    FAMILY = "padding"
    ANCHOR = PAD

    def default(self, kernel: Kernel) -> Parameters:
        """Choose whether rows are spread over threads."""
        elements = 1
        for loop in kernel.loops(PAD):
            elements *= kernel.extent(loop)
        return {"threads": int(self.unit.worth_threads(elements))}

    def schedule(self, kernel: Kernel, parameters: Parameters) -> s_tir.Schedule:
        """Schedule a padding; ``threads`` says whether rows are spread over them."""
        sch = kernel.sch
        outer, second, third, last = sch.get_loops(kernel.block(PAD))
        plain = kernel.annotation(PAD, "plain")
        rows = sch.fuse(outer, second, third) if plain else sch.fuse(outer, second)
        if not plain:
            sch.vectorize(last)
        sch.annotate(last if plain else third, "pragma_loop_partition_hint", 1)
        if parameters["threads"]:
            sch.parallel(rows)
        return sch
