"""What is left of a problem without pairs and peaks while its groups are decided: small dense arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.problem import Problem

__all__ = ["Part", "part_of"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Groups that are undecided, each with the options it still has; what is decided stands in the sums.

    All arrays have a place for as many options as the largest group has. The places beyond a group's own repeat its
    first option and are not alive, so that no figure in them is ever out of range.

    Attributes:
        cost: What each option costs in the objective, ``(groups, places)``.
        usage: What each option takes of each capacity, ``(rows, groups, places)``.
        option: Which option of the problem it is, ``(groups, places)``.
        alive: Whether it may still be taken, ``(groups, places)``.
        rows: Which row of the problem each capacity is that of.
        room: What is left of each capacity, ``rows`` integers; can be negative.
        spent: What the decided groups cost in the objective, its constant included.
        decided: The options of the decided groups.

    >>> from solvers.problem import Row
    >>> rows = (Row(name="loss", options=[1], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=9))
    >>> part_of(Problem(start=[0, 2], rows=rows)).room
    (9,)
    """

    cost: Integers
    usage: Integers
    option: Integers
    alive: Mask
    rows: tuple[int, ...]
    room: tuple[int, ...]
    spent: int
    decided: tuple[int, ...]

    def keeping(self, alive: Mask) -> Part:
        """Return the part in which only these options are left, without the groups that have one alone.

        Args:
            alive: The options that stay, ``(groups, places)``; at least one in every group.
        """
        left = alive.sum(axis=1)
        single = np.flatnonzero(left == 1)
        room, spent, decided = self.room, self.spent, self.decided
        if len(single):
            place = alive[single].argmax(axis=1)
            taken = self.usage[:, single, place].sum(axis=1).tolist()
            room = tuple(a - b for a, b in zip(room, taken, strict=True))
            spent += int(self.cost[single, place].sum())
            decided = (*decided, *self.option[single, place].tolist())
        several = np.flatnonzero(left > 1)
        places = int(left[several].max(initial=0))
        # Alive options first, in their order; what stands beyond them is some other option of the group, dead.
        order = np.argsort(~alive[several], axis=1, kind="stable")[:, :places]
        line = several[:, None]
        return Part(
            cost=self.cost[line, order],
            usage=self.usage[:, line, order],
            option=self.option[line, order],
            alive=np.arange(places) < left[several][:, None],
            rows=self.rows,
            room=room,
            spent=spent,
            decided=decided,
        )

    def undominated(self) -> Mask:
        """Say which options no other of their group beats or equals in cost and in every row, ``(groups, places)``.

        Of options that are equal in everything the first stays.
        """
        figures = np.concatenate([self.cost[None], self.usage])
        alive = self.alive.copy()
        for place in range(self.cost.shape[1]):
            one = figures[:, :, place, None]
            no_more = (one <= figures).all(axis=0)
            beaten = no_more & ((one < figures).any(axis=0) | (np.arange(self.cost.shape[1]) > place))
            beaten[~alive[:, place]] = False
            beaten[:, place] = False
            alive &= ~beaten
        return alive


def part_of(problem: Problem) -> Part:
    """Lay a problem without pairs and peaks out in dense arrays, nothing decided.

    Its rows are those that have a capacity, but for the objective's: what it may cost at most is no matter of prices.
    """
    sizes = np.diff(problem.start)
    places = int(sizes.max())
    alive = np.arange(places) < sizes[:, None]
    option = problem.start[:-1, None] + np.where(alive, np.arange(places), 0)
    bound = [(index, row) for index, row in enumerate(problem.rows) if row.capacity is not None]
    bound = [(index, row) for index, row in bound if index != problem.objective]
    usage = np.empty((len(bound), problem.groups, places), dtype=np.int64)
    for line, (_, row) in enumerate(bound):
        usage[line] = problem.dense(row.options, row.costs)[option]
    objective = problem.rows[problem.objective]
    return Part(
        cost=problem.dense(objective.options, objective.costs)[option],
        usage=usage,
        option=option,
        alive=alive,
        rows=tuple(index for index, _ in bound),
        room=tuple(row.capacity - row.constant for _, row in bound if row.capacity is not None),
        spent=objective.constant,
        decided=(),
    )
