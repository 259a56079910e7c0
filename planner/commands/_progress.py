"""Progress bars for work that takes longer than a breath."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planner.measuring.progress import WHOLE, Progress

__all__ = ["progress"]


@contextmanager
def progress() -> Iterator[Progress]:
    """Show what is being done, how far it is and how long it may still take, on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for name, earlier in tasks.items():
                    if WHOLE not in {what, name}:
                        task = bars.tasks[earlier]
                        bars.update(task.id, completed=task.total)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(bars.tasks[tasks[what]].id, completed=done, total=total)

        yield tell
        for task in bars.tasks:
            bars.update(task.id, completed=task.total)
