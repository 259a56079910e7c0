"""A measured search of seconds: whether other schedules than those the heuristics chose are faster on this machine.

Kernels that are equal up to their names are measured once, those that compute most first.  The schedule that the
heuristics chose is measured twice, as two kernels: how far the two lie apart is the noise that another schedule has
to overcome.  (Of the schedules of a convolution the best is some 2 % faster than what the heuristics choose, and
taking the fastest of many noisy figures would as often make it slower.)
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import tirx

from planner.schedules import choosing, rules
from planner.schedules.scheduling import CHOSEN, FamilyRule, Kernel
from planner.schedules.search_cache import SearchCache, default_path

__all__ = ["better", "search", "signature"]

logger = logging.getLogger(__name__)

MOST_CANDIDATES = 16
"""Schedules of one kernel that are measured at most; rules list the likeliest first."""
_FINALISTS = 3
_HEATS, _FINAL = 5, 15
"""Samples of each schedule: to find the finalists, and to judge them."""
_SAMPLE_S = 1e-3
_MARGIN = 0.01
"""By how much beyond the noise another schedule has to be faster."""
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Kernels that differ in their names alone.

    Attributes:
        names: Their names.
        function: One of them, without what is noted on it.
        texts: Schedules, the default one first.
        work: Points of the loop nests of all of them.
    """

    names: tuple[str, ...]
    function: tirx.PrimFunc
    texts: tuple[str, ...]
    work: int


def signature(function: tirx.PrimFunc) -> str:
    """Give a digest of a fused kernel that is the same whatever it and its variables are called."""
    return f"{tvm_ffi.structural_hash(_bare(function), map_free_vars=True) & (2**64 - 1):016x}"


def search(module: tvm.IRModule, target: Any, *, seconds: float, cache: SearchCache | None = None) -> dict[str, str]:
    """Measure other schedules of fused kernels on this machine.

    Args:
        module: Fused kernels, not scheduled yet.
        target: A ``tvm.target.Target`` whose code this machine runs.
        seconds: How long to go on; the kernel at hand is finished.
        cache: What is known already, and where to add; the user's own if None.

    Returns:
        Schedules for :func:`planner.schedules.choose`, of the kernels for which a faster one was found.
    """
    end = time.perf_counter() + seconds
    cache = cache or SearchCache(default_path())
    known, learnt, chosen = cache.read(), dict[str, str](), dict[str, str]()
    for group in _groups(module, rules(target)):
        key = _key(group, target)
        if key not in known:
            if time.perf_counter() >= end:
                continue
            known[key] = learnt[key] = _fastest(group, target)
            logger.info("%s: %s, by default %s", group.names[0], known[key], group.texts[0])
        if known[key] != group.texts[0]:
            chosen |= dict.fromkeys(group.names, known[key])
    cache.add(learnt)
    return chosen


def _bare(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Take off all that is noted on a kernel but what the compiler itself reads."""
    for name in set(function.attrs.keys()) - {"tirx.noalias", "s_tir"}:
        function = function.without_attr(name)
    return function


def _groups(module: tvm.IRModule, rules: Sequence[FamilyRule]) -> list[_Group]:
    """Collect the kernels that have more than one schedule, those with most work first."""
    alike: dict[str, list[str]] = {}
    functions = choosing.kernels(module)
    for name, function in functions.items():
        alike.setdefault(signature(function), []).append(name)
    groups = []
    for names in alike.values():
        function = _bare(functions[names[0]])
        kernel = Kernel(function)
        rule = choosing.rule_of(kernel, rules)
        texts = [rule.text(parameters) for parameters in (rule.default(kernel), *rule.candidates(kernel))]
        texts = list(dict.fromkeys(texts))[:MOST_CANDIDATES]
        if len(texts) > 1:
            work = len(names) * sum(_points(kernel, block) for block in kernel.names())
            groups.append(_Group(names=tuple(names), function=function, texts=tuple(texts), work=work))
    return sorted(groups, key=lambda group: -group.work)


def _points(kernel: Kernel, block: str) -> int:
    return int(np.prod([kernel.extent(loop) for loop in kernel.loops(block)], dtype=np.int64))


def _key(group: _Group, target: Any) -> str:
    """Say in one digest what a search's result depends on."""
    versions = (version("blinkplan"), version("apache-tvm"))
    return hashlib.sha256(repr((signature(group.function), str(target), versions, group.texts)).encode()).hexdigest()


def _fastest(group: _Group, target: Any) -> str:
    """Measure the schedules of a group and give the one to take."""
    samplers = _samplers(group, target)
    heats = _in_turn(samplers, _HEATS)
    order = sorted(range(2, len(samplers)), key=lambda index: float(np.median(heats[index])))
    finalists = order[:_FINALISTS]
    samples = _in_turn([samplers[index] for index in (0, 1, *finalists)], _FINAL)
    winner = better(samples[0], samples[1], samples[2:])
    return group.texts[0] if winner is None else group.texts[finalists[winner] - 1]


def better(default: Sequence[float], control: Sequence[float], others: Sequence[Sequence[float]]) -> int | None:
    """Judge samples of schedules against two kernels of the default one.

    Args:
        default: Seconds.
        control: Seconds of the same schedule, compiled a second time.
        others: Seconds of other schedules.

    Returns:
        The place of the fastest of the others, if it is faster by more than the noise and its upper quartile lies
        below the lower ones of both; else None.

    >>> better([10, 10.1, 10], [10, 10.2, 10.1], [[9, 9.1, 9], [11, 11, 11]])
    0
    >>> better([10, 10.1, 10], [10, 9, 8.9], [[9, 9.1, 9]]) is None
    True
    """
    medians = [float(np.median(samples)) for samples in others]
    if not medians:
        return None
    winner = int(np.argmin(medians))
    same = sorted((float(np.median(default)), float(np.median(control))))
    apart = float(np.quantile(others[winner], 0.75)) < min(np.quantile(default, 0.25), np.quantile(control, 0.25))
    return winner if apart and medians[winner] < same[0] * (2 - same[1] / same[0] - _MARGIN) else None


def _samplers(group: _Group, target: Any) -> list[Callable[[], float]]:
    """Compile the default schedule twice and each other one once; functions that time them, in seconds.

    Raises:
        RuntimeError: A schedule computes something else than the default one.
    """
    texts = (group.texts[0], *group.texts)
    noted = {
        f"schedule{index}": group.function.with_attr({CHOSEN: text, "global_symbol": f"schedule{index}"})
        for index, text in enumerate(texts)
    }
    with target:
        scheduled = choosing.schedule_kernels(tvm.IRModule(noted), rules(target))
        built = tvm.tirx.build(scheduled, target=target)
    operands = _operands(group.function)
    outputs = [_run(built[name], operands) for name in noted]
    for text, output in zip(texts, outputs, strict=True):
        if np.abs(output - outputs[0]).max(initial=0.0) > _TOLERANCE * max(1.0, np.abs(outputs[0]).max(initial=0.0)):
            raise RuntimeError(
                f"kernel {group.names[0]!r} computes something else with {text!r} than with {texts[0]!r}"
            )
    device = tvm.cpu()
    number = max(1, int(_SAMPLE_S / _Sampler(built.time_evaluator("schedule0", device, number=1), operands)()))
    return [_Sampler(built.time_evaluator(name, device, number=number), operands) for name in noted]


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Times one kernel; the evaluator runs it once before it looks at the clock."""

    evaluate: Any
    operands: Sequence[Any]

    def __call__(self) -> float:
        return float(self.evaluate(*self.operands).mean)


def _in_turn(samplers: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Sample in turn, each round starting with another one."""
    samples: list[list[float]] = [[] for _ in samplers]
    for start in range(rounds):
        for step in range(len(samplers)):
            index = (start + step) % len(samplers)
            samples[index].append(samplers[index]())
    return samples


def _operands(function: tirx.PrimFunc) -> list[Any]:
    """Make seeded random operands, the output among them."""
    random = np.random.default_rng(0)
    return [
        tvm.runtime.tensor(_random(random, [int(n) for n in parameter.ty.shape], str(parameter.ty.dtype)))
        for parameter in function.params
    ]


def _random(random: np.random.Generator, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    if np.issubdtype(np.dtype(dtype), np.integer):
        return random.integers(0, 128, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _run(kernel: Any, operands: Sequence[Any]) -> NDArray[np.float64]:
    kernel(*operands)
    return np.asarray(operands[-1].numpy(), np.float64)
