"""Compiling networks with TVM."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import InputError
from planner.linking import link, linker
from planner.segments import Entry

if TYPE_CHECKING:
    from costmodels.memory import MemoryScript
    from planner.operators import KernelFacts, Outline, RawOperation
    from planner.schedules import Options

logger = logging.getLogger(__name__)

_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("x86-64-v4", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
    ("x86-64-v3", frozenset({"avx2", "fma", "bmi2", "f16c"})),
    ("x86-64-v2", frozenset({"sse4_2", "ssse3", "popcnt"})),
    ("x86-64", frozenset()),
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A module that has been compiled.

    Attributes:
        executable: TVM's ``VMExecutable``.
        schedules: How each kernel was scheduled, by kernel name.
        workspaces: Bytes that a kernel asks of the runtime, by kernel name: what it needs for itself in parallel loops,
            and none as a rule.  What else it works in lies in the network's storage.
        plans: For each network its planned storages in bytes, network output included.
        module: The ``tvm.IRModule`` that code was generated from: kernel calls in order, with what they are handed.
        calls: Where kernels were merged: for each network the kernels that it would call by itself, in order.
        signatures: Where kernels were merged: a digest of each of those kernels, the same for equal ones.
        operations: For each network its operators before they were fused; None where memory scripts do not know them.
        kernels: For each network what the schedules of its kernels say, call after call.
    """

    executable: Any
    schedules: Mapping[str, str]
    workspaces: Mapping[str, int]
    plans: Mapping[str, tuple[int, ...]]
    module: Any
    calls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    operations: Mapping[str, tuple[RawOperation, ...] | None] = field(default_factory=dict)
    kernels: Mapping[str, tuple[KernelFacts, ...]] = field(default_factory=dict)

    def named(self, network: str, kernels: Sequence[str]) -> list[str]:
        """Name the kernels that a network was seen to run as they were called before equal ones were merged.

        Calls that only look at a tensor in another shape are not run, and left out.
        """
        calls = iter(self.calls[network])
        return [next(call for call in calls if self.signatures[call] == self.signatures[kernel]) for kernel in kernels]


def host_target(threads: int = 1) -> dict[str, Any]:
    """Describe the processor of this machine as a TVM target.

    A virtual machine can mask instructions that its processor's name implies, so the flags that the kernel
    reports have the last word.

    Args:
        threads: Threads that kernels may spread over.
    """
    from tvm.target import codegen

    processor = str(codegen.llvm_get_system_cpu())
    target: dict[str, Any] = {"kind": "llvm", "mcpu": processor, "num-cores": threads}
    flags = _flags()
    if platform.machine() == "x86_64" and flags:
        import tvm

        for _, needed in _LEVELS:
            implied = all(codegen.llvm_cpu_has_features(f.replace("_", "."), tvm.target.Target(target)) for f in needed)
            if implied and not needed <= flags:
                target["mcpu"] = next(name for name, level in _LEVELS if level <= flags)
                logger.warning("this machine hides instructions of a %s; compiling for %s", processor, target["mcpu"])
                break
    return target


def _flags() -> frozenset[str]:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return frozenset()
    for line in information.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def pass_names() -> tuple[str, ...]:
    """Name every pass of a build in order, as written to the build config."""
    from planner import schedules

    return (*schedules.pass_names(), *(p.info.name for p in _plan().passes), *_finalise_names())


def pass_context() -> dict[str, Any]:
    """Give the options of TVM's PassContext that builds run under."""
    import tvm

    current = tvm.transform.PassContext.current()
    return {
        "opt_level": int(current.opt_level),
        "config": {str(key): str(value) for key, value in current.config.items()},
    }


def _allocate() -> Any:
    """Return the passes that give every tensor storage of its own."""
    import tvm
    from tvm import relax

    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.LowerAllocTensor(),
        ]
    )


def _plan() -> Any:
    import tvm

    from planner.storages import one_storage

    return tvm.transform.Sequential([*_allocate().passes, one_storage()])


def _finalise() -> Any:
    import tvm
    from tvm import relax

    transform = relax.transform
    return tvm.transform.Sequential(
        [
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )


def _finalise_names() -> tuple[str, ...]:
    return tuple(p.info.name for p in _finalise().passes)


def _storages(module: Any) -> dict[str, tuple[int, ...]]:
    """Read TVM's storage plan off a module: bytes of each storage, by function."""
    from tvm import relax

    plans = {}
    for var, function in module.functions_items():
        if not isinstance(function, relax.Function):
            continue
        sizes = [
            int(binding.value.args[0].values[0])
            for block in function.body.blocks
            for binding in block.bindings
            if getattr(getattr(binding.value, "op", None), "name", "") == "relax.memory.alloc_storage"
        ]
        plans[var.name_hint] = tuple(sizes)
    return plans


def fuse_networks(entries: Sequence[Entry], target: Any, options: Options | None = None) -> Any:
    """Lower networks to fused kernels.

    Args:
        entries: The networks.
        target: A ``tvm.target.Target``.
        options: What the kernels may do.

    Returns:
        A ``tvm.IRModule``.
    """
    return join_operators(arrange_networks(entries, target, options), target)


def arrange_networks(entries: Sequence[Entry], target: Any, options: Options | None = None) -> Any:
    """Lower networks to operators that are not fused yet: all that their memory depends on but the schedules.

    Args:
        entries: The networks.
        target: A ``tvm.target.Target``.
        options: What the kernels may do.

    Returns:
        A ``tvm.IRModule`` for :func:`join_operators` and :func:`planner.schedules.operations.read_operations`.
    """
    from planner import schedules
    from planner.lowering import lower

    with target:
        return schedules.arrange(options)(lower(entries))


def join_operators(arranged: Any, target: Any) -> Any:
    """Fuse the operators of networks into kernels.

    Args:
        arranged: What :func:`arrange_networks` gave.
        target: A ``tvm.target.Target``.

    Returns:
        A ``tvm.IRModule``.
    """
    from planner import schedules

    with target:
        return schedules.join()(arranged)


def schedule_networks(fused: Any, target: Any, chosen: Mapping[str, str] | None = None) -> Any:
    """Schedule fused kernels, and generate no code.

    Args:
        fused: What :func:`fuse_networks` gave.
        target: A ``tvm.target.Target``.
        chosen: Schedules by kernel name, in place of what the rules would choose.

    Returns:
        A ``tvm.IRModule``.

    Raises:
        InputError: A schedule was chosen for a kernel that is not there, or that it does not fit.
    """
    from planner import schedules

    with target:
        try:
            return schedules.schedule_kernels(schedules.choose(fused, chosen or {}), schedules.rules(target))
        except schedules.UnfitScheduleError as error:
            raise InputError(str(error)) from error


def compile_networks(
    entries: Sequence[Entry],
    target: Mapping[str, Any],
    *,
    options: Options | None = None,
    chosen: Mapping[str, str] | None = None,
    search_s: float = 0.0,
    merged: bool = False,
) -> Compiled:
    """Compile networks into one module.

    Args:
        entries: The networks.
        target: A TVM target as a mapping, for example from :func:`host_target`.
        options: What the kernels may do.
        chosen: Schedules by kernel name, as :attr:`Compiled.schedules` has them, in place of what the rules
            would choose.
        search_s: Seconds to measure other schedules for, on this machine; what was found before is taken from
            the user's cache.
        merged: Whether networks share the kernels that are equal, which compiles many like networks sooner.

    Raises:
        InputError: A schedule was chosen for a kernel that is not there, or that it does not fit.
    """
    import tvm

    from planner import schedules
    from planner.schedules.merging import merge
    from planner.schedules.operations import kernel_facts, read_operations

    kind = tvm.target.Target(dict(target))
    arranged = arrange_networks(entries, kind, options)
    fused = join_operators(arranged, kind)
    together = merge(fused) if merged else None
    if together is not None:
        fused = together.module
    if search_s > 0:
        from planner.schedules.search import search

        chosen = {**search(fused, kind, seconds=search_s), **(chosen or {})}
    scheduled = schedule_networks(fused, kind, chosen)
    with kind:
        planned = _plan()(scheduled)
        executable = tvm.compile(planned, target=kind, relax_pipeline=_finalise())
    return Compiled(
        executable=executable,
        schedules=schedules.describe(scheduled),
        workspaces=schedules.workspaces(planned),
        plans=_storages(planned),
        module=planned,
        calls=together.calls if together else {},
        signatures=together.signatures if together else {},
        operations={entry.name: read_operations(arranged, entry.name) for entry in entries},
        kernels=kernel_facts(fused, scheduled, [entry.name for entry in entries]),
    )


def export(compiled: Compiled, path: Path, *, mtriple: str | None = None) -> None:
    """Link a compiled module into a shared library; written aside, then renamed.

    Args:
        compiled: The module.
        path: The library.
        mtriple: Kind of machine that it was compiled for, such as ``aarch64-linux-gnu``; None for one like this.

    Raises:
        InputError: Nothing is there that links for that machine.
    """
    link(compiled.executable, path, linker(mtriple))


def export_kernels(compiled: Compiled, path: Path, *, mtriple: str | None = None) -> None:
    """Link the kernels of a compiled module into a library without its networks and constants, to time them alone."""
    link(compiled.executable.mod.imports_[0], path, linker(mtriple))


def memory_script(entry: Entry, target: Mapping[str, Any], options: Options | None = None) -> MemoryScript:
    """State what the kernels of a network read and write: all that its arena depends on.

    No code is generated: kernels are scheduled, because it is schedules that decide what may be computed in place.
    """
    import tvm

    from planner.storages import script_of

    kind = tvm.target.Target(dict(target))
    with kind:
        allocated = _allocate()(schedule_networks(fuse_networks([entry], kind, options), kind))
        return script_of(allocated, entry.name, entry.layers)


def outline(entry: Entry, target: Mapping[str, Any]) -> Outline:
    """Work out what a network needs, its kernels scheduled and its storages planned, but no code generated."""
    import tvm

    from planner import schedules
    from planner.operators import Outline
    from planner.schedules.operations import kernel_facts, read_operations

    kind = tvm.target.Target(dict(target))
    arranged = arrange_networks([entry], kind)
    fused = join_operators(arranged, kind)
    scheduled = schedule_networks(fused, kind)
    with kind:
        planned = _plan()(scheduled)
    allocated = _given(planned, entry.name) + sum(_storages(planned)[entry.name])
    return Outline(
        operations=read_operations(arranged, entry.name),
        kernels=kernel_facts(fused, scheduled, [entry.name])[entry.name],
        arena_bytes=allocated + max(schedules.workspaces(planned).values(), default=0),
    )


def _given(module: Any, network: str) -> int:
    """Count the bytes of a network's input."""
    (given,) = module[network].params
    return prod(int(length) for length in given.ty.shape.values) * int(np.dtype(str(given.ty.dtype)).itemsize)


def planned_arena(entry: Entry, target: Mapping[str, Any]) -> int:
    """Tell how many bytes a network needs for activations: its input, its storages, and the largest workspace.

    No code is generated: the plan is all that is made.
    """
    return outline(entry, target).arena_bytes
