"""Find a subset that is in conflict while no smaller part of it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solvers.solution import Status

__all__ = ["Subset", "least_subset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Items in conflict.

    Attributes:
        items: The items.
        minimal: Whether it is proven that without any one of them there is no conflict.

    >>> Subset(items=(1, 2), minimal=True).items
    (1, 2)
    """

    items: tuple[int, ...]
    minimal: bool


def least_subset(items: Sequence[int], status: Callable[[Sequence[int]], Status]) -> Subset:
    """Leave out of a conflict what is not needed for it, by halves.

    U. Junker, QuickXplain: preferred explanations and relaxations for over-constrained problems, AAAI 2004. Finding k
    of n items takes about 2 k log2(n / k) + 2 k questions; a deletion filter takes n.

    Args:
        items: Items in conflict, those that should rather be in the subset first.
        status: Tells whether some of them can be kept together: INFEASIBLE is a conflict, LIMIT that it is not known.

    Returns:
        A conflict among the items, in their order. Where an answer was not known it is not proven minimal.

    >>> def five_and_two(kept):
    ...     return Status.INFEASIBLE if {2, 5} <= set(kept) else Status.OPTIMAL
    >>> least_subset(range(8), five_and_two)
    Subset(items=(2, 5), minimal=True)
    """
    proven = True

    def is_conflict(kept: Sequence[int]) -> bool:
        nonlocal proven
        found = status(kept)
        proven = proven and found is not Status.LIMIT
        return found is Status.INFEASIBLE

    def needed(kept: list[int], candidates: list[int], *, is_grown: bool) -> list[int]:
        """Return the candidates that are needed besides what is kept."""
        if is_grown and is_conflict(kept):
            return []
        if len(candidates) <= 1:
            return candidates
        half = len(candidates) // 2
        first, second = candidates[:half], candidates[half:]
        of_second = needed(kept + first, second, is_grown=True)
        of_first = needed(kept + of_second, first, is_grown=bool(of_second))
        return of_first + of_second

    # Not even an empty set may be free of conflict.
    found = needed([], list(items), is_grown=True)
    return Subset(items=tuple(found), minimal=proven)
