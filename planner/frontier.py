"""Plans over many budgets: as rows, as a file, as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodels import write_aside
from planner.budget import Budget
from planner.errors import InputError
from planner.plan import Plan

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Frontier", "Point"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One budget, and the plan within it or the reason why there is none.

    >>> Point(budget=Budget(latency_ms=1), plan=None, status="infeasible", reason="no plan keeps it").status
    'infeasible'
    """

    budget: Budget
    plan: Plan | None
    status: str
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse a point with neither plan nor reason."""
        if (self.plan is None) != bool(self.reason):
            raise InputError("a point has either a plan or the reason why there is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Plans over many budgets; points without a plan are kept, with the reason.

    >>> Frontier(points=(Point(budget=Budget(latency_ms=1), plan=None, status="limit", reason="time"),)).plans
    ()
    """

    points: tuple[Point, ...]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that were found, in the order of the points."""
        return tuple(point.plan for point in self.points if point.plan is not None)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a point: what is allowed, what is planned, the proof, or why there is no plan."""
        import pandas as pd

        return pd.DataFrame([_line(point) for point in self.points])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one line a point as CSV; readers never see half a file.

        Raises:
            InputError: The file cannot be written.
        """
        try:
            write_aside(path, self.to_frame().to_csv(index=False))
        except OSError as error:
            raise InputError(f"{path}: the points cannot be written: {error.strerror or error}") from None

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the frontier into an image file, without a screen.

        Args:
            path: The file; its ending says which kind of image it is.

        Raises:
            InputError: The file cannot be written, or no such kind of image is known.
        """
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        self.plot(figure.subplots())
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: the picture cannot be written: {error}") from None

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the loss over what is allowed, one line for each bound on the other; crosses have no plan.

        Args:
            axes: Where to draw; None makes a new figure.

        Returns:
            The axes.
        """
        import matplotlib.pyplot as plt

        if axes is None:
            axes = plt.figure(layout="constrained").subplots()
        over_memory = len({_total_ms(point.budget) for point in self.points}) == 1
        lines: dict[float | None, list[tuple[float, Point]]] = {}
        for point in self.points:
            latency, memory = _total_ms(point.budget), _mib(point.budget)
            along, across = (memory, latency) if over_memory else (latency, memory)
            lines.setdefault(across, []).append((float("inf") if along is None else along, point))
        other = "latency" if over_memory else "memory"
        for across, points in lines.items():
            found = sorted((x, p.plan.loss) for x, p in points if p.plan is not None)
            label = f"{other} not bound" if across is None else f"{other} ≤ {across:g} {'ms' if over_memory else 'MiB'}"
            drawn = axes.step([x for x, _ in found], [y for _, y in found], where="post", marker="o", label=label)
            nothing = [x for x, p in points if p.plan is None]
            axes.plot(nothing, [0.0] * len(nothing), "x", color=drawn[0].get_color())
        axes.set_xlabel("memory allowed (MiB)" if over_memory else "latency allowed (ms)")
        axes.set_ylabel("loss (increase of cross-entropy)")
        axes.legend()
        return axes


def _line(point: Point) -> dict[str, Any]:
    budget, found = point.budget, point.plan
    latency = budget.latency_ms
    line: dict[str, Any] = {}
    if isinstance(latency, Mapping):
        line |= {f"allowed_ms[{m}]": None if n is None else float(n) for m, n in latency.items()}
    else:
        line["allowed_ms"] = None if latency is None else float(latency)
    line |= {"allowed_mib": _mib(budget), "status": point.status}
    line |= {name: None if found is None else getattr(found, name) for name in ("loss", "bound", "gap")}
    if found is not None:
        line |= {f"latency_ms[{model}]": taken for model, taken in found.latency_ms.items()}
    line |= {"memory_mib": None if found is None else found.memory_mib, "reason": point.reason}
    return line


def _total_ms(budget: Budget) -> float | None:
    if isinstance(budget.latency_ms, Mapping):
        bound = [float(number) for number in budget.latency_ms.values() if number is not None]
        return sum(bound) if bound else None
    return None if budget.latency_ms is None else float(budget.latency_ms)


def _mib(budget: Budget) -> float | None:
    return None if budget.memory_mib is None else float(budget.memory_mib)
