"""What the layers of a network become in memory, choice by choice, and how that is put together for a whole plan.

A choice's *script* lists the operators that a layer becomes, before any are fused: how each depends on what it reads,
and the form of what it makes (element type and lengths).  Which operators these are depends on the choice and on the
forms in which the layer finds what it reads: bytes or float32, in blocks or plain, and what earlier readers of the
same tensor have already made of it.  It does not depend on what follows.  So scripts of a plan's choices can be laid
end to end; what is fused, when each tensor is needed, and where it lies follows from rules (:mod:`costmodels.fusion`,
:mod:`costmodels.memory`, :mod:`costmodels.arena`), and the arena of any plan is known without compiling it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from costmodels.errors import TableError

__all__ = ["INPUT", "LayerScripts", "ModelScripts", "Operation", "Script", "form_bytes"]

INPUT = ""
"""Stands for the network's input where a layer is named that makes a tensor."""

_ITEM_BYTES = {
    "float64": 8,
    "int64": 8,
    "uint64": 8,
    "float32": 4,
    "int32": 4,
    "uint32": 4,
    "float16": 2,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@cache
def form_bytes(form: str) -> int:
    """Return the bytes of a tensor from its form.

    >>> form_bytes("uint8[2,784,16]")
    25088
    """
    kind, bracket, lengths = form.rstrip("]").partition("[")
    if not bracket or kind not in _ITEM_BYTES or not all(part.isdecimal() for part in lengths.split(",") if part):
        raise TableError(f"the form of a tensor is {form!r}; expected a type and lengths, like uint8[2,784,16]")
    found = _ITEM_BYTES[kind]
    for part in lengths.split(","):
        found *= int(part) if part else 1
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """State one operator of a script.

    Attributes:
        hint: What it does, for the reader; the compiler's word for it.
        pattern: How it depends on what it reads, a :class:`costmodels.fusion.Pattern`.
        form: Type and lengths of what it makes.
        reads: What it reads, constants aside: operators of the same script by number; what the layer finds there is
            counted from -1 downwards.
        shared: Whether later readers of what it reads take its result instead of making it again: another layout or
            a margin of the same tensor.
        view: Whether it only names the same bytes anew where it stands alone in its kernel.
        once: Whether a kernel that ends in what it makes, perhaps behind elementwise operators, writes every element
            once: then what that kernel reads element by element may give its place to what it writes.
        workspace_bytes: What its kernel is handed to work in while it runs.
        asked_bytes: What its kernel asks of the runtime besides; that lies beside the arena.

    >>> Operation(hint="pad", pattern=8, form="float32[1,30,30,16]", reads=(-1,), shared=True).bytes
    57600
    """

    hint: str
    pattern: int
    form: str
    reads: tuple[int, ...]
    shared: bool = False
    view: bool = False
    once: bool = True
    workspace_bytes: int = 0
    asked_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse a form that says no size."""
        object.__setattr__(self, "reads", tuple(self.reads))
        if min(self.workspace_bytes, self.asked_bytes) < 0:
            raise TableError(
                f"workspace_bytes and asked_bytes of {self.hint} are {self.workspace_bytes} and {self.asked_bytes}; "
                "expected 0 or more"
            )
        form_bytes(self.form)

    @property
    def bytes(self) -> int:
        """Bytes of what it makes."""
        return form_bytes(self.form)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """List the operators that a layer becomes.

    Attributes:
        operations: The operators in order.
        results: Those whose results other layers read, or that are the network's output.

    >>> relu = Operation(hint="relu", pattern=0, form="float32[1,10]", reads=(-1,))
    >>> Script(operations=(relu,), results=(0,)).results
    (0,)
    """

    operations: tuple[Operation, ...]
    results: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse operators that read what comes later, and results that are not there."""
        object.__setattr__(self, "operations", tuple(self.operations))
        object.__setattr__(self, "results", tuple(self.results))
        for number, operation in enumerate(self.operations):
            if any(read >= number for read in operation.reads):
                raise TableError(f"operator {number} ({operation.hint}) of a script reads what comes later")
        if not self.results or any(not 0 <= result < len(self.operations) for result in self.results):
            raise TableError(f"the results of a script are {self.results}; expected some of its operators")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScripts:
    """Hold the scripts of one layer.

    Attributes:
        name: Name of the layer.
        sources: The layers that make what it reads, in the order in which a script counts them; :data:`INPUT` for
            the network's input.
        known: For each choice its scripts, by what the layer finds: first the results of its sources in order, as
            ``form`` or ``form:type``, then what earlier readers have made of these for all, as ``number what form``,
            the number that of the result.
        kinds: For each choice in which types it reads and writes, and with which channels, as a word each: choices
            that share a word treat what they read, or what they add to what they make, in the same way.
        writes: For each choice the type that it writes, in the words of formats, where that is not float32: bytes of
            unlike types are one form.
        joined: For each source whether the layer only adds it to what it makes.

    >>> relu = Operation(hint="relu", pattern=0, form="float32[1,10]", reads=(-1,))
    >>> script = Script(operations=(relu,), results=(0,))
    >>> layer = LayerScripts(name="relu1", sources=("",), known={"exact": {("float32[1,10]",): script}})
    >>> layer.known["exact"][("float32[1,10]",)].results
    (0,)
    """

    name: str
    sources: tuple[str, ...]
    known: Mapping[str, Mapping[tuple[str, ...], Script]] = field(hash=False)
    kinds: Mapping[str, tuple[str, str]] = field(default_factory=dict, hash=False)
    writes: Mapping[str, str] = field(default_factory=dict, hash=False)
    joined: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        """Refuse scripts that read what the layer does not find."""
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "joined", tuple(self.joined) or (False,) * len(self.sources))
        object.__setattr__(self, "kinds", {choice: tuple(kind) for choice, kind in self.kinds.items()})
        if len(self.joined) != len(self.sources) or any(len(kind) != 2 for kind in self.kinds.values()):
            raise TableError("joined has one entry for each source, kinds two words for each choice").at(
                layer=self.name
            )
        for choice, scripts in self.known.items():
            for finds, script in scripts.items():
                least = min((read for op in script.operations for read in op.reads), default=0)
                if -least > len(finds):
                    raise TableError(f"a script reads tensor {-least} of {len(finds)} that the layer finds").at(
                        layer=self.name, choice=choice
                    )

    def alike(self, one: str, other: str) -> bool:
        """Tell whether two choices become the same in memory in all that both were seen with, which is something."""
        known, others = self.known.get(one, {}), self.known.get(other, {})
        common = [forms for forms in known if forms in others]
        return bool(common) and all(_bytes_of(known[forms]) == _bytes_of(others[forms]) for forms in common)


def _bytes_of(script: Script) -> tuple[tuple[object, ...], ...]:
    """Return what of a script a network's memory depends on: all but what it calls its operators."""
    operations = tuple(
        (op.pattern, op.form, op.reads, op.shared and op.hint, op.view, op.once, op.workspace_bytes, op.asked_bytes)
        for op in script.operations
    )
    return (*operations, script.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScripts:
    """Hold the scripts of a network, and what it takes to put them together.

    Attributes:
        input_form: Form of the network's input.
        layers: The layers in the order in which they run.
        slack_bytes: Most bytes by which a network that was looked at exceeded what was put together; 0 as a rule.
        checked: Random plans whose memory was put together and then looked at.

    >>> relu = Operation(hint="relu", pattern=0, form="float32[1,10]", reads=(-1,))
    >>> script = Script(operations=(relu,), results=(0,))
    >>> layer = LayerScripts(name="relu1", sources=("",), known={"exact": {("float32[1,10]",): script}})
    >>> ModelScripts(input_form="float32[1,10]", layers=(layer,)).slack_bytes
    0
    """

    input_form: str
    layers: tuple[LayerScripts, ...]
    slack_bytes: int = 0
    checked: int = 0

    def __post_init__(self) -> None:
        """Refuse layers that read what comes later."""
        object.__setattr__(self, "layers", tuple(self.layers))
        form_bytes(self.input_form)
        if min(self.slack_bytes, self.checked) < 0:
            raise TableError("slack_bytes and checked of scripts are numbers of 0 or more")
        before: set[str] = {INPUT}
        for layer in self.layers:
            missing = [source for source in layer.sources if source not in before]
            if missing:
                raise TableError(f"its memory reads of {missing[0]!r}, which is no earlier layer").at(layer=layer.name)
            before.add(layer.name)

    def layer(self, name: str) -> LayerScripts | None:
        """Return the scripts of a layer, None where there are none."""
        return next((layer for layer in self.layers if layer.name == name), None)
