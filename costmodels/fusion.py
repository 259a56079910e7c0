"""Which operators become one kernel: what is fused is worked out from a network's operators, without a compiler.

An operator is fused into the nearest one that all it makes flows into, its immediate post-dominator, where what lies
between them is simple enough (T. Chen et al., *TVM: an automated end-to-end optimizing compiler for deep learning*,
OSDI 2018, section 3).  On a graph without cycles the post-dominators come of one pass from the end, as the nearest
common ancestor of the readers (K. Cooper, T. Harvey and K. Kennedy, *A simple, fast dominance algorithm*, 2001).  That
the groups are those that the compiler forms is checked wherever a network is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import IntEnum

__all__ = ["Pattern", "fused"]


class Pattern(IntEnum):
    """How an operator's result depends on what it reads; the compiler's own numbers."""

    ELEMENTWISE = 0
    BROADCAST = 1
    INJECTIVE = 2
    REDUCTION = 3
    FUSABLE = 4
    """Complex; elementwise operators may follow in the same kernel."""
    OPAQUE = 8
    """Never fused."""


def fused(
    patterns: Sequence[int], reads: Sequence[Sequence[int]], kept: Collection[int]
) -> tuple[tuple[int, ...], ...]:
    """Group operators into kernels.

    Args:
        patterns: How each operator depends on what it reads, operators in the order in which they stand.
        reads: Numbers of the operators whose results each one reads.
        kept: Operators whose results are read from outside: nothing follows these in their kernel.

    Returns:
        The kernels in the order in which they run, each with the numbers of its operators.

    >>> convolution = (Pattern.OPAQUE, Pattern.FUSABLE, Pattern.ELEMENTWISE)
    >>> fused(convolution, ((), (0,), (1,)), kept=(2,))
    ((0,), (1, 2))
    """
    groups = _Groups(patterns, reads, kept)
    # Injective operators come second: what is complex has by then taken what follows it.
    for take_injective in (False, True):
        for number in range(len(patterns)):
            groups.grow(number, take_injective=take_injective)
    return groups.in_order()


class _Groups:
    """Operators on their way into kernels: a forest, its roots the kernels' last operators."""

    def __init__(self, patterns: Sequence[int], reads: Sequence[Sequence[int]], kept: Collection[int]) -> None:
        self._reads = reads
        self._readers: list[list[int]] = [[] for _ in patterns]
        for number, sources in enumerate(reads):
            for source in sources:
                self._readers[source].append(number)
        self._own = patterns
        self._above = list(range(len(patterns)))
        self._pattern = list(patterns)
        self._complex = [pattern == Pattern.FUSABLE for pattern in patterns]
        self._sink: list[int | None] = [None] * len(patterns)
        self._way = [int(Pattern.OPAQUE)] * len(patterns)
        self._depth = [1] * len(patterns)
        for number in reversed(range(len(patterns))):
            if number not in kept:
                self._dominate(number)

    def _dominate(self, number: int) -> None:
        """Find the immediate post-dominator of an operator, and the least simple pattern on the way there."""
        way = int(Pattern.ELEMENTWISE)
        sink: int | None = None
        for place, reader in enumerate(self._readers[number]):
            if place == 0:
                sink = reader
            else:
                sink, way = self._common(sink, reader, way)
            way = max(way, self._own[reader])
        self._sink[number], self._way[number] = sink, way
        self._depth[number] = 1 + (self._depth[sink] if sink is not None else 0)

    def _common(self, one: int | None, other: int | None, way: int) -> tuple[int | None, int]:
        while one != other:
            if one is None or other is None:
                return None, way
            one_depth, other_depth = self._depth[one], self._depth[other]
            if one_depth >= other_depth:
                way, one = max(way, self._way[one]), self._sink[one]
            if other_depth >= one_depth:
                way, other = max(way, self._way[other]), self._sink[other]
        return one, way

    def _root(self, number: int) -> int:
        while self._above[number] != number:
            number = self._above[number]
        return number

    def _between(self, source: int, sink: int) -> set[int]:
        """Return what lies on the ways from an operator to its post-dominator, that one included."""
        seen: set[int] = set()
        waiting = list(self._readers[source])
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                waiting += self._readers[number] if number != sink else []
        return seen

    def grow(self, number: int, *, take_injective: bool) -> None:
        """Fuse an operator into its post-dominator where the rules allow it."""
        sink, pattern = self._sink[number], self._pattern[number]
        if sink is None or pattern == Pattern.OPAQUE or self._root(number) == self._root(sink):
            return
        ways = self._between(number, sink)

        def all_of(allowed: Callable[[int, bool], bool]) -> bool:
            return all(allowed(self._pattern[self._root(met)], met == sink) for met in ways)

        if pattern == Pattern.FUSABLE:
            follows = not take_injective and self._way[number] == Pattern.ELEMENTWISE
            fits = follows and all_of(lambda met, _: met <= Pattern.BROADCAST)
        elif pattern <= Pattern.BROADCAST:
            # What ends the way may be the kernel of something complex already.
            fits = self._way[number] <= Pattern.REDUCTION and all_of(
                lambda met, last: met <= (Pattern.FUSABLE if last else Pattern.INJECTIVE)
            )
        elif pattern == Pattern.INJECTIVE:
            fits = take_injective and all_of(lambda met, _: met <= Pattern.INJECTIVE)
        else:
            fits = False
        if fits:
            for met in (number, *(ways - {sink})):
                self._merge(self._root(met), self._root(sink))

    def _merge(self, group: int, into: int) -> None:
        if group == into:
            return
        self._above[group] = into
        if self._complex[group]:
            self._complex[into] = True
            self._pattern[into] = max(self._pattern[group], self._pattern[into])

    def in_order(self) -> tuple[tuple[int, ...], ...]:
        """Return the kernels: in the order of their first operators, each after all that it reads."""
        members: dict[int, list[int]] = {}
        sources: dict[int, list[int]] = {}
        for number in range(len(self._own)):
            root = self._root(number)
            members.setdefault(root, []).append(number)
            for source in self._reads[number]:
                if self._root(source) != root:
                    sources.setdefault(root, []).append(self._root(source))
        done: set[int] = set()
        found: list[tuple[int, ...]] = []
        for first in members:
            waiting = [first]
            while waiting:
                root = waiting[-1]
                missing = next((source for source in sources.get(root, ()) if source not in done), None)
                if missing is not None:
                    waiting.append(missing)
                    continue
                waiting.pop()
                if root not in done:
                    done.add(root)
                    found.append(tuple(members[root]))
        return tuple(found)
