"""What every single move would change, all of them weighed at once, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import LARGEST, Integers
from solvers.moves.many import roots
from solvers.moves.tables import Tables, ranges, summed
from solvers.moves.walk import Walk

__all__ = ["Scores", "Weights"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What it would change to take each option, ``(options,)``, nothing else being moved.

    Attributes:
        relief: By how much the excess would fall, as shares of the room in each row.
        dearer: What would be added to the objective.
        room: What would be taken of the room in all rows together, as shares; below 0 where it is given back.
    """

    relief: Floats
    dearer: Floats
    room: Floats


class Scores:
    """Weighs all moves; made once for a problem.

    Attributes:
        tables: The problem as accounts and blocks.
    """

    def __init__(self, tables: Tables) -> None:
        """Lay out which costs belong to which row and option."""
        self.tables = tables
        self._sizes = np.diff(tables.block_start)
        in_rows = slice(0, int(tables.block_start[tables.account_start[tables.forbidden + 1]]))
        bound = np.append(tables.capacity < LARGEST, False)[: tables.forbidden + 1]
        row = np.repeat(tables.block_account, self._sizes)[in_rows]
        self._bound = np.flatnonzero(bound[row])
        self._row = row[self._bound]
        self._option = tables.option[self._bound]
        self._share = np.where(bound, 1 / tables.unit, 0.0)
        self._goal = self._of_account(tables.problem.objective)
        self._variances = [
            (account, spread, tables.beside(row, tables.block_group[slice(*self._blocks_of(account))]))
            for row, account, spread in tables.variances
        ]
        self._peaks = [_Peak.of(tables, peak) for peak in range(len(tables.problem.peaks))]

    def _blocks_of(self, account: int) -> tuple[int, int]:
        return int(self.tables.account_start[account]), int(self.tables.account_start[account + 1])

    def _of_account(self, account: int) -> slice:
        """Return where the costs of an account stand."""
        first, beyond = self._blocks_of(account)
        return slice(int(self.tables.block_start[first]), int(self.tables.block_start[beyond]))

    def weigh(self, walk: Walk) -> Weights:
        """Weigh all moves from where a walk stands."""
        tables = self.tables
        options = tables.problem.options
        change = self._change(walk)
        over = np.array(walk.rows, np.int64) - tables.capacity
        moved = change[self._bound]
        now = over[self._row]
        relief = (np.maximum(now, 0) - np.maximum(now + moved, 0)) * self._share[self._row]
        dearer = np.zeros(options)
        dearer[tables.option[self._goal]] = change[self._goal]
        return Weights(
            relief=summed(self._option, relief, options),
            dearer=dearer,
            room=summed(self._option, moved.astype(np.float64) * self._share[self._row], options),
        )

    def _change(self, walk: Walk) -> Integers:
        """Return what each move adds in each place of the tables, peaks and spreads within the rows."""
        tables = self.tables
        places = np.array(walk.places, np.int64)
        cost = tables.cost
        if tables.ends is not None:
            ends = tables.ends
            cost = cost.copy()
            far = np.repeat(ends.far(places), np.diff(ends.cell_start))
            np.add.at(cost, ends.place, ends.cost[ends.cell + far])
        now = cost[tables.block_start[:-1] + places[tables.block_group]]
        change: Integers = cost - np.repeat(now, self._sizes)
        for account, spread, where in self._variances:
            before = walk.accounts[account]
            after = roots(spread, before + change[self._of_account(account)])
            change[where] += after - spread.value(before)
        first = int(tables.peak_start[0])
        for peak, layout in enumerate(self._peaks):
            if layout is not None:
                steps = slice(int(tables.peak_start[peak]) - first, int(tables.peak_start[peak + 1]) - first)
                higher = layout.higher(change, walk.loads[steps])
                for where in layout.in_rows:
                    change[where] += higher
        return change


@dataclass(frozen=True, slots=True, eq=False)
class _Peak:
    """Where a peak's costs stand.

    Attributes:
        places: Where the costs of its steps stand in the tables.
        step: The step of each of its blocks, ``(blocks,)``, from 0.
        group: The group of each of its blocks, ``(blocks,)``, numbered among those that it concerns.
        of_place: For each cost, which of the concerned groups' options has it, numbered among these options.
        block: For each cost, its block.
        of_option: The group of each concerned option, numbered among those that are concerned.
        in_rows: For each row that contains the peak, where the concerned options' costs stand.
    """

    places: slice
    step: Integers
    group: Integers
    of_place: Integers
    block: Integers
    of_option: Integers
    in_rows: list[Integers]

    @classmethod
    def of(cls, tables: Tables, peak: int) -> _Peak | None:
        """Find out where a peak's costs stand; None where no row needs it or nothing changes it."""
        first, beyond = int(tables.peak_start[peak]), int(tables.peak_start[peak + 1])
        rows = [row for row, peaks in enumerate(tables.row_peaks) if peak in peaks]
        blocks = slice(int(tables.account_start[first]), int(tables.account_start[beyond]))
        if not rows or blocks.start == blocks.stop:
            return None
        groups, group = np.unique(tables.block_group[blocks], return_inverse=True)
        sizes = np.diff(tables.problem.start)[groups]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return cls(
            places=slice(int(tables.block_start[blocks.start]), int(tables.block_start[blocks.stop])),
            step=tables.block_account[blocks] - first,
            group=group,
            of_place=ranges(starts[group], sizes[group]),
            block=np.repeat(np.arange(len(group)), sizes[group]),
            of_option=np.repeat(np.arange(len(groups)), sizes),
            in_rows=[tables.beside(row, groups) for row in rows],
        )

    def higher(self, change: Integers, loads: Integers) -> Integers:
        """Return by how much each concerned option would raise the peak, ``(concerned options,)``."""
        # The steps that a group leaves alone: the highest of them is the first, in falling order, that it does not
        # concern; and it concerns those before it without a gap.
        order = np.argsort(-loads, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        of_block = rank[self.step]
        by_group = np.lexsort((of_block, self.group))
        of_group = self.group[by_group]
        begins = np.searchsorted(of_group, np.arange(int(of_group[-1]) + 1))
        gapless = of_block[by_group] == np.arange(len(by_group)) - begins[of_group]
        first_left = np.bincount(of_group, gapless, len(begins)).astype(np.int64)
        falling = np.append(loads[order], 0)
        left = falling[first_left]
        moved = loads[self.step][self.block] + change[self.places]
        after = left[self.of_option]
        np.maximum.at(after, self.of_place, moved)
        raised: Integers = after - int(falling[0])
        return raised
