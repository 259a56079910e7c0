"""Which process a run is, and whether it still lives."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "end_with_parent"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SAME_START_S = 1.0
"""A process that began this close to what was noted is the same one: clocks are read to a tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of some machine since it was last started.

    Attributes:
        host: Name of the machine.
        boot: What tells this start of the machine from others.
        pid: Number of the process.
        started: When the process began, seconds since the epoch: numbers of processes are used again.

    Examples:
        >>> Process.here().alive()
        True
    """

    host: str
    boot: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> Process:
        """Return this process."""
        import psutil

        pid = os.getpid()
        return cls(host=platform.node(), boot=_boot(), pid=pid, started=float(psutil.Process(pid).create_time()))

    def alive(self) -> bool:
        """Say whether the process still runs on this machine; one of another machine or another boot does not."""
        import psutil

        if (self.host, self.boot) != (platform.node(), _boot()):
            return False
        try:
            process = psutil.Process(self.pid)
            started, status = float(process.create_time()), process.status()
        except psutil.NoSuchProcess:
            return False
        return abs(started - self.started) < _SAME_START_S and status != psutil.STATUS_ZOMBIE


def end_with_parent() -> None:
    """End this process, a worker of ``multiprocessing``, as soon as the one that started it has gone.

    A worker that waits for work waits for ever where its parent was killed; give this to a pool as its initialiser.
    """
    import multiprocessing
    import threading
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing and has no parent to end with")

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True, name="end with parent").start()


def _boot() -> str:
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    import psutil

    # Elsewhere than on Linux the time of the last start has to do; it is read to about a second.
    return str(round(psutil.boot_time() / 60))
