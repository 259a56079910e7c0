"""How answers get better while a solver runs, and how near to the best they are at each moment."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from costmodels import write_aside
from planner.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Curve", "Moment", "curves_frame", "draw_curves", "fold", "write_curves"]

How = Literal["traced", "reruns"]
"""Told by the solver while it ran, or put together from runs at growing time limits."""
_PANELS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was known after so many seconds.

    >>> Moment(seconds=0.5, objective=7, bound=5).gap
    0.2857142857142857
    """

    seconds: float
    objective: int | None = None
    bound: int | None = None

    @property
    def gap(self) -> float:
        """The share of the objective that might still be saved; infinite without a choice or a bound."""
        if self.objective is None or self.bound is None:
            return math.inf
        return distance(self.objective, self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The moments at which one solver knew more of one instance than before.

    Attributes:
        solver: Its name.
        instance: The instance's name.
        how: How they came about.
        moments: The moments, in order of time, objectives and bounds never getting worse.

    >>> Curve(solver="greedy", instance="a", how="traced", moments=(Moment(seconds=0.1, objective=7),)).at(0.05)
    Moment(seconds=0.05, objective=None, bound=None)
    """

    solver: str
    instance: str
    how: How
    moments: tuple[Moment, ...]

    def at(self, seconds: float) -> Moment:
        """Return what was known at a time."""
        known = Moment(seconds=seconds)
        for moment in self.moments:
            if moment.seconds <= seconds:
                known = Moment(seconds=seconds, objective=moment.objective, bound=moment.bound)
        return known


def fold(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """Keep the best objective and the best bound so far, and only moments that bring one of them forward.

    >>> fold([Moment(seconds=2, objective=9), Moment(seconds=1, objective=7), Moment(seconds=3, bound=5)])
    (Moment(seconds=1, objective=7, bound=None), Moment(seconds=3, objective=7, bound=5))
    """
    objective: int | None = None
    bound: int | None = None
    found: list[Moment] = []
    for moment in sorted(moments, key=lambda moment: moment.seconds):
        better = moment.objective is not None and (objective is None or moment.objective < objective)
        tighter = moment.bound is not None and (bound is None or moment.bound > bound)
        objective = moment.objective if better else objective
        bound = moment.bound if tighter else bound
        if better or tighter:
            found.append(Moment(seconds=moment.seconds, objective=objective, bound=bound))
    return tuple(found)


def distance(objective: int, bound: int) -> float:
    """Return ``(objective - bound) / objective``, 0 where they are equal."""
    return 0.0 if objective == bound else (objective - bound) / objective


def curves_frame(curves: Sequence[Curve]) -> pd.DataFrame:
    """Return one row a moment."""
    import pandas as pd

    columns = ["instance", "solver", "how", "seconds", "objective", "bound", "gap"]
    rows = [
        (curve.instance, curve.solver, curve.how, moment.seconds, moment.objective, moment.bound, moment.gap)
        for curve in curves
        for moment in curve.moments
    ]
    # Integers of up to 2^62 stay exact only where the column is not turned into floating point.
    return pd.DataFrame(rows, columns=columns).astype({"objective": object, "bound": object})


def write_curves(curves: Sequence[Curve], path: str | os.PathLike[str]) -> None:
    """Write one line a moment as CSV; readers never see half a file.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        write_aside(path, curves_frame(curves).to_csv(index=False))
    except OSError as error:
        raise InputError(f"{path}: the curves cannot be written: {error.strerror or error}") from None


def draw_curves(curves: Sequence[Curve], path: str | os.PathLike[str]) -> None:
    """Draw, for each instance, how far each solver was from the best bound that any of them proved.

    Solid lines are the solver's best choice against that bound, dashed ones against its own bound, which is what it
    could say of itself. Dots are where solvers stopped; small ones are runs of their own at growing time limits.

    Args:
        curves: The curves, of up to 12 instances.
        path: The picture, such as gaps.svg.

    Raises:
        InputError: There is nothing to draw or too much of it, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    by_instance: dict[str, list[Curve]] = {}
    for curve in curves:
        by_instance.setdefault(curve.instance, []).append(curve)
    if not 1 <= len(by_instance) <= _PANELS:
        raise InputError(f"there are curves of {len(by_instance)} instances; a picture holds 1 to {_PANELS}")
    columns = min(3, len(by_instance))
    rows = -(-len(by_instance) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    colours = {solver: f"C{index}" for index, solver in enumerate(dict.fromkeys(curve.solver for curve in curves))}
    for (instance, of_instance), axes in zip(by_instance.items(), panels, strict=False):
        _panel(axes, of_instance, colours)
        axes.set_title(instance, fontsize="small")
    for axes in panels[len(by_instance) :]:
        axes.set_visible(False)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", fontsize="small")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the picture cannot be written: {error}") from None


def _panel(axes: Axes, curves: Sequence[Curve], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import NullFormatter

    bounds = [moment.bound for curve in curves for moment in curve.moments if moment.bound is not None]
    best = max(bounds, default=None)
    end = max((curve.moments[-1].seconds for curve in curves if curve.moments), default=1.0)
    for curve in curves:
        last = curve.at(end)
        moments = [*curve.moments, last]
        marker = "." if curve.how == "reruns" else None
        seconds = [moment.seconds for moment in moments]
        to_best = [
            math.nan if m.objective is None or best is None else 100 * distance(m.objective, best) for m in moments
        ]
        own = [100 * moment.gap if math.isfinite(moment.gap) else math.nan for moment in moments]
        colour = colours[curve.solver]
        axes.step(seconds, to_best, where="post", color=colour, marker=marker, label=curve.solver)
        if curve.moments:
            # Where a solver stopped: one that told nothing before has no line to be seen by.
            axes.plot(curve.moments[-1].seconds, to_best[-1], "o", color=colour, markersize=4)
        axes.step(seconds, own, where="post", color=colour, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    # Gaps of 0 have a place on this scale, other than on a logarithmic one.
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(bottom=-1e-4)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds")
    axes.set_ylabel("gap (%)")
