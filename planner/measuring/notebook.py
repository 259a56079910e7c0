"""What was learnt of a network's layers in memory, network by network that was looked at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from costmodels.composing import Found, Laid, anchor_of, found_forms, lay
from costmodels.fusion import fused
from costmodels.scripts import INPUT, LayerScripts, ModelScripts, Operation, Script
from planner.activations.boundaries import FLOAT
from planner.choices import formats
from planner.masks.costs import is_joined
from planner.operators import KernelFacts, RawOperation

if TYPE_CHECKING:
    from planner.graph import LayerGraph

__all__ = ["Notebook", "UnreadableNetworkError"]

logger = logging.getLogger(__name__)


class UnreadableNetworkError(Exception):
    """A network's operators do not fall into layers the way that memory scripts describe."""


@dataclass(slots=True)
class Notebook:
    """Holds what was learnt of one network.

    Attributes:
        graph: The network.
        known: By layer, choice and what was found: the script.
        facts: What is known of kernels from their schedules, by the operator that they are scheduled around: its
            layer, hint and form, and the forms of what it reads.
    """

    graph: LayerGraph
    known: dict[str, dict[str, dict[tuple[str, ...], Script]]] = field(default_factory=dict)
    facts: dict[tuple[str, ...], KernelFacts] = field(default_factory=dict)

    @property
    def input_form(self) -> str:
        """Form of the network's input."""
        return f"float32[{','.join(map(str, self.graph.input_shape))}]"

    def sources(self, layer: str) -> tuple[str, ...]:
        """Name the layers that make what a layer reads, in the order of the network."""
        reads = set(self.graph.layer(layer).inputs)
        before = [INPUT] if self.graph.input_name in reads else []
        return (*before, *(other.name for other in self.graph.layers if reads.intersection(other.outputs)))

    def learn(
        self, choices: Mapping[str, str], operations: Sequence[RawOperation], kernels: Sequence[KernelFacts] = ()
    ) -> int:
        """Take the scripts of all layers from one network.

        Args:
            choices: The choice of every layer.
            operations: Its operators before they are fused.
            kernels: What the schedules of its kernels say, where they were scheduled.

        Returns:
            How many scripts were new.

        Raises:
            UnreadableNetworkError: A layer reads what it is not thought to find, or two networks contradict each other.
        """
        laid = Laid([], [], {})
        members = self._members(operations)
        new = 0
        for layer in (layer.name for layer in self.graph.layers):
            found = found_forms(laid, self.sources(layer), self.input_form)
            script = self._script(layer, operations, members, found, laid)
            known = self.known.setdefault(layer, {}).setdefault(choices[layer], {})
            new += found.forms not in known
            if known.setdefault(found.forms, script) != script:
                raise UnreadableNetworkError(
                    f"{self.graph.name}: layer {layer!r} under {choices[layer]!r} became something else than before, "
                    f"though it found the same: {', '.join(found.forms)}"
                )
            lay(laid, layer, script, found, self._writes(layer, choices[layer]))
        if kernels:
            self._learn_facts(laid, kernels)
        return new

    def _learn_facts(self, laid: Laid, kernels: Sequence[KernelFacts]) -> None:
        """Take from the schedules of a network's kernels what they say of the operators they are made around."""
        operations = laid.operations
        groups = fused(
            [operation.pattern for operation in operations],
            [[read for read in operation.reads if read >= 0] for operation in operations],
            kept={len(operations) - 1},
        )
        if len(groups) != len(kernels):
            raise UnreadableNetworkError(
                f"{self.graph.name}: {len(kernels)} kernels were made of what was thought to become {len(groups)}"
            )
        for group, facts in zip(groups, kernels, strict=True):
            anchor = anchor_of(operations, group)
            reads = [operations[read].form if read >= 0 else self.input_form for read in operations[anchor].reads]
            key = self._key(laid.owners[anchor], operations[anchor], reads)
            before = self.facts.setdefault(key, facts)
            if before != facts:
                # Kernels around one operator differ by what follows it: the one that needs more stands for all.
                self.facts[key] = KernelFacts(
                    workspace_bytes=max(before.workspace_bytes, facts.workspace_bytes),
                    asked_bytes=max(before.asked_bytes, facts.asked_bytes),
                    once=before.once and facts.once,
                )

    @staticmethod
    def _key(layer: str, operation: Operation, reads: Sequence[str]) -> tuple[str, ...]:
        return (layer, operation.hint, operation.form, *reads)

    def _scheduled(self, layer: str, found: Sequence[str], script: Script) -> Script:
        """Write into a script what is known of its kernels."""
        operations = []
        for operation in script.operations:
            reads = [
                script.operations[read].form if read >= 0 else found[-1 - read].rpartition(" ")[2].partition(":")[0]
                for read in operation.reads
            ]
            facts = self.facts.get(self._key(layer, operation, reads))
            operations.append(
                operation
                if facts is None
                else replace(
                    operation,
                    once=facts.once,
                    workspace_bytes=facts.workspace_bytes,
                    asked_bytes=facts.asked_bytes,
                )
            )
        return replace(script, operations=tuple(operations))

    def _members(self, operations: Sequence[RawOperation]) -> dict[str, range]:
        """Return the operators of each layer: they stand one layer after the other."""
        names = [layer.name for layer in self.graph.layers]
        owners: list[int] = []
        for operation in operations:
            owners.append(operation.layer if operation.layer is not None else (owners[-1] if owners else 0))
        if owners != sorted(owners) or len(set(owners)) != len(names):
            raise UnreadableNetworkError(f"{self.graph.name}: its operators do not stand layer after layer")
        return {name: range(owners.index(n), owners.index(n) + owners.count(n)) for n, name in enumerate(names)}

    def _script(
        self, layer: str, operations: Sequence[RawOperation], members: Mapping[str, range], found: Found, laid: Laid
    ) -> Script:
        """Cut out the script of one layer, its reads numbered from its own first operator and by what it finds."""
        mine = members[layer]
        places = {number: -1 - place for place, number in reversed(list(enumerate(found.operations)))}

        def place(read: int) -> int:
            if read in mine:
                return read - mine.start
            if read not in places:
                what = "the network's input" if read < 0 else f"{operations[read].hint} {operations[read].form}"
                raise UnreadableNetworkError(f"{self.graph.name}: layer {layer!r} reads {what}, which it does not find")
            return places[read]

        return Script(
            operations=tuple(
                Operation(
                    hint=operation.hint,
                    pattern=operation.pattern,
                    form=operation.form,
                    reads=tuple(place(read) for read in operation.reads),
                    shared=operation.shared,
                    view=operation.view,
                )
                for operation in operations[mine.start : mine.stop]
            ),
            results=self._results(layer, operations, mine, laid),
        )

    def _results(self, layer: str, operations: Sequence[RawOperation], mine: range, laid: Laid) -> tuple[int, ...]:
        """Return what leaves a layer: what later layers read, unless it is another form of what leaves it already."""
        outside = {read for number in range(mine.stop, len(operations)) for read in operations[number].reads}
        left = [number for number in mine if number in outside or number == len(operations) - 1]
        given = {-1, *left, *(result for results in laid.results.values() for result in results)}
        results = [n for n in left if not (operations[n].shared and given.intersection(operations[n].reads))]
        if len(results) != len(self.graph.layer(layer).outputs):
            raise UnreadableNetworkError(
                f"{self.graph.name}: {len(results)} tensors leave layer {layer!r}; expected "
                f"{len(self.graph.layer(layer).outputs)}"
            )
        return tuple(number - mine.start for number in results)

    def _kind(self, layer: str, choice: str) -> tuple[str, str]:
        """Name how a choice reads, and how it writes: what is added to what a layer makes has those channels."""
        reads, writes = formats(self.graph, layer, choice)
        return str(reads), str(replace(reads, mask=writes.mask))

    def _writes(self, layer: str, choice: str) -> str:
        """Name the type that a choice writes; nothing for float32."""
        written = formats(self.graph, layer, choice)[1].dtype
        return "" if written == FLOAT else written

    def scripts(self, *, slack_bytes: int = 0, checked: int = 0) -> ModelScripts:
        """Return what was learnt."""
        return ModelScripts(
            input_form=self.input_form,
            layers=tuple(
                LayerScripts(
                    name=layer.name,
                    sources=self.sources(layer.name),
                    known={
                        choice: {found: self._scheduled(layer.name, found, script) for found, script in known.items()}
                        for choice, known in self.known.get(layer.name, {}).items()
                    },
                    writes={
                        name: written
                        for name in self.known.get(layer.name, {})
                        if (written := self._writes(layer.name, name))
                    },
                    joined=tuple(
                        source != INPUT and is_joined(self.graph, source, layer.name)
                        for source in self.sources(layer.name)
                    ),
                    kinds={name: self._kind(layer.name, name) for name in self.known.get(layer.name, {})},
                )
                for layer in self.graph.layers
            ),
            slack_bytes=slack_bytes,
            checked=checked,
        )
