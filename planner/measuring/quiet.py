"""Whether something else is at work beside a measurement, which a control of vector code may not show.

A processor's threads share the units of a core.  Where another machine's work runs on the second thread of ours, code
that is bound by instructions (casts, pooling, indices) took 1.5 to 2 times as long, and the exact network, bound by
vector units, 1.05 times: it does not tell.  A loop of plain instructions does, in less than a tenth of a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

__all__ = ["Quiet", "canary"]

TOLERANCE = 1.1
"""A loop that takes so many times what it takes undisturbed shows a disturbance."""
PATIENCE_S = 10.0
"""What is waited for quiet in all."""
LONGEST_S = 0.05
"""What is waited for quiet at once."""
_STEPS = 3000
_KEPT = 4000


def canary() -> float:
    """Time a loop of plain instructions in this process, the least of three; nanoseconds."""
    clock, least = time.perf_counter_ns, float("inf")
    for _ in range(3):
        start = clock()
        for _ in range(_STEPS):
            pass
        least = min(least, float(clock() - start))
    return least


class Quiet:
    """Tells whether a machine is disturbed, and waits a while for it not to be.

    Examples:
        >>> still = Quiet(lambda: 100.0)
        >>> still.disturbed()
        False
    """

    def __init__(self, look: Callable[[], float], *, patience_s: float = PATIENCE_S) -> None:
        """Look at the machine some times, to know it undisturbed.

        Args:
            look: Times what disturbances show in, such as :func:`canary`.
            patience_s: Seconds to wait for quiet in all.
        """
        self._look = look
        self._left_s = patience_s
        self._seen = [look() for _ in range(32)]

    def disturbed(self) -> bool:
        """Tell whether the machine is slower than in its quieter times."""
        now = self._look()
        self._seen = [*self._seen[-_KEPT:], now]
        return now > TOLERANCE * float(np.quantile(self._seen, 0.1))

    def wait(self) -> None:
        """Wait until the machine is quiet, no longer than 50 ms at once, nor than the patience in all."""
        start = time.perf_counter()
        while self.disturbed() and time.perf_counter() - start < min(LONGEST_S, self._left_s):
            time.sleep(0.001)
        self._left_s -= time.perf_counter() - start
