"""What a user would run instead: the exact network in onnxruntime, timed beside a build.

With one thread it runs in the process that times the build.  With several, it runs in a process of its own, for the
idle threads of either runtime spin for a while, at the other's cost; there the two take turns with a rest in between.
``python -m planner.reference ONNX INPUT THREADS`` is that process: it answers each number of runs on its standard
input with as many nanoseconds in JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reference"]

REST_S = 0.25
"""Until the threads of a runtime that has just run are quiet: TVM's spin for 0.14 s."""
VISITS = 3
"""Rounds in which a process of its own is asked, spread over all: each costs two rests."""


class Reference:
    """One network in onnxruntime, for as long as a ``with`` block lasts."""

    def __init__(self, model: Path, image: NDArray[np.float32], threads: int) -> None:
        """Load the network.

        Args:
            model: Its ONNX file.
            image: One input, ``(1, C, H, W)``.
            threads: Threads that it may use.
        """
        self._session: Any = None
        self._process: subprocess.Popen[str] | None = None
        if threads == 1:
            self._session = _session(model, image, threads)
            return
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "image.npy"
            np.save(path, image)
            self._process = subprocess.Popen(  # noqa: S603 - our own module, with paths that were checked
                [sys.executable, "-m", "planner.reference", str(model), str(path), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
            self._answer()  # it has read the input

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    def takes_part(self, index: int, rounds: int) -> bool:
        """Tell whether it is timed in a round: in all of them in this process, in some of them in its own."""
        if self._process is None:
            return True
        visits = np.linspace(0, rounds - 1, min(VISITS, rounds)).round().astype(int)
        return index in visits.tolist()

    def latencies(self, runs: int) -> NDArray[np.float64]:
        """Time single runs one after the other; nanoseconds, ``(runs,)``."""
        if self._process is None:
            found: NDArray[np.float64] = self._session.latencies(runs)
            return found
        time.sleep(REST_S)
        if self._process.stdin is None:
            raise RuntimeError("the process of onnxruntime was started without a pipe")
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        times = np.array(self._answer(), np.float64)
        time.sleep(REST_S)
        return times

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process and self._process.stdout else ""
        if not line:
            status = self._process.wait() if self._process else None
            raise RuntimeError(f"the process of onnxruntime ended with status {status}; its reason stands above")
        return json.loads(line)


def _session(model: Path, image: NDArray[np.float32], threads: int) -> Any:
    from planner.devices.onnxruntime import Session

    return Session(str(model), image, threads)


def main(arguments: list[str]) -> int:
    """Serve one network over standard input and output."""
    model, image, threads = arguments
    session = _session(Path(model), np.load(image), int(threads))
    _say([])
    for line in sys.stdin:
        _say(session.latencies(int(line)).tolist())
    return 0


def _say(times: list[float]) -> None:
    sys.stdout.write(json.dumps(times) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
