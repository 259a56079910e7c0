"""A network's operators as the compiler has them just before it fuses them, and what it says of the kernels after."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KernelFacts", "Outline", "RawOperation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOperation:
    """State one operator of a network.

    Attributes:
        layer: Number of its layer; None where its name does not say.
        hint: What it does, and the forms of the constants that it reads.
        pattern: TVM's number for how its result depends on what it reads.
        form: Type and lengths of its result, ``uint8[2,784,16]``.
        reads: Numbers of the operators whose results it reads, constants aside; -1 for the network's input.
        shared: Whether later readers of the same tensor take its result.
        view: Whether it only names the same bytes anew.
    """

    layer: int | None
    hint: str
    pattern: int
    form: str
    reads: tuple[int, ...]
    shared: bool
    view: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """What only the schedule of a kernel says.

    Attributes:
        workspace_bytes: Bytes that it is handed to work in.
        asked_bytes: Bytes that it asks of the runtime besides, for each of its threads.
        once: Whether it writes every element of its result once, so that it may write over what it reads as it goes.
    """

    workspace_bytes: int
    asked_bytes: int
    once: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a network that was not compiled would need.

    Attributes:
        operations: Its operators before they are fused; None where memory scripts do not know them.
        kernels: For each kernel call the bytes that it works in, and whether it writes every element once.
        arena_bytes: Bytes for activations: its input, its storages, and the largest workspace.
    """

    operations: tuple[RawOperation, ...] | None
    kernels: tuple[KernelFacts, ...]
    arena_bytes: int
