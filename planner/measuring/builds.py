"""The networks that are built to measure one: each choice wherever it applies, and unlike formats side by side.

What a choice of a layer costs is taken from the first build in which the layer takes it, its home.  The other builds in
which it takes it show what it costs there that its neighbours compute with something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels.latency import LatencyModel, fit, spread
from planner import rewrite
from planner.calibration import Calibration
from planner.choices import EXACT, Choice
from planner.devices import Device, Program, programs, sample_round
from planner.masks.costs import is_masked, mask_builds, random_plan
from planner.measuring.conversions import Observation, patterns, representatives
from planner.measuring.records import Sample, digest
from planner.segments import Entry

if TYPE_CHECKING:
    from planner.measuring.store import Store
    from planner.model import Model

__all__ = ["Build", "Builds"]

METHOD = 1
"""How builds are timed; another number for times that are not to be mixed with those that a store has."""
FEW_IMAGES = 16
"""Calibration images of networks that are only timed and weighed: neither time nor bytes depend on weights' values."""

Tell = Callable[[str, int, int], None]


@dataclass(slots=True)
class Build:
    """A network with a choice for each layer, and what was seen of it.

    Attributes:
        choices: The choice of every layer.
        program: The network made ready on the device.
        networks: Nanoseconds of the whole network, one a round.
        layers: Nanoseconds of each layer, one mapping a round.
    """

    choices: Mapping[str, str]
    program: Program
    networks: list[float] = field(default_factory=list)
    layers: list[Mapping[str, float]] = field(default_factory=list)

    def median_ns(self, layer: str) -> float:
        """Median of a layer's times."""
        return float(np.median([sample[layer] for sample in self.layers]))


class Builds:
    """Builds of one network on one device.

    Attributes:
        found: The builds by name: the choice that is taken everywhere, or ``mixed`` or ``masked`` and a number.
    """

    def __init__(
        self, model: Model, choices: Mapping[str, Sequence[str]], calibration: Calibration, device: Device, store: Store
    ) -> None:
        """Nothing is built yet."""
        self._model = model
        self._choices = choices
        self._calibration = Calibration(model.graph, calibration.images[:FEW_IMAGES], equalise=False)
        self._device = device
        self._store = store
        self.found: dict[str, Build] = {}
        self._homes: dict[tuple[str, str], Build] = {}

    @property
    def exact(self) -> Build:
        """The exact network."""
        return self.found[EXACT]

    def compile(self, tell: Tell) -> None:
        """Build the network once for each choice, that choice wherever it applies, and for each change of format."""
        wanted = self._wanted()
        entries = []
        for done, chosen in enumerate(wanted.values()):
            tell(f"{self._model.name}: building", done, 2 * len(wanted))
            entries.append(self._entry(chosen))
        found = programs(self._device, entries)
        for (name, chosen), program in zip(wanted.items(), found, strict=True):
            build = Build(chosen, program)
            self.found[name] = build
            for place in chosen.items():
                self._homes.setdefault(place, build)

    def _wanted(self) -> dict[str, dict[str, str]]:
        """Return the choices of each build, those that stand for a type of numbers first."""
        typical = {layer: representatives(offered) for layer, offered in self._choices.items()}
        names = dict.fromkeys(name for found in typical.values() for name in found.values())
        names |= dict.fromkeys(n for offered in self._choices.values() for n in offered if not is_masked(n))

        def chosen(name: str) -> dict[str, str]:
            # Layers that are not offered it compute with the same numbers, so that nothing has to be converted.
            dtype = Choice.parse(name).dtype
            return {
                layer: name if name in offered else typical[layer].get(dtype, EXACT)
                for layer, offered in self._choices.items()
            }

        mixed = patterns(self._model.graph, self._choices)
        masked = mask_builds(self._model.graph, self._choices)
        return {
            **{name: chosen(name) for name in names},
            **{f"mixed {n}": mix for n, mix in enumerate(mixed, start=1)},
            **{f"masked {n}": mix for n, mix in enumerate(masked, start=1)},
        }

    def _entry(self, chosen: Mapping[str, str]) -> Entry:
        """Rewrite the network for its time and bytes, which do not depend on the values of weights."""
        rewritten = rewrite.apply(self._model.graph, chosen, self._calibration, refit=False)
        return Entry(name=self._model.name, model=rewritten.model, nodes=rewritten.nodes)

    def slack(self, mixes: int, seed: int, tell: Tell) -> int:
        """Find by how many bytes an arena exceeds the greatest of its layers' live sets at worst.

        Args:
            mixes: How many random plans to look at, besides the builds.
            seed: Seed of the random plans.
            tell: Is told how far the work is.
        """
        random = np.random.default_rng(seed)
        arenas = [(build.choices, build.program.footprint.arena_bytes) for build in self.found.values()]
        for done in range(mixes if len(arenas) > 1 else 0):
            tell(f"{self._model.name}: planning memory", done, mixes)
            chosen = random_plan(self._model.graph, self._choices, random)
            arenas.append((chosen, self._device.planned_arena(self._entry(chosen))))
        live = [max(self.live_bytes(*place) for place in chosen.items()) for chosen, _ in arenas]
        return max(0, *(arena - most for (_, arena), most in zip(arenas, live, strict=True)))

    def time(self, rounds: int, tell: Tell) -> None:
        """Time all builds in turn, each round in the store when the next begins; what is there is not timed again."""
        abouts = {name: self._about(build) for name, build in self.found.items()}
        for name, build in self.found.items():
            self._recall(build, abouts[name])
        for done in range(rounds):
            due = {name: build for name, build in self.found.items() if len(build.networks) <= done}
            if due:
                # The exact network is the control of every round, even where it has been timed often enough.
                due = {EXACT: self.exact, **due}
                control, *others = (build.program for build in due.values())
                times = sample_round(self._device, control, others)
                groups = []
                for (name, build), (network, layers) in zip(due.items(), times, strict=True):
                    for what, about, taken, exact in (
                        ("network", abouts[name], network, times[0][0]),
                        *(("layer", self._of(abouts[name], at), layers[at], times[0][1][at]) for at in self._choices),
                    ):
                        sample = Sample(round=len(build.networks), nanoseconds=taken, control_ns=exact)
                        groups.append((what, about, [sample]))
                self._store.add_rounds(groups)
                for build, (network, layers) in zip(due.values(), times, strict=True):
                    build.networks.append(network)
                    build.layers.append(layers)
            tell(f"{self._model.name}: timing {len(self.found)} builds", done + 1, rounds)

    def _about(self, build: Build) -> dict[str, Any]:
        """Say what times of a build depend on: the weights' values are not among it."""
        return {
            "method": METHOD,
            "model": self._model.graph.source_digest,
            "device": self._device.describe(),
            "choices": dict(build.choices),
        }

    def _of(self, about: Mapping[str, Any], layer: str) -> dict[str, Any]:
        return {"network": digest(about), "layer": layer}

    def _recall(self, build: Build, about: Mapping[str, Any]) -> None:
        """Take what the store has of a build."""
        networks = self._store.samples("network", about)
        # Read after the networks: another run that is at the same may have added a round to all of them in between.
        layers = {layer: self._store.samples("layer", self._of(about, layer)) for layer in self._choices}
        for at, sample in enumerate(networks):
            build.networks.append(sample.nanoseconds)
            build.layers.append({layer: found[at].nanoseconds for layer, found in layers.items()})

    def fit(self) -> LatencyModel:
        """Fit what the sum of layers misses of the whole."""
        builds = self.found.values()
        return fit(
            np.array([sum(build.median_ns(layer) for layer in self._choices) for build in builds]),
            np.array([float(sum(build.program.footprint.kernels.values())) for build in builds]),
            np.array([float(np.median(build.networks)) for build in builds]),
        )

    def totals(self) -> dict[str, dict[str, float]]:
        """Return median and spread of each build's whole network, nanoseconds."""
        return {
            name: {"median": float(np.median(build.networks)), "std": spread(np.array(build.networks))}
            for name, build in self.found.items()
        }

    def layer_ns(self, layer: str, choice: str, fitted: LatencyModel) -> float:
        """Time that a layer takes under a choice, where its neighbours read and write what it does."""
        return self._taken_ns(self._homes[layer, choice], layer, fitted)

    def spread_ns(self, layer: str, choice: str) -> float:
        """Spread of that time as it was measured."""
        return spread(np.array([sample[layer] for sample in self._homes[layer, choice].layers]))

    def weight_bytes(self, layer: str, choice: str) -> int:
        """Bytes of a layer's weights in the artefact."""
        return self._homes[layer, choice].program.footprint.weight_bytes[layer]

    def live_bytes(self, layer: str, choice: str) -> int:
        """Bytes alive while a layer runs, in the worst of the builds in which it takes the choice."""
        builds = [build for build in self.found.values() if build.choices[layer] == choice]
        return max(build.program.footprint.live_bytes[layer] for build in builds)

    def observations(self, fitted: LatencyModel) -> list[Observation]:
        """Return what each layer takes in each build beyond what it takes in the home of its choice."""
        return [
            Observation(
                choices=build.choices,
                layer=layer,
                excess_ns=self._taken_ns(build, layer, fitted) - self.layer_ns(layer, choice, fitted),
            )
            for build in self.found.values()
            for layer, choice in build.choices.items()
            if build is not self._homes[layer, choice]
        ]

    def _taken_ns(self, build: Build, layer: str, fitted: LatencyModel) -> float:
        return fitted.layer_ns(build.median_ns(layer), calls=build.program.footprint.kernels[layer])
