"""The networks that are built to measure one: each choice wherever it applies, and unlike formats side by side.

What a choice of a layer costs is taken from the first build in which the layer takes it, its home.  The other builds in
which it takes it show what it costs there that its neighbours compute with something else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodels import scripts_json
from costmodels.latency import LatencyModel, fit
from costmodels.statistics import spread
from planner import rewrite
from planner.calibration import Calibration
from planner.choices import EXACT, Choice
from planner.devices import Device, Program, programs
from planner.masks.costs import is_masked, mask_builds
from planner.measuring.conversions import Observation, patterns, representatives
from planner.measuring.memory import study
from planner.measuring.records import digest
from planner.measuring.sampling import Plan, Timed, times
from planner.measuring.structure import Structures
from planner.segments import Entry

if TYPE_CHECKING:
    from costmodels.scripts import ModelScripts
    from planner.measuring.store import Store
    from planner.model import Model

__all__ = ["Build", "Builds"]

METHOD = 3
"""How builds are timed; another number for times that are not to be mixed with those that a store has."""
MEMORY_METHOD = 2
"""How memory scripts are learnt, likewise."""
FEW_IMAGES = 16
"""Calibration images of networks that are only timed and weighed: neither time nor bytes depend on weights' values."""
LEAST_ROUNDS = 9
"""Rounds that everything is timed in, however certain it seems."""
PROCESS_SHARE = 0.01
PROCESS_NS = 20.0
"""Standard deviation of a layer's time between processes: a share of it, and nanoseconds of its calls."""

Tell = Callable[[str, int, int], None]


@dataclass(slots=True)
class Build:
    """A network with a choice for each layer, and what was seen of it.

    Attributes:
        choices: The choice of every layer.
        program: The network made ready on the device.
        signatures: For each layer what its code is made of: equal where it computes the same in the same way.
        timed: What its times were, once it was timed.
    """

    choices: Mapping[str, str]
    program: Program
    signatures: Mapping[str, str]
    timed: Timed | None = None

    @property
    def seen(self) -> Timed:
        """What its times were.

        Raises:
            RuntimeError: It has not been timed.
        """
        if self.timed is None:
            raise RuntimeError("the build has not been timed; expected Builds.time before its times are asked for")
        return self.timed

    def median_ns(self, layer: str) -> float:
        """Median of a layer's times."""
        return self.seen.layers[layer].median


class Builds:
    """Builds of one network on one device.

    Attributes:
        found: The builds by name: the choice that is taken everywhere, or ``mixed`` or ``masked`` and a number.
        control_ns: What the exact network took while they were timed, nanoseconds.
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
        self._structures = Structures(self._calibration)
        self.found: dict[str, Build] = {}
        self._homes: dict[tuple[str, str], Build] = {}
        self._context: float | None = None
        self.control_ns = 0.0

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
            own = {layer: f"{name}/{layer}" for layer in chosen}
            build = Build(chosen, program, getattr(program, "signatures", own))
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
        self._structures.remember(rewritten)
        return Entry(name=self._model.name, model=rewritten.model, nodes=rewritten.nodes)

    def memory(self, mixes: int, seed: int, tell: Tell) -> ModelScripts | None:
        """Learn what layers become in memory, so that the arena of any plan can be put together.

        Args:
            mixes: How many random plans to look at, to see whether that is right.
            seed: Seed of the random plans.
            tell: Is told how far the work is.

        Returns:
            The scripts; None on a device that does not say what kernels read and write.
        """
        look = getattr(self._device, "outline", None)
        if look is None:
            return None
        about = {
            "method": MEMORY_METHOD,
            "structure": self._model.graph.structure_digest,
            "device": self._device.describe(),
            "choices": {layer: list(offered) for layer, offered in self._choices.items()},
            "mixes": mixes,
            "seed": seed,
            # Code that lays tensors out in another way shows in these, and so what was learnt of it is learnt anew.
            "builds": {name: digest(asdict(build.program.footprint)) for name, build in self.found.items()},
        }
        known = self._store.get("memory", about)
        if known is None:
            scripts = study(
                self._model.graph,
                self._choices,
                [(build.choices, build.program.outline) for build in self.found.values()],  # type: ignore[attr-defined]
                lambda chosen: look(self._structures.entry(chosen)),
                mixes=mixes if len(self.found) > 1 else 0,
                seed=seed,
                tell=lambda done, of: tell(f"{self._model.name}: planning memory", done, of),
            )
            known = self._store.put("memory", about, None if scripts is None else scripts_json.to_json(scripts))
        return None if known.value is None else scripts_json.parse(known.value)

    def slack(self) -> int:
        """Find by how many bytes the arenas of the builds exceed the greatest of their layers' live sets at worst."""
        return max(
            0,
            *(
                build.program.footprint.arena_bytes - max(self.live_bytes(*place) for place in build.choices.items())
                for build in self.found.values()
            ),
        )

    def time(self, rounds: int, tell: Tell) -> None:
        """Time all builds beside the exact one; what the store has is not timed again.

        Args:
            rounds: Rounds after which timing ends, however uncertain a figure is.
            tell: Is told how far the work is.
        """
        abouts = {name: self._about(build) for name, build in self.found.items()}
        # Builds of the same code are timed once; the exact one, which is the control, under its own name.
        codes = {name: getattr(build.program, "signature", name) for name, build in self.found.items()}
        first = {codes[EXACT]: EXACT}
        alike = {name: first.setdefault(code, name) for name, code in codes.items()}
        timed, self.control_ns = times(
            {name: self.found[name].program for name in first.values()},
            EXACT,
            self._device,
            self._store,
            {name: abouts[name] for name in first.values()},
            Plan(least=min(rounds, LEAST_ROUNDS), most=rounds),
            lambda done, of: tell(f"{self._model.name}: timing {len(first)} builds", done, of),
        )
        for name, other in alike.items():
            self.found[name].timed = timed[other]

    def _about(self, build: Build) -> dict[str, Any]:
        """Say what times of a build depend on: the weights' values are not among it."""
        return {
            "method": METHOD,
            "structure": self._model.graph.structure_digest,
            "device": self._device.describe(),
            "choices": dict(build.choices),
        }

    def fit(self) -> LatencyModel:
        """Fit what the sum of layers misses of the whole."""
        builds = self.found.values()
        return fit(
            np.array([sum(build.median_ns(layer) for layer in self._choices) for build in builds]),
            np.array([float(sum(build.program.footprint.kernels.values())) for build in builds]),
            np.array([build.seen.network.median for build in builds]),
        )

    def totals(self) -> dict[str, dict[str, float]]:
        """Return what each build's whole network takes, nanoseconds: median, spread, and error of the median."""
        return {
            name: {
                "median": build.seen.network.median,
                "std": build.seen.network.spread,
                "error": build.seen.network.error,
                "rounds": build.seen.rounds,
                "drifted": build.seen.drifted,
            }
            for name, build in self.found.items()
        }

    def layer_ns(self, layer: str, choice: str, fitted: LatencyModel) -> float:
        """Time that a layer takes under a choice, where its neighbours read and write what it does."""
        return self._taken_ns(self._homes[layer, choice], layer, fitted)

    def spread_ns(self, layer: str, choice: str) -> float:
        """Standard deviation of that time from one run of the measurement to another, nanoseconds.

        Of two runs a and b of the same measurement, 95 % of all choices of layers have times that differ by no more
        than ``2 * hypot(std_a, std_b)``.  Three independent parts: the standard error of the median; what the same code
        takes in one build beyond another, that computes it at other places in memory and behind other neighbours; and
        what one process takes beyond another (`PROCESS_SHARE`, `PROCESS_NS`).
        """
        home = self._homes[layer, choice]
        alike = self._alike(home, layer)
        error = float(np.hypot.reduce([build.seen.layers[layer].error for build in alike])) / len(alike)
        taken = home.median_ns(layer)
        parts = (error, self._context_share() * taken / np.sqrt(len(alike)), PROCESS_SHARE * taken, PROCESS_NS)
        return float(np.hypot.reduce(parts))

    def _alike(self, home: Build, layer: str) -> list[Build]:
        """Return the builds in which a layer is made of the same code as in one of them."""
        return [build for build in self.found.values() if build.signatures[layer] == home.signatures[layer]]

    def _context_share(self) -> float:
        """Return the relative standard deviation of the times of one layer's code between builds that all have it."""
        if self._context is None:
            parts = []
            for layer in self._choices:
                groups: dict[str, list[float]] = defaultdict(list)
                for build in self.found.values():
                    groups[build.signatures[layer]].append(build.median_ns(layer))
                for taken in groups.values():
                    centre = max(float(np.median(taken)), 1.0)
                    parts += [(value / centre - 1.0) for value in taken if len(taken) > 1]
            self._context = spread(np.array(parts)) if parts else 0.0
        return self._context

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
        """Return what a layer takes, by all builds in which it is made of the same code."""
        taken = float(np.median([other.median_ns(layer) for other in self._alike(build, layer)]))
        return fitted.layer_ns(taken, calls=build.program.footprint.kernels[layer])
