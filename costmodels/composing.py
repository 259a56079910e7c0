"""From the scripts of single choices to the memory of a whole plan.

Scripts are laid end to end in the order of the layers, each as it was learnt or worked out for what the layer finds
(:mod:`costmodels.deriving`).  Then operators are fused, and it is known which kernel reads and writes what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from costmodels.deriving import script_for
from costmodels.errors import TableError
from costmodels.fusion import Pattern, fused
from costmodels.memory import Call, MemoryScript, Value
from costmodels.scripts import INPUT, ModelScripts, Operation, Script, form_bytes

__all__ = ["Composition", "Found", "Laid", "anchor_of", "arena_of", "compose", "found_forms", "lay"]

_Over = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """The memory of a plan as put together.

    Attributes:
        script: The kernel calls and what they read and write.
        asked_bytes: The most that a kernel asks of the runtime for itself; it lies beside the arena.
        guessed: Layers whose script is a guess.

    >>> Composition(script=MemoryScript(values=(), calls=()), guessed=("conv2",)).exact
    False
    """

    script: MemoryScript
    asked_bytes: int = 0
    guessed: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that the plan needs beside its weights: input, output, one storage, and what is asked for."""
        return self.script.bytes + self.asked_bytes

    @property
    def exact(self) -> bool:
        """Whether no script is a guess."""
        return not self.guessed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a layer finds when its turn comes.

    Attributes:
        forms: The forms, as :attr:`LayerScripts.known` has them.
        operations: The operator that made each, by its number in the whole network; -1 for the network's input.
    """

    forms: tuple[str, ...]
    operations: tuple[int, ...]


@dataclass(slots=True)
class Laid:
    """Operators of the layers so far, end to end.

    Attributes:
        operations: The operators, their reads numbered through the network; -1 for its input.
        owners: The layer of each.
        results: By layer, the operators whose results others read.
        types: By layer, the type that it writes where that is not float32.
    """

    operations: list[Operation]
    owners: list[str]
    results: dict[str, tuple[int, ...]]
    types: dict[str, str] = field(default_factory=dict)


def found_forms(laid: Laid, sources: Sequence[str], input_form: str) -> Found:
    """Say what a layer finds: the results of its sources, and what earlier readers have made of these for all.

    Args:
        laid: The layers before it.
        sources: The layers that make what it reads.
        input_form: Form of the network's input.
    """
    forms: list[str] = []
    numbers: list[int] = []
    origin: dict[int, int] = {}
    for source in sources:
        for result in (-1,) if source == INPUT else laid.results[source]:
            origin[result] = len(numbers)
            form = input_form if result < 0 else laid.operations[result].form
            forms.append(f"{form}:{laid.types[source]}" if source in laid.types else form)
            numbers.append(result)
    for number, operation in enumerate(laid.operations):
        made_of = next((origin[read] for read in operation.reads if read in origin), None)
        if operation.shared and made_of is not None and number not in origin:
            origin[number] = made_of
            forms.append(f"{made_of} {operation.hint} {operation.form}")
            numbers.append(number)
    return Found(forms=tuple(forms), operations=tuple(numbers))


def compose(scripts: ModelScripts, choices: Mapping[str, str]) -> Composition:
    """Put together the memory of a network.

    Args:
        scripts: What its layers become.
        choices: The choice of every layer.

    Returns:
        Its memory script, and which parts of it are guessed.

    Raises:
        TableError: A layer has no choice, or a choice has no script at all.
    """
    laid = Laid([], [], {})
    guessed = []
    for layer in scripts.layers:
        if layer.name not in choices:
            raise TableError("no choice for a layer whose memory is asked for").at(layer=layer.name)
        found = found_forms(laid, layer.sources, scripts.input_form)
        script, sure = script_for(layer, choices[layer.name], found.forms)
        if not sure:
            guessed.append(layer.name)
        lay(laid, layer.name, script, found, layer.writes.get(choices[layer.name], ""))
    last = scripts.layers[-1].name
    whole, asked = memory_script(laid, laid.results[last][-1], scripts.input_form)
    return Composition(script=whole, asked_bytes=asked, guessed=tuple(guessed))


@lru_cache(maxsize=4096)
def arena_of(scripts: ModelScripts, choices: tuple[str, ...]) -> tuple[int, bool]:
    """Return the bytes of activations of a plan, and whether they are exact.

    Args:
        scripts: What layers become.
        choices: The choice of each layer, in order.
    """
    composed = compose(scripts, {layer.name: choice for layer, choice in zip(scripts.layers, choices, strict=True)})
    return composed.bytes, composed.exact


def lay(laid: Laid, layer: str, script: Script, found: Found, writes: str = "") -> None:
    """Lay a layer's script behind those of the layers before.

    Args:
        laid: The layers before.
        layer: Name of the layer.
        script: Its script.
        found: What it finds.
        writes: The type that it writes, where that is not float32.
    """
    if writes:
        laid.types[layer] = writes
    start = len(laid.operations)

    def number(read: int) -> int:
        if read >= 0:
            return start + read
        # A guess may speak of forms that are not there; it then reads the first thing that is.
        return found.operations[-1 - read] if -read <= len(found.operations) else found.operations[0]

    for operation in script.operations:
        reads = tuple(dict.fromkeys(number(read) for read in operation.reads))
        laid.operations.append(replace(operation, reads=reads))
        laid.owners.append(layer)
    laid.results[layer] = tuple(start + result for result in script.results)


def memory_script(laid: Laid, output: int, input_form: str) -> tuple[MemoryScript, int]:
    """Fuse operators and say what the kernels read and write, and the most that one asks of the runtime.

    Args:
        laid: All operators.
        output: The one whose result leaves the network.
        input_form: Form of the network's input.
    """
    operations = laid.operations
    kernels = fused(
        [operation.pattern for operation in operations],
        [[read for read in operation.reads if read >= 0] for operation in operations],
        kept={output},
    )
    values = [Value(bytes=form_bytes(input_form), place="input")]
    place = {-1: 0}
    calls = []
    outside = _read_outside(operations, kernels, output)
    for kernel in kernels:
        members = set(kernel)
        first = operations[kernel[0]]
        if len(kernel) == 1 and first.view and kernel[0] != output:
            place[kernel[0]] = place[first.reads[0]]
            continue
        reads = tuple(
            dict.fromkeys(place[read] for number in kernel for read in operations[number].reads if read not in members)
        )
        writes = []
        for number in kernel:
            if number in outside:
                place[number] = len(values)
                writes.append(len(values))
                where = "output" if number == output else "arena"
                values.append(Value(bytes=operations[number].bytes, place=where))  # type: ignore[arg-type]
        calls.append(
            Call(
                kernel="+".join(operations[number].hint for number in kernel),
                owner=laid.owners[kernel[0]],
                reads=reads,
                writes=tuple(writes),
                over=_over(operations, kernel, place, kernel[-1]),
                workspace_bytes=operations[anchor_of(operations, kernel)].workspace_bytes,
            )
        )
    asked = max((operations[anchor_of(operations, kernel)].asked_bytes for kernel in kernels), default=0)
    return MemoryScript(values=tuple(values), calls=tuple(calls)), asked


def _read_outside(operations: Sequence[Operation], kernels: Sequence[Sequence[int]], output: int) -> set[int]:
    """Return the operators whose results leave their kernel."""
    kernel_of = {number: index for index, kernel in enumerate(kernels) for number in kernel}
    found = {output}
    for number, operation in enumerate(operations):
        found |= {read for read in operation.reads if read >= 0 and kernel_of[read] != kernel_of[number]}
    return found


def _over(operations: Sequence[Operation], kernel: Sequence[int], place: Mapping[int, int], written: int) -> _Over:
    """Return which of the values that a kernel reads may give their place to what it writes.

    That is where all that is made of an element of the one is the same element of the other: elementwise operators all
    the way, in a kernel that writes every element once.

    Args:
        operations: All operators.
        kernel: Those of the kernel.
        place: The value that each operator's result lies in.
        written: The operator whose result the kernel writes.
    """
    if not operations[anchor_of(operations, kernel)].once:
        return ()
    members = set(kernel)
    result = operations[written]
    spoilt: set[int] = set()
    for number in reversed(kernel):
        operation = operations[number]
        direct = operation.pattern == Pattern.ELEMENTWISE and _lengths(operation.form) == _lengths(result.form)
        if not direct or number in spoilt:
            spoilt.update(operation.reads)
    fitting = [
        read
        for read in dict.fromkeys(read for number in kernel for read in operations[number].reads)
        if read >= 0 and read not in members and read not in spoilt
    ]
    return tuple(
        (place[written], place[read])
        for read in fitting
        if _lengths(operations[read].form) == _lengths(result.form) and operations[read].bytes == result.bytes
    )


def anchor_of(operations: Sequence[Operation], kernel: Sequence[int]) -> int:
    """Return the operator that a kernel is scheduled around: the least simple one, the last of equals."""
    return max(kernel, key=lambda number: (operations[number].pattern, number))


def _lengths(form: str) -> str:
    return form.partition("[")[2]
