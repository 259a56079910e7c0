"""What stands in a store, in words: how far runs are, and what one of them measured, reused and retried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.measuring.progress import remaining_s
from planner.measuring.records import Phase

if TYPE_CHECKING:
    from planner.measuring.store import Store

__all__ = ["RunStatus", "Status", "status", "summarised"]

RUNNING = "running"
WORDS = {
    "answers": "answers of exact networks",
    "layer": "times of layers",
    "loss": "losses",
    "memory": "networks' memory scripts",
    "network": "times of networks",
}
"""How kinds of results and samples are called towards the user; another kind goes by its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """State how far one run is.

    Attributes:
        run: Its number.
        status: ``running``, ``finished``, ``failed`` or ``killed``.
        started: When it began, UTC in ISO 8601.
        device: Name of the device; empty where the run did not say.
        phases: What it does, in the order in which it comes.
        remaining_s: How long the rest may take, seconds; None where nothing is known of it.
    """

    run: int
    status: str
    started: str
    device: str
    phases: tuple[Phase, ...]
    remaining_s: float | None

    def __str__(self) -> str:
        """Write a line for each phase."""
        place = f" on {self.device}" if self.device else ""
        left = f", about {duration(self.remaining_s)} left" if self.remaining_s else ""
        lines = [f"run {self.run}{place}, began {self.started[:19]} UTC: {self.status}{left}"]
        rows = [(p.model, p.phase, str(p.done), str(p.open), str(p.reused), duration(p.seconds)) for p in self.phases]
        if rows:
            lines += _columns([("model", "phase", "done", "open", "reused", "took"), *rows])
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State what a store holds and who writes to it.

    Attributes:
        name: The file.
        results: Number of finished results by kind.
        samples: Number of timings by kind.
        ended: Number of runs by how they ended.
        runs: Those that are running, or else the last.
    """

    name: str
    results: Mapping[str, int]
    samples: Mapping[str, int]
    ended: Mapping[str, int]
    runs: tuple[RunStatus, ...]

    def __str__(self) -> str:
        """Write all of it."""
        held = [f"{number} {_called(what)}" for what, number in (*self.samples.items(), *self.results.items())]
        ended = [f"{number} {how}" for how, number in self.ended.items()]
        lines = [f"{self.name}: {', '.join(held) or 'nothing yet'}; runs: {', '.join(ended) or 'none'}"]
        return "\n".join([*lines, *(str(run) for run in self.runs)])


def status(store: Store) -> Status:
    """Say what a store holds, and how far its runs are."""
    runs, phases = store.runs(), store.phases()
    shown = [run for run in runs if run["status"] == RUNNING] or runs[-1:]
    earlier = [phase for run in sorted(phases) for phase in phases[run]]
    ended: dict[str, int] = {}
    for run in runs:
        ended[run["status"]] = ended.get(run["status"], 0) + 1
    results, samples = store.counts()
    return Status(
        name=str(store.path or "the store in memory"),
        results=results,
        samples=samples,
        ended=ended,
        runs=tuple(
            RunStatus(
                run=run["run"],
                status=run["status"],
                started=run["started"],
                device=str(run.get("device", "")),
                phases=tuple(phases.get(run["run"], ())),
                remaining_s=remaining_s(phases[run["run"]], earlier) if run["run"] in phases else None,
            )
            for run in shown
        ),
    )


def summarised(summary: Mapping[str, Any]) -> str:
    """Put a run's summary into words.

    Args:
        summary: What :meth:`planner.measuring.runs.Runs.summary` gives, with ``seconds`` by model and phase beside it.

    Returns:
        Some lines.

    >>> print(summarised({"measured": {"loss": 3}, "reused": {}, "seconds": {"a": {"losses": 61.0}}}))
    measured: 3 losses
    reused: nothing
    took: a 1 min 1 s (losses 1 min 1 s)
    """
    lines = []
    for kind in ("measured", "reused"):
        counted = ", ".join(f"{number} {_called(what)}" for what, number in summary[kind].items())
        lines.append(f"{kind}: {counted or 'nothing'}")
    for kind in sorted(set(summary) - {"measured", "reused", "seconds"}):
        notes = [
            f"{note['what']} ({note['reason']}" + (f", {note['times']} times)" if note["times"] > 1 else ")")
            for note in summary[kind]
        ]
        lines.append(f"{kind}: {'; '.join(notes)}")
    times = [
        f"{model or 'all'} {duration(sum(phases.values()))}"
        f" ({', '.join(f'{phase} {duration(seconds)}' for phase, seconds in phases.items())})"
        for model, phases in summary.get("seconds", {}).items()
    ]
    if times:
        lines.append(f"took: {'; '.join(times)}")
    return "\n".join(lines)


def _called(what: str) -> str:
    return WORDS.get(what, what)


def duration(seconds: float | None) -> str:
    """Write a time as a person would.

    >>> [duration(s) for s in (0.25, 61.0, 7260.0)]
    ['0.2 s', '1 min 1 s', '2 h 1 min']
    """
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), *map(str.rjust, row[2:], widths[2:])])
        for row in rows
    ]
