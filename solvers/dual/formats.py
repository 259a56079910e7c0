"""Options told apart only by the formats that their neighbours see: what dynamic programming has to remember."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.arrays import Integers
from solvers.pairs import Pairs

__all__ = ["Classes", "classes"]

_WIDE = 2**31
"""Keys of formats are numbered anew before they reach this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """The options of each group, those of equal formats in one class; classes are numbered through all groups.

    Attributes:
        first: Where the classes of each group begin, ``(groups + 1,)``.
        of_option: The class of each option, ``(options,)``.
        member: One option of each class, ``(classes,)``.

    >>> found = classes(np.array([0, 3]), np.array([0]), np.array([0]), np.array([5, 7, 5]))
    >>> found.first.tolist(), found.of_option.tolist(), found.member.tolist()
    ([0, 2], [0, 1, 0], [0, 1])
    """

    first: Integers
    of_option: Integers
    member: Integers


def classes(start: Integers, group: Integers, begin: Integers, formats: Integers) -> Classes:
    """Put the options of each group that have the same formats in every meeting into one class.

    Args:
        start: Where the options of each group begin, ``(groups + 1,)``.
        group: The group of each side of a meeting, ``(sides,)``.
        begin: Where the formats of that side begin, ``(sides,)``.
        formats: The formats that options have in meetings, from 0.

    Returns:
        The classes; a group in no meeting has one.
    """
    groups, options = len(start) - 1, int(start[-1])
    key = np.zeros(options, np.int64)
    width = 1
    base = int(formats.max(initial=0)) + 1
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_group, sorted_group)
    for place in range(int(rank.max(initial=-1)) + 1):
        if width * base >= _WIDE:
            _, key = np.unique(key, return_inverse=True)
            width = int(key.max()) + 1
        sides = order[rank == place]
        sizes = np.diff(start)[group[sides]]
        at = spans(start[group[sides]], sizes)
        key *= base
        key[at] += formats[spans(begin[sides], sizes)]
        width *= base
    of_group = np.repeat(np.arange(groups, dtype=np.int64), np.diff(start))
    _, member, of_option = np.unique(of_group * width + key, return_index=True, return_inverse=True)
    first = np.searchsorted(of_group[member], np.arange(groups + 1))
    return Classes(first=first.astype(np.int64), of_option=of_option.astype(np.int64), member=member.astype(np.int64))


def spans(begin: Integers, sizes: Integers) -> Integers:
    """Join the ranges that begin there and are so long: ``[begin[0], begin[0] + 1, …, begin[1], …]``.

    >>> spans(np.array([4, 9]), np.array([2, 3])).tolist()
    [4, 5, 9, 10, 11]
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    found: Integers = np.arange(total, dtype=np.int64) + np.repeat(begin - (ends - sizes), sizes)
    return found


def sides(pairs: Pairs) -> tuple[Integers, Integers, Integers]:
    """List both sides of every pair: the group, where its formats begin, and all formats, sources' before targets'.

    Returns:
        The group of each side, ``(2 * pairs,)``; where its formats begin, likewise; the formats.
    """
    group = np.concatenate([pairs.source, pairs.target])
    begin = np.concatenate([pairs.source_start[:-1], pairs.target_start[:-1] + len(pairs.source_format)])
    return group, begin, np.concatenate([pairs.source_format, pairs.target_format])
