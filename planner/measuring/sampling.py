"""Timing many programs beside one another until each figure is as certain as it is wanted.

All programs are timed in turn, round after round, and before and after each of them the control: the exact network.
The speed of a machine drifts (clock rates, neighbours), and the control beside a sample tells by how much; so each
sample counts as a multiple of its control.  Where the control itself moved by more than a twentieth, or something else
was at work (:mod:`planner.measuring.quiet`), the sample is taken again; what is kept all the same is marked, and does
not count where there are others enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodels.statistics import Estimate, estimate
from planner.devices import Device, Program, sample_round
from planner.measuring.quiet import Quiet
from planner.measuring.records import Sample, digest

if TYPE_CHECKING:
    from planner.measuring.store import Store

__all__ = ["DRIFTED", "LAYER", "NETWORK", "Plan", "Timed", "times"]

NETWORK, LAYER = "network", "layer"
"""What samples are of, in the store."""
DRIFT = 0.05
"""By how much a control may differ from the run's before its sample is taken again."""
ATTEMPTS = 5
"""How often a sample is taken again at most; the last one is kept and marked."""
DRIFTED = "drifted"
USUAL = 256
"""Samples of the control, the last ones, that show what is usual."""
LEAST_REPEATED = 200
WARMING = 8
"""Samples of the control before the first round; they show the run's control."""
CALM = 5
"""Undisturbed samples that are enough for the others not to count."""
BLOCK = 4
"""Rounds after which it is looked at which figures are certain enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say how long to go on.

    Attributes:
        least: Rounds that everything is timed in.
        most: Rounds after which timing ends, however uncertain a figure is.
        error: Relative standard error of a figure that is certain enough: of a whole network, and of a layer against
            itself or, ten times less, against its whole network.

    >>> Plan(least=8, most=25).error
    0.005
    """

    least: int = 9
    most: int = 25
    error: float = 0.005

    def __post_init__(self) -> None:
        """Check that there are rounds."""
        if not 1 <= self.least <= self.most or not 0 < self.error < 1:
            raise ValueError(f"rounds from {self.least} to {self.most} and an error of {self.error}; expected some")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Hold what was seen of one program.

    Attributes:
        network: The whole network, nanoseconds.
        layers: Each layer, nanoseconds.
        rounds: Rounds that it was timed in.
        drifted: Samples that the machine's speed had changed under, and that were kept all the same.
    """

    network: Estimate
    layers: Mapping[str, Estimate]
    rounds: int
    drifted: int


class _Seen:
    """Samples of one program: those of the store, and those that are added."""

    def __init__(self, store: Store, about: Mapping[str, Any], program: Program) -> None:
        self.about = dict(about)
        self._network = digest(about)
        self.program = program
        self.layers = list(program.footprint.kernels)
        self.of: dict[str, list[Sample]] = {"": list(store.samples(NETWORK, self.about))}
        for layer in self.layers:
            self.of[layer] = list(store.samples(LAYER, self._of(layer)))

    def _of(self, layer: str) -> dict[str, str]:
        return {"network": self._network, "layer": layer}

    @property
    def rounds(self) -> int:
        return min(len(samples) for samples in self.of.values())

    def add(self, network: float, layers: Mapping[str, float], control: float, mark: str) -> list[Any]:
        """Keep a sample of the network and of each layer; give what the store is to keep."""
        number = max((sample.round + 1 for samples in self.of.values() for sample in samples), default=0)
        groups = []
        for key, taken in {"": network, **layers}.items():
            sample = Sample(round=number, nanoseconds=taken, control_ns=control, mark=mark)
            self.of[key].append(sample)
            groups.append((LAYER, self._of(key), [sample]) if key else (NETWORK, self.about, [sample]))
        return groups

    def estimates(self, reference: float) -> dict[str, Estimate]:
        """Return what each figure is, in nanoseconds of a machine on which the control takes the reference."""
        return {
            key: estimate(normalised(_counting(samples), reference), seed=number)
            for number, (key, samples) in enumerate(self.of.items())
        }

    def certain(self, reference: float, error: float) -> bool:
        """Tell whether all figures are certain enough."""
        found = self.estimates(reference)
        whole = found[""].median
        return all(
            item.error <= error * (whole if key == "" else max(item.median, 0.1 * whole)) for key, item in found.items()
        )


def _counting(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the samples that nothing disturbed, where they are enough; else all."""
    calm = [sample for sample in samples if sample.mark != DRIFTED]
    return calm if len(calm) >= CALM else samples


def normalised(samples: Sequence[Sample], reference: float) -> NDArray[np.float64]:
    """Return samples as they would be on a machine on which the control takes the reference, nanoseconds."""
    return np.array(
        [s.nanoseconds * (reference / s.control_ns if s.control_ns else 1.0) for s in samples], dtype=np.float64
    )


def times(
    programs: Mapping[str, Program],
    control: str,
    device: Device,
    store: Store,
    abouts: Mapping[str, Mapping[str, Any]],
    plan: Plan,
    tell: Callable[[int, int], None],
) -> tuple[dict[str, Timed], float]:
    """Time programs beside a control, and keep every sample as soon as its round is over.

    Args:
        programs: Programs by name; equal ones only once.
        control: Name of the exact network among them.
        device: What made them.
        store: Has the samples of earlier runs, which count, and takes the new ones.
        abouts: What samples of each program are kept under.
        plan: How long to go on.
        tell: Is told how many rounds are over, and how many there may be.

    Returns:
        What was seen of each program, by name, and the control's nanoseconds that all of it is relative to.
    """
    seen = {name: _Seen(store, abouts[name], program) for name, program in programs.items()}
    machine = _Machine(device, programs[control])
    open_ = {name for name, one in seen.items() if one.rounds < plan.most}
    for done in range(plan.most):
        wanted = [name for name in programs if name in open_ and seen[name].rounds <= done]
        if wanted:
            groups = []
            for name, (network, layers, beside, mark) in machine.round({n: programs[n] for n in wanted}).items():
                groups += seen[name].add(network, layers, beside, mark)
                if mark:
                    store.note("kept", f"a sample of build {name}", f"the control had drifted {ATTEMPTS} times")
            store.add_rounds(groups)
        tell(done + 1, plan.most)
        if done + 1 >= plan.least and (done + 1 - plan.least) % BLOCK == 0:
            reference = _reference(seen)
            open_ = {name for name in open_ if not seen[name].certain(reference, plan.error)}
            if not open_:
                break
    if machine.repeated:
        store.note("retried", f"{machine.repeated} samples", "the control had moved by more than 5 %")
    found, reference = {}, _reference(seen)
    for name, one in seen.items():
        figures = one.estimates(reference)
        found[name] = Timed(
            network=figures[""],
            layers={layer: figures[layer] for layer in one.layers},
            rounds=one.rounds,
            drifted=sum(sample.mark == DRIFTED for sample in one.of[""]),
        )
    return found, reference


def _reference(seen: Mapping[str, _Seen]) -> float:
    """Return what the control took beside the samples that count, nanoseconds."""
    return float(np.median([sample.control_ns or 0.0 for one in seen.values() for sample in one.of[""]]))


_Taken = tuple[float, Mapping[str, float], float, str]
"""A sample of a network and of its layers, the control beside them, and a mark."""


class _Machine:
    """Takes samples, and watches how fast the machine is."""

    def __init__(self, device: Device, control: Program) -> None:
        self._device = device
        self._control = control
        self.controls: list[float] = []
        self.repeated = 0
        self._taken = 0
        look = getattr(device, "canary", None)
        self._quiet = None if look is None else Quiet(look)

    @property
    def _most(self) -> int:
        """Repetitions that are worth their time: on a machine that never rests, as many as samples."""
        return LEAST_REPEATED + self._taken

    def round(self, programs: Mapping[str, Program]) -> dict[str, _Taken]:
        """Time each program once, and again where the control moved."""
        if hasattr(self._device, "sample_round"):
            # A device of several machines holds each sample against the control on the same machine by itself.
            (control, _), *others = sample_round(self._device, self._control, list(programs.values()))
            self.controls.append(control)
            return {name: (*taken, control, "") for name, taken in zip(programs, others, strict=True)}
        if not self.controls:
            self.controls += [self._control.sample() for _ in range(WARMING)]
        found = {}
        before = self._control.sample()
        for name, program in programs.items():
            for attempt in range(ATTEMPTS + 1):
                if self._quiet is not None:
                    self._quiet.wait()
                network, layers = program.sample(), program.sample_layers()
                after = self._control.sample()
                beside = 0.5 * (before + after)
                # What is usual may change for good, as where a processor gets warm.
                usual = float(np.median(self.controls[-USUAL:]))
                moved = abs(after - before) > DRIFT * beside or abs(beside - usual) > DRIFT * usual
                moved = moved or (self._quiet is not None and self._quiet.disturbed())
                self.controls.append(after)
                before = after
                if not moved or self.repeated >= self._most:
                    break
                self.repeated += attempt < ATTEMPTS
            self._taken += 1
            found[name] = (network, layers, beside, DRIFTED if moved else "")
        return found
