"""The problem every solver is handed: pick one option of every group, cheaply, within capacities."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Integers", "Pair", "Peak", "Problem", "Row"]

Integers = npt.NDArray[np.int64]

LARGEST = 2**62
"""No row can reach this value, whatever is chosen, so that sums in 64 bits never overflow."""


def _integers(name: str, values: object, length: int | None = None) -> Integers:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected integers in one dimension")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} entries; expected {length}")
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} does not fit into 64 bits")
    fresh = array.astype(np.int64)
    fresh.flags.writeable = False
    return fresh


def _check_terms(what: str, options: Integers, costs: Integers) -> None:
    if len(options) > 1 and bool((np.diff(options) <= 0).any()):
        raise ValueError(f"the options of {what} are not in strictly ascending order")
    if len(costs) and int(costs.min()) < 0:
        raise ValueError(f"{what} has the cost {int(costs.min())}; expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peak:
    """The greatest cost among the chosen options: what is alive at the worst moment, not in sum.

    Attributes:
        name: What it is, for messages.
        options: The options that have a cost, ``(terms,)``, ascending; all others cost 0.
        costs: Their costs, ``(terms,)``, none negative.

    >>> Peak(name="arena", options=[0, 1], costs=[30, 20]).costs.tolist()
    [30, 20]
    """

    name: str
    options: Integers
    costs: Integers

    def __post_init__(self) -> None:
        """Hold read-only integers."""
        object.__setattr__(self, "options", _integers(f"{self.name}.options", self.options))
        object.__setattr__(self, "costs", _integers(f"{self.name}.costs", self.costs, len(self.options)))
        _check_terms(self.name, self.options, self.costs)


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

    >>> Row(name="latency", options=[0, 1], costs=[5, 3], capacity=4).capacity
    4
    """

    name: str
    options: Integers
    costs: Integers
    constant: int = 0
    peaks: tuple[int, ...] = ()
    capacity: int | None = None

    def __post_init__(self) -> None:
        """Hold read-only integers."""
        object.__setattr__(self, "options", _integers(f"{self.name}.options", self.options))
        object.__setattr__(self, "costs", _integers(f"{self.name}.costs", self.costs, len(self.options)))
        _check_terms(self.name, self.options, self.costs)
        object.__setattr__(self, "constant", operator.index(self.constant))
        object.__setattr__(self, "peaks", tuple(operator.index(peak) for peak in self.peaks))
        if self.constant < 0:
            raise ValueError(f"{self.name} has the constant {self.constant}; expected 0 or more")
        if len(set(self.peaks)) < len(self.peaks):
            raise ValueError(f"{self.name} contains a peak twice")
        if self.capacity is not None:
            object.__setattr__(self, "capacity", operator.index(self.capacity))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """What it costs that two groups meet, by the *formats* of their options rather than by the options.

    Attributes:
        source: The group that writes.
        target: The group that reads.
        source_format: The format that each option of the source writes, ``(options of source,)``, from 0.
        target_format: The format that each option of the target reads, ``(options of target,)``, from 0.
        allowed: Which formats may meet, ``allowed[source format][target format]``.
        costs: For each row that is concerned, its index and ``costs[source format][target format]``.

    >>> Pair(
    ...     source=0,
    ...     target=1,
    ...     source_format=[0, 1],
    ...     target_format=[0, 1],
    ...     allowed=[[True, False], [False, True]],
    ...     costs=(),
    ... ).allowed.shape
    (2, 2)
    """

    source: int
    target: int
    source_format: Integers
    target_format: Integers
    allowed: npt.NDArray[np.bool_]
    costs: tuple[tuple[int, npt.NDArray[np.int64]], ...] = ()

    def __post_init__(self) -> None:
        """Hold read-only arrays of agreeing shapes."""
        name = f"pair {self.source}-{self.target}"
        if self.source == self.target:
            raise ValueError(f"{name}: a group cannot meet itself")
        object.__setattr__(self, "source_format", _integers(f"{name}.source_format", self.source_format))
        object.__setattr__(self, "target_format", _integers(f"{name}.target_format", self.target_format))
        allowed = np.array(self.allowed, dtype=np.bool_)
        shape = (int(self.source_format.max(initial=-1)) + 1, int(self.target_format.max(initial=-1)) + 1)
        if allowed.ndim != 2 or allowed.shape[0] < shape[0] or allowed.shape[1] < shape[1]:
            raise ValueError(f"{name}: allowed has shape {allowed.shape}; expected at least {shape}")
        allowed.flags.writeable = False
        object.__setattr__(self, "allowed", allowed)
        matrices = []
        for row, costs in self.costs:
            matrix = np.array(costs, dtype=np.int64)
            if matrix.shape != allowed.shape or int(matrix.min(initial=0)) < 0:
                raise ValueError(f"{name}: costs of row {row} have shape {matrix.shape} or are negative")
            matrix.flags.writeable = False
            matrices.append((operator.index(row), matrix))
        if len({row for row, _ in matrices}) < len(matrices):
            raise ValueError(f"{name}: a row is there twice")
        object.__setattr__(self, "costs", tuple(matrices))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Pick one option of every group so that the objective row costs least and every row keeps its capacity.

    Options are numbered through all groups: group ``g`` has the options ``start[g]`` to ``start[g + 1] - 1``.

    Attributes:
        start: Where each group's options begin, ``(groups + 1,)``, from 0, strictly ascending.
        rows: Sums of costs; any can bind, any can be the objective.
        objective: Index of the row that is minimised.
        peaks: Greatest costs, which rows can contain.
        pairs: Costs of groups that meet.

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
    peaks: tuple[Peak, ...] = ()
    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        """Refuse indices that point nowhere and sums that could overflow."""
        object.__setattr__(self, "start", _integers("start", self.start))
        for name in ("rows", "peaks", "pairs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.start) < 2 or self.start[0] != 0 or bool((np.diff(self.start) <= 0).any()):
            raise ValueError(f"start is {self.start}; expected strictly ascending from 0, at least one group")
        if not 0 <= self.objective < len(self.rows):
            raise ValueError(f"the objective is row {self.objective} of {len(self.rows)}")
        everything: tuple[Row | Peak, ...] = (*self.rows, *self.peaks)
        for terms in everything:
            if len(terms.options) and not 0 <= int(terms.options[0]) <= int(terms.options[-1]) < self.options:
                raise ValueError(f"{terms.name} names an option beyond the {self.options} that exist")
        for row in self.rows:
            if any(not 0 <= peak < len(self.peaks) for peak in row.peaks):
                raise ValueError(f"{row.name} contains a peak beyond the {len(self.peaks)} that exist")
        self._check_pairs()
        for row, most in zip(self.rows, self.most(), strict=True):
            if most > LARGEST:
                raise ValueError(f"{row.name} could sum up to {most}; expected at most {LARGEST}")

    def _check_pairs(self) -> None:
        sizes = np.diff(self.start)
        for pair in self.pairs:
            for group, formats in ((pair.source, pair.source_format), (pair.target, pair.target_format)):
                if not 0 <= group < self.groups or len(formats) != sizes[group]:
                    raise ValueError(f"pair {pair.source}-{pair.target}: group {group} does not fit its formats")
                if int(formats.min()) < 0:
                    raise ValueError(f"pair {pair.source}-{pair.target}: a format is negative")
            if any(not 0 <= row < len(self.rows) for row, _ in pair.costs):
                raise ValueError(f"pair {pair.source}-{pair.target}: a row beyond the {len(self.rows)} that exist")

    def most(self) -> list[int]:
        """Return, for each row, what all of its costs together would come to; no choice can cost more."""
        totals = [row.constant + sum(row.costs.tolist()) for row in self.rows]
        for total, row in enumerate(self.rows):
            totals[total] += sum(max(self.peaks[peak].costs.tolist(), default=0) for peak in row.peaks)
        for pair in self.pairs:
            for row_index, costs in pair.costs:
                totals[row_index] += sum(costs.ravel().tolist())
        return totals

    @property
    def groups(self) -> int:
        """The number of groups."""
        return len(self.start) - 1

    @property
    def options(self) -> int:
        """The number of options in all groups together."""
        return int(self.start[-1])

    @property
    def bound_rows(self) -> tuple[int, ...]:
        """The rows that have a capacity."""
        return tuple(index for index, row in enumerate(self.rows) if row.capacity is not None)

    def with_capacities(self, capacities: Sequence[int | None], objective: int | None = None) -> Problem:
        """Return the same problem with other capacities, one for each row, and perhaps another objective."""
        rows = tuple(replace(row, capacity=cap) for row, cap in zip(self.rows, capacities, strict=True))
        return replace(self, rows=rows, objective=self.objective if objective is None else objective)

    def row(self, name: str) -> int:
        """Return the index of the row of that name."""
        for index, row in enumerate(self.rows):
            if row.name == name:
                return index
        raise ValueError(f"there is no row {name!r}; there are: {', '.join(row.name for row in self.rows)}")
