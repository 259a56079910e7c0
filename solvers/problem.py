"""The problem every solver is handed: pick one option of every group, cheaply, within capacities."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from solvers.arrays import LARGEST, Integers, check_terms, integers
from solvers.pairs import Pair, Pairs
from solvers.spread import Spread

__all__ = ["LARGEST", "Integers", "Pair", "Pairs", "Peak", "Problem", "Row", "Spread"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peak:
    """The greatest, over steps, of what the chosen options cost together: what is alive at the worst moment.

    Attributes:
        name: What it is, for messages.
        options: The options that have a cost, ``(terms,)``; all others cost 0.
        costs: Their costs, ``(terms,)``, none negative.
        steps: The step in which each of them costs that, ``(terms,)``, from 0; sorted by step, then by option, none
            twice. None: every group is a step of its own, and the peak is the greatest cost of a chosen option; the
            options are then ascending.

    >>> Peak(name="arena", options=[0, 1], costs=[30, 20]).costs.tolist()
    [30, 20]
    >>> Peak(name="arena", options=[0, 2, 0], costs=[30, 20, 5], steps=[0, 0, 1]).of_groups
    False
    """

    name: str
    options: Integers
    costs: Integers
    steps: Integers | None = None

    def __post_init__(self) -> None:
        """Hold read-only integers."""
        object.__setattr__(self, "options", integers(f"{self.name}.options", self.options))
        object.__setattr__(self, "costs", integers(f"{self.name}.costs", self.costs, len(self.options)))
        if self.steps is None:
            check_terms(self.name, self.options, self.costs)
            return
        object.__setattr__(self, "steps", integers(f"{self.name}.steps", self.steps, len(self.options)))
        check_terms(self.name, self.options[:0], self.costs)
        ahead = (np.diff(self.steps) > 0) | ((np.diff(self.steps) == 0) & (np.diff(self.options) > 0))
        if not bool(ahead.all()) or int(self.steps.min(initial=0)) < 0:
            raise ValueError(f"the terms of {self.name} are not sorted by step and option, or one is there twice")

    @property
    def of_groups(self) -> bool:
        """Whether every group is a step of its own."""
        return self.steps is None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A sum of costs, with the capacity it must keep where it has one.

    Attributes:
        name: What it is, for messages.
        options: The options that have a cost, ``(terms,)``, ascending; all others cost 0.
        costs: Their costs, ``(terms,)``, none negative.
        constant: What it costs whatever is chosen.
        peaks: Which of the problem's peaks it contains, as indices.
        capacity: What it may cost at most; None does not bind.
        spread: What it may take beyond its mean; None where it is certain.

    >>> Row(name="latency", options=[0, 1], costs=[5, 3], capacity=4).capacity
    4
    """

    name: str
    options: Integers
    costs: Integers
    constant: int = 0
    peaks: tuple[int, ...] = ()
    capacity: int | None = None
    spread: Spread | None = None

    def __post_init__(self) -> None:
        """Hold read-only integers."""
        object.__setattr__(self, "options", integers(f"{self.name}.options", self.options))
        object.__setattr__(self, "costs", integers(f"{self.name}.costs", self.costs, len(self.options)))
        check_terms(self.name, self.options, self.costs)
        object.__setattr__(self, "constant", operator.index(self.constant))
        object.__setattr__(self, "peaks", tuple(operator.index(peak) for peak in self.peaks))
        if self.constant < 0:
            raise ValueError(f"{self.name} has the constant {self.constant}; expected 0 or more")
        if len(set(self.peaks)) < len(self.peaks):
            raise ValueError(f"{self.name} contains a peak twice")
        if self.capacity is not None:
            object.__setattr__(self, "capacity", operator.index(self.capacity))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Pick one option of every group so that the objective row costs least and every row keeps its capacity.

    Options are numbered through all groups: group ``g`` has the options ``start[g]`` to ``start[g + 1] - 1``. What a
    row costs is its constant, the costs of the chosen options, its peaks, what the pairs cost in it, and its spread.

    Attributes:
        start: Where each group's options begin, ``(groups + 1,)``, from 0, strictly ascending.
        rows: Sums of costs; any can bind, any can be the objective.
        objective: Index of the row that is minimised.
        then: Rows minimised after it, in this order, each while all before it keep their least.
        peaks: Greatest costs, which rows can contain.
        pairs: Costs of groups that meet.
        ties: Groups that take the option of the same place: for each tie, its groups, ascending.
        forbidden: Options that may not be taken, ascending.

    >>> problem = Problem(
    ...     start=[0, 2],
    ...     rows=(
    ...         Row(name="loss", options=[1], costs=[7]),
    ...         Row(name="time", options=[0, 1], costs=[9, 4], capacity=5),
    ...     ),
    ... )
    >>> problem.groups, problem.options
    (1, 2)
    """

    start: Integers
    rows: tuple[Row, ...]
    objective: int = 0
    then: tuple[int, ...] = ()
    peaks: tuple[Peak, ...] = ()
    pairs: Pairs = ()  # type: ignore[assignment]
    ties: tuple[Integers, ...] = ()
    forbidden: Integers = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Refuse indices that point nowhere and sums that could overflow."""
        object.__setattr__(self, "start", integers("start", self.start))
        for name in ("rows", "peaks", "then"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "pairs", Pairs.of(self.pairs))
        object.__setattr__(self, "ties", tuple(integers("a tie", tie) for tie in self.ties))
        object.__setattr__(self, "forbidden", integers("forbidden", self.forbidden))
        if len(self.start) < 2 or self.start[0] != 0 or bool((np.diff(self.start) <= 0).any()):
            raise ValueError(f"start is {self.start}; expected strictly ascending from 0, at least one group")
        for row in (self.objective, *self.then):
            if not 0 <= row < len(self.rows):
                raise ValueError(f"the objective is row {row} of {len(self.rows)}")
        self._check_terms()
        self._check_pairs()
        self._check_ties()
        for entry, most in zip(self.rows, self.most(), strict=True):
            if most > LARGEST:
                raise ValueError(f"{entry.name} could sum up to {most}; expected at most {LARGEST}")

    def _check_terms(self) -> None:
        spreads = [(row.name, row.spread.options) for row in self.rows if row.spread is not None]
        everything = [(row.name, row.options) for row in self.rows] + [(p.name, p.options) for p in self.peaks]
        for name, options in (*everything, *spreads, ("what is forbidden", self.forbidden)):
            if len(options) and not 0 <= int(options.min()) <= int(options.max()) < self.options:
                raise ValueError(f"{name} names an option beyond the {self.options} that exist")
        if bool((np.diff(self.forbidden) <= 0).any()):
            raise ValueError("what is forbidden is not in strictly ascending order")
        for row in self.rows:
            if any(not 0 <= peak < len(self.peaks) for peak in row.peaks):
                raise ValueError(f"{row.name} contains a peak beyond the {len(self.peaks)} that exist")

    def _check_pairs(self) -> None:
        sizes = np.diff(self.start)
        pairs = self.pairs
        for group, start in ((pairs.source, pairs.source_start), (pairs.target, pairs.target_start)):
            outside = (group < 0) | (group >= self.groups)
            wrong = outside | (np.diff(start) != sizes[np.where(outside, 0, group)])
            if bool(wrong.any()):
                at = int(np.flatnonzero(wrong)[0])
                met = f"pair {int(pairs.source[at])}-{int(pairs.target[at])}"
                raise ValueError(f"{met}: group {int(group[at])} does not fit its formats")
        if len(pairs.row) and not 0 <= int(pairs.row[0]) <= int(pairs.row[-1]) < len(self.rows):
            raise ValueError(f"a pair costs in a row beyond the {len(self.rows)} that exist")

    def _check_ties(self) -> None:
        tied: set[int] = set()
        for tie in self.ties:
            groups = tie.tolist()
            if len(groups) < 2 or groups != sorted(set(groups)) or not 0 <= groups[0] <= groups[-1] < self.groups:
                raise ValueError(f"the tie {groups} names no two or more of the {self.groups} groups, ascending")
            sizes = {int(self.start[group + 1] - self.start[group]) for group in groups}
            if len(sizes) > 1:
                raise ValueError(f"the tied groups {groups} have unequal numbers of options: {sorted(sizes)}")
            if tied & set(groups):
                raise ValueError(f"groups {sorted(tied & set(groups))} stand in two ties")
            tied |= set(groups)

    def most(self) -> list[int]:
        """Return, for each row, what all of its costs together would come to; no choice can cost more."""
        totals = [row.constant + _total(row.costs) for row in self.rows]
        peaks = [self._most_peak(peak) for peak in self.peaks]
        for index, row in enumerate(self.rows):
            totals[index] += sum(peaks[peak] for peak in row.peaks)
            if row.spread is not None:
                totals[index] += row.spread.value(_total(row.spread.variances))
        bounds = np.searchsorted(self.pairs.row, np.arange(len(self.rows) + 1))
        for index in np.unique(self.pairs.row).tolist():
            totals[index] += _total(self.pairs.cost[bounds[index] : bounds[index + 1]])
        return totals

    def _most_peak(self, peak: Peak) -> int:
        if peak.steps is None:
            return int(peak.costs.max(initial=0))
        if not len(peak.steps):
            return 0
        first = np.flatnonzero(np.diff(peak.steps, prepend=-1))
        if _total(peak.costs) <= LARGEST:
            return int(np.add.reduceat(peak.costs, first).max())
        most: int = max(sum(part.tolist()) for part in np.split(peak.costs, first[1:]))
        return most

    @property
    def groups(self) -> int:
        """The number of groups."""
        return len(self.start) - 1

    @property
    def options(self) -> int:
        """The number of options in all groups together."""
        return int(self.start[-1])

    @property
    def group(self) -> Integers:
        """The group of each option, ``(options,)``."""
        return np.repeat(np.arange(self.groups, dtype=np.int64), np.diff(self.start))

    @property
    def bound_rows(self) -> tuple[int, ...]:
        """The rows that have a capacity."""
        return tuple(index for index, row in enumerate(self.rows) if row.capacity is not None)

    @property
    def digest(self) -> str:
        """A hash of everything that matters to the answer, names included."""
        found = hashlib.sha256()

        def add(*values: object) -> None:
            for value in values:
                text = value.astype("<i8").tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
                found.update(f"{len(text)}:".encode())
                found.update(text)

        add("problem", 1, self.start, self.objective, self.then, self.forbidden, len(self.rows), len(self.peaks))
        for row in self.rows:
            add(row.name, row.options, row.costs, row.constant, row.peaks, row.capacity, row.spread is not None)
            if row.spread is not None:
                add(row.spread.options, row.spread.variances, row.spread.z)
        for peak in self.peaks:
            add(peak.name, peak.options, peak.costs, peak.steps)
        add(*(getattr(self.pairs, entry.name) for entry in fields(Pairs)), *self.ties)
        return found.hexdigest()

    def dense(self, options: Integers, costs: Integers) -> Integers:
        """Return what every option costs, ``(options,)``, given those that cost something, each of them once."""
        every = np.zeros(self.options, np.int64)
        every[options] = costs
        return every

    def steps_of(self, peak: Peak) -> Integers:
        """Return the step of each term of a peak, ``(terms,)``; the group of its option where groups are steps."""
        if peak.steps is not None:
            return peak.steps
        found: Integers = np.searchsorted(self.start, peak.options, side="right") - 1
        return found

    def with_capacities(self, capacities: Sequence[int | None], objective: int | None = None) -> Problem:
        """Return the same problem with other capacities, one for each row, and perhaps another objective.

        With another objective, nothing is minimised after it.
        """
        rows = tuple(replace(row, capacity=cap) for row, cap in zip(self.rows, capacities, strict=True))
        if objective is None:
            return replace(self, rows=rows)
        return replace(self, rows=rows, objective=objective, then=())

    def row(self, name: str) -> int:
        """Return the index of the row of that name."""
        for index, row in enumerate(self.rows):
            if row.name == name:
                return index
        raise ValueError(f"there is no row {name!r}; there are: {', '.join(row.name for row in self.rows)}")


def _total(costs: Integers) -> int:
    """Sum up exactly, in 64 bits where they suffice."""
    if not len(costs):
        return 0
    return int(costs.sum()) if int(costs.max()) <= LARGEST // len(costs) else sum(costs.tolist())
