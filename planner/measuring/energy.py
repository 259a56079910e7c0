"""Energy: what the processors of this machine draw while a network runs, where their counters can be read.

Counters are those of RAPL, a register for each socket and its memory that the kernel shows in its powercap tree, read
through zeus (the extra ``energy``).  They cover the whole socket: what the rest of the machine draws is measured
beforehand, while nothing runs, and taken off; what other processes do meanwhile is not told apart.  They are renewed
every millisecond or so, so a network runs for half a second at least.

No counter tells layers apart.  A layer is given its share of a network's energy by time: the power that the build
draws above idle, times what the layer takes.  The table says so.  Where nothing can be read, there is no energy.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from costmodels import ModelCosts

__all__ = ["Meter", "Reading", "UnreadableError", "measures_here", "open_meter", "with_energy"]

logger = logging.getLogger(__name__)

SECONDS = 0.5
"""What is measured runs for so long: five hundred renewals of a counter."""
IDLE_S = 2.0
REPEATS = 3
"""Readings of each power; the median counts."""
MOST_W = 10_000.0
"""A reading above this is none: a counter began anew meanwhile, and it has not been noticed yet."""
WRAP_S = 2.0
"""After this a counter that began anew has been noticed."""
_HERE = ("tvm", "onnxruntime")


class UnreadableError(Exception):
    """Say why the energy counters of this machine cannot be read."""


class _Runs(Protocol):
    """Something that can be run again and again, as programs of devices can."""

    def sample(self) -> object:
        """Run some times."""


class _Build(Protocol):
    """A build as :class:`planner.measuring.builds.Build` is one."""

    @property
    def choices(self) -> Mapping[str, str]:
        """The choice of every layer."""

    @property
    def program(self) -> _Runs:
        """What is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One power.

    Attributes:
        watts: Joules a second.
        spread: Greatest less least of the readings, watts.
    """

    watts: float
    spread: float


class Meter:
    """The energy counters of this machine, and what it draws when idle.

    Attributes:
        source: What is read.
        idle: What the machine draws while nothing of ours runs.
    """

    def __init__(
        self,
        joules: Callable[[], float],
        source: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Measure what the machine draws when idle.

        Args:
            joules: Reads the counters; they only grow, but for beginning anew now and then.
            source: What is read, for the table.
            clock: Seconds.
            sleep: Waits.
        """
        self.source = source
        self._joules, self._clock, self._sleep = joules, clock, sleep
        self.idle = self._power(lambda: sleep(SECONDS), IDLE_S)

    def above_idle(self, run: Callable[[], object]) -> Reading:
        """Measure what is drawn beyond idle while something runs again and again.

        Args:
            run: Runs once; for less than half a second, or it runs once a reading.

        Returns:
            The power; below 0 where the machine was busier while it was measured idle.
        """
        run()
        found = self._power(run, SECONDS)
        return replace(found, watts=found.watts - self.idle.watts)

    def _power(self, run: Callable[[], object], seconds: float) -> Reading:
        found = [self._once(run, seconds) for _ in range(REPEATS)]
        return Reading(watts=statistics.median(found), spread=max(found) - min(found))

    def _once(self, run: Callable[[], object], seconds: float) -> float:
        for _ in range(REPEATS):
            before, start = self._joules(), self._clock()
            while self._clock() - start < seconds:
                run()
            watts = (self._joules() - before) / (self._clock() - start)
            if 0 <= watts < MOST_W:
                return watts
            logger.info("%s began anew while it was read; reading again", self.source)
            self._sleep(WRAP_S)
        raise UnreadableError(f"{self.source} gave {watts:g} W {REPEATS} times in a row; expected 0 to {MOST_W:g} W")


def measures_here(device: Any) -> bool:
    """Tell whether what a device runs draws its energy on this machine."""
    return device.name in _HERE


def open_meter() -> Meter:
    """Find the counters of this machine's processors, and measure what it draws when idle.

    Raises:
        UnreadableError: There are none, they may not be read, or zeus is not installed; the message says which.
    """
    try:
        from zeus.device import get_cpus
        from zeus.exception import ZeusBaseError
    except ImportError:
        raise UnreadableError("zeus is not installed: install it with `pip install blinkplan[energy]`") from None
    try:
        sockets = get_cpus()
        count = len(sockets)
        if not count:
            raise UnreadableError("the processors of this machine show no energy counters")

        def joules() -> float:
            found = [sockets.get_total_energy_consumption(index) for index in range(count)]
            return float(sum(one.cpu_mj + (one.dram_mj or 0.0) for one in found)) / 1e3

        memory = any(sockets.supports_get_dram_energy_consumption(index) for index in range(count))
        return Meter(joules, f"RAPL of {count} socket(s){', memory included' if memory else ''}")
    except ZeusBaseError as error:
        raise UnreadableError(str(error)) from None


def with_energy(
    costs: ModelCosts, builds: Mapping[str, _Build], meter: Meter, tell: Callable[[int, int], None]
) -> tuple[ModelCosts, dict[str, Any]]:
    """Add the energy of each choice to what it costs.

    Args:
        costs: What the choices of a network cost, in time among others.
        builds: Its builds by name; what a choice draws is taken from the first in which its layer takes it, as its time
            is.
        meter: The counters.
        tell: Is told how many builds have been run, and how many there are.

    Returns:
        The costs, and what is to be noted of the powers.  A choice whose build drew no more than the idle machine has
        no energy: that is no figure but the machine's noise.
    """
    powers: dict[str, Reading] = {}
    homes: dict[tuple[str, str], str] = {}
    for done, (name, build) in enumerate(builds.items(), start=1):
        powers[name] = meter.above_idle(build.program.sample)
        for place in build.choices.items():
            homes.setdefault(place, name)
        tell(done, len(builds))

    def joined(layer: str, choice: str, nanoseconds: int) -> int | None:
        watts = powers[homes[layer, choice]].watts
        return math.ceil(watts * nanoseconds) if watts > 0 else None  # a watt is a nanojoule a nanosecond

    layers = tuple(
        replace(
            layer,
            choices=tuple(replace(c, energy_nj=joined(layer.name, c.name, c.latency_ns)) for c in layer.choices),
        )
        for layer in costs.layers
    )
    noted = {
        "source": meter.source,
        "of_a_layer": "the power of the build that its time is from, above idle, times its time",
        "idle_w": meter.idle.watts,
        "idle_spread_w": meter.idle.spread,
        "builds_w": {name: {"above_idle": power.watts, "spread": power.spread} for name, power in powers.items()},
    }
    return replace(costs, layers=layers), noted
