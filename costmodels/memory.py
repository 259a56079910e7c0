"""What a network's kernels read and write, call after call: all that its activation arena depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from costmodels.arena import Packing, Tensor, pack

__all__ = ["Call", "MemoryScript", "Place", "Value"]

Place = Literal["input", "arena", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """State how large a tensor of activations is, and where it lies.

    Attributes:
        bytes: Its size.
        place: ``arena`` for what lies in the network's storage; the network's ``input`` and ``output`` are buffers of
            their own, that the caller holds.

    >>> Value(bytes=12, place="arena").bytes
    12
    """

    bytes: int
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One kernel call.

    Attributes:
        kernel: Name of the kernel.
        owner: The layer it belongs to, the first one where several were fused.
        reads: Values that it reads, by their numbers; constants aside.
        writes: Values that it writes.
        over: Pairs of a value written and a value read whose place it may take: the kernel reads each element before
            it writes it, and nothing later reads it.
        workspace_bytes: What the kernel needs for itself while it runs.

    >>> Call(kernel="fused_relu", owner="relu", reads=(0,), writes=(1,), over=((1, 0),)).workspace_bytes
    0
    """

    kernel: str
    owner: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    over: tuple[tuple[int, int], ...] = ()
    workspace_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryScript:
    """What a network's kernels read and write, in the order in which they run.

    Attributes:
        values: The tensors, by number.
        calls: The kernel calls.

    >>> script = MemoryScript(
    ...     values=(Value(bytes=40, place="input"), Value(bytes=64, place="arena"), Value(bytes=8, place="output")),
    ...     calls=(
    ...         Call(kernel="conv", owner="conv1", reads=(0,), writes=(1,), workspace_bytes=100),
    ...         Call(kernel="dense", owner="fc", reads=(1,), writes=(2,)),
    ...     ),
    ... )
    >>> script.bytes == 40 + (64 + 128) + 8
    True
    """

    values: tuple[Value, ...]
    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        """Check that calls speak of values that are there."""
        for call in self.calls:
            numbers = (*call.reads, *call.writes, *(number for pair in call.over for number in pair))
            odd = [number for number in numbers if not 0 <= number < len(self.values)]
            if odd:
                raise ValueError(f"call {call.kernel} names value {odd[0]}: expected one of {len(self.values)}")

    @property
    def outside_bytes(self) -> int:
        """Bytes of the network's input and output."""
        return sum(value.bytes for value in self.values if value.place != "arena")

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[int, ...], tuple[int, ...]]:
        """State what lies in the arena.

        Returns:
            The tensors, values first and then workspaces; the value of each of the first; the call of each of the
            others.
        """
        born: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, call in enumerate(self.calls):
            for number in (*call.writes, *call.reads):
                born.setdefault(number, step)
                last[number] = step
        kept = [number for number in born if self.values[number].place == "arena"]
        taken: dict[int, int] = {}
        for step, call in enumerate(self.calls):
            for written, read in call.over:
                if written in taken or read in taken.values():
                    continue
                within_arena = self.values[read].place == self.values[written].place == "arena"
                fits = self.values[read].bytes == self.values[written].bytes
                if within_arena and fits and last[read] == step == born[written] and born[read] < step:
                    taken[written] = read
        index = {number: position for position, number in enumerate(kept)}
        values = tuple(
            Tensor(
                bytes=self.values[number].bytes,
                born=born[number],
                last=last[number],
                within=index[taken[number]] if number in taken else None,
            )
            for number in kept
        )
        working = tuple(step for step, call in enumerate(self.calls) if call.workspace_bytes)
        workspaces = tuple(Tensor(bytes=self.calls[step].workspace_bytes, born=step, last=step) for step in working)
        return (*values, *workspaces), tuple(kept), working

    def pack(self) -> Packing:
        """Place what lies in the arena, in the order of :meth:`tensors`."""
        return pack(self.tensors()[0])

    @property
    def bytes(self) -> int:
        """Bytes that the network needs beside its weights: input, output, and one storage for the rest."""
        return self.outside_bytes + self.pack().bytes

    def live_bytes(self) -> Sequence[int]:
        """Count the bytes of the values that are needed during each call, unrounded, input and output included.

        A place that may be taken over counts once.
        """
        tensors, _, _ = self.tensors()
        taken = [tensor for tensor in tensors if tensor.within is not None]
        return [
            self.outside_bytes
            + sum(tensor.bytes for tensor in tensors if tensor.born <= step <= tensor.last)
            - sum(tensor.bytes for tensor in taken if tensor.born == step)
            for step in range(len(self.calls))
        ]
