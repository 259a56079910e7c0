"""Multiple-choice multidimensional knapsacks in their public text format, as S. Khan's instances (1998) are.

A file has, line by line: ``n l m``, the numbers of groups, of items of each group and of resources; the ``m``
capacities; then for each group its number and ``l`` lines ``value weight_1 … weight_m``. Blank lines mean nothing, nor
does what stands behind a line of words, where such files list solutions. The sum of the values is maximised, one item
of each group, every capacity kept.

Numbers may be decimals. They are read exactly: values are multiplied by the power of ten that makes all of them whole,
and so is each resource, capacity included. Maximising becomes minimising what is lost against each group's best item.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from solvers.arrays import LARGEST, Integers
from solvers.problem import Problem, Row

__all__ = ["Knapsack", "KnapsackError", "read", "written"]

_LARGEST_POWER = 18
"""Numbers of more digits than this, before the point or behind it, are not taken for measured ones."""


class KnapsackError(ValueError):
    """Say what is wrong with a file, and in which line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knapsack:
    """A knapsack as a problem, and the way back to its values.

    Attributes:
        problem: Minimise the row ``value lost`` under the rows ``resource 1`` and so on.
        best: The value that the best items of all groups have together, in units of the last digit.
        digits: Digits behind the point of the values.

    >>> row = Row(name="value lost", options=[1], costs=[25])
    >>> knapsack = Knapsack(problem=Problem(start=[0, 2], rows=(row,)), best=100, digits=1)
    >>> knapsack.value(25)
    Decimal('7.5')
    """

    problem: Problem
    best: int
    digits: int

    def value(self, objective: int) -> Decimal:
        """Return the value of a choice, or the bound on it, from what it costs in the problem."""
        return Decimal(self.best - objective).scaleb(-self.digits)


def read(path: str | os.PathLike[str]) -> Knapsack:
    """Read a file.

    Args:
        path: Its name.

    Returns:
        The knapsack.

    Raises:
        KnapsackError: The file cannot be read as one; the message names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise KnapsackError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise KnapsackError(f"{path}: it is no text") from None
    lines = _Lines(path, text)
    groups, items, resources = lines.counts("the numbers of groups, items and resources", 3)
    capacities = lines.numbers(f"{resources} capacities", resources)
    table = []
    for group in range(1, groups + 1):
        (number,) = lines.counts(f"the number of group {group} of {groups}", 1)
        if number != group:
            raise lines.wrong(f"expected group {group}, got {number}")
        for item in range(1, items + 1):
            what = f"item {item} of group {group}: a value and {resources} weights"
            line = lines.numbers(what, 1 + resources)
            if min(line[1:]) < 0:
                raise lines.wrong(f"item {item} of group {group} has the weight {min(line[1:])}; expected 0 or more")
            table.append(line)
    lines.end(f"{groups} groups of {items} items")
    columns = list(zip(*table, strict=True))
    digits = _digits(columns[0])
    try:
        return _knapsack(groups, columns[1:], capacities, _scaled(columns[0], digits), digits)
    except (ValueError, OverflowError) as error:
        raise KnapsackError(f"{path}: {error}") from None


def written(problem: Problem, *, best: int | None = None, digits: int = 0) -> str:
    """Write a problem in this format: what is minimised becomes what the greatest cost of a group leaves.

    Rows without a capacity are left out, and constants are taken off the capacities.

    Args:
        problem: Groups of equally many options, rows without peaks and spreads, no pairs, no ties.
        best: The value that options of cost 0 in all groups have together; None takes the sum of the greatest costs.
        digits: Digits behind the point of the values.

    Returns:
        The text of the file.

    Raises:
        KnapsackError: The problem has what the format cannot say.
    """
    sizes = np.diff(problem.start)
    objective = problem.rows[problem.objective]
    bound = [problem.rows[index] for index in problem.bound_rows]
    if len(set(sizes.tolist())) > 1 or not bound:
        raise KnapsackError("groups of unequal sizes, or no capacity: the format has no place for it")
    if len(problem.pairs) or len(problem.ties) or len(problem.forbidden) or problem.then:
        raise KnapsackError("pairs, ties, forbidden options or a second objective: the format has no place for it")
    if any(row.peaks or row.spread is not None for row in (objective, *bound)):
        raise KnapsackError("a peak or a spread: the format has no place for it")
    costs = _dense(problem, objective)
    values = costs.max(axis=1, keepdims=True) - costs
    if best is not None:
        values[0] += best - int(costs.max(axis=1).sum())
    weights = np.stack([_dense(problem, row) for row in bound], axis=-1)
    capacities = [row.capacity - row.constant for row in bound if row.capacity is not None]
    lines = ["", f"{problem.groups} {int(sizes[0])} {len(bound)}", " ".join(map(str, capacities))]
    for group in range(problem.groups):
        lines.append(str(group + 1))
        for value, used in zip(values[group].tolist(), weights[group].tolist(), strict=True):
            lines.append(" ".join([str(Decimal(value).scaleb(-digits)), *map(str, used)]))
    return "\n".join(lines) + "\n"


class _Lines:
    """The lines of a file that are not blank, read one after the other."""

    def __init__(self, path: str | os.PathLike[str], text: str) -> None:
        self.path = path
        self.number = 0
        self.rest: Iterator[tuple[int, list[str]]] = (
            (number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()
        )

    def wrong(self, what: str) -> KnapsackError:
        return KnapsackError(f"{self.path}, line {self.number}: {what}")

    def numbers(self, what: str, count: int) -> tuple[Decimal, ...]:
        """Read the next line, which has so many numbers."""
        self.number, parts = next(self.rest, (self.number, None))
        if parts is None:
            raise self.wrong(f"the file ends; expected {what}")
        if len(parts) != count:
            raise self.wrong(f"got {len(parts)} numbers; expected {what}")
        return tuple(self._number(part) for part in parts)

    def counts(self, what: str, count: int) -> tuple[int, ...]:
        """Read the next line, which has so many whole numbers of 1 or more."""
        found = self.numbers(what, count)
        if any(number < 1 or number != int(number) for number in found):
            raise self.wrong(f"got {', '.join(map(str, found))}; expected {what}, whole and 1 or more")
        return tuple(int(number) for number in found)

    def end(self, what: str) -> None:
        """Refuse more numbers; words may follow."""
        number, parts = next(self.rest, (0, None))
        if parts is not None and any(character.isdigit() for character in parts[0]):
            self.number = number
            raise self.wrong(f"got {' '.join(parts)!r} behind the last of {what}")

    def _number(self, text: str) -> Decimal:
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise self.wrong(f"{text!r} is no number") from None
        if not number.is_finite():
            raise self.wrong(f"{text!r} is not finite")
        if number and not -_LARGEST_POWER <= number.adjusted() <= _LARGEST_POWER:
            raise self.wrong(f"{text!r} is out of range; expected at most {_LARGEST_POWER} digits")
        return number


def _digits(numbers: Sequence[Decimal]) -> int:
    """Return how many digits behind the point are needed."""
    exponents = [number.normalize().as_tuple().exponent for number in numbers]
    return max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))


def _scaled(numbers: Sequence[Decimal], digits: int) -> list[int]:
    scaled = [int(number.scaleb(digits)) for number in numbers]
    if max(map(abs, scaled)) > LARGEST:
        raise ValueError(f"a number of {digits} digits behind the point is too large; expected at most {LARGEST}")
    return scaled


def _knapsack(
    groups: int, resources: Sequence[Sequence[Decimal]], capacities: Sequence[Decimal], values: list[int], digits: int
) -> Knapsack:
    items = len(values) // groups
    every = np.array(values, np.int64).reshape(groups, items)
    # In Python's integers: the difference of two 64-bit numbers need not be one.
    lost = [max(of_group) - value for of_group in every.tolist() for value in of_group]
    rows = [_row("value lost", lost, None)]
    for number, (weights, capacity) in enumerate(zip(resources, capacities, strict=True), start=1):
        power = _digits((*weights, capacity))
        *scaled, bound = _scaled((*weights, capacity), power)
        rows.append(_row(f"resource {number}", scaled, bound))
    problem = Problem(start=items * np.arange(groups + 1), rows=tuple(rows))
    return Knapsack(problem=problem, best=sum(every.max(axis=1).tolist()), digits=digits)


def _row(name: str, costs: list[int], capacity: int | None) -> Row:
    every = np.array(costs, np.int64)
    (terms,) = np.nonzero(every)
    return Row(name=name, options=terms, costs=every[terms], capacity=capacity)


def _dense(problem: Problem, row: Row) -> Integers:
    """Return ``costs[group][place]``."""
    return problem.dense(row.options, row.costs).reshape(problem.groups, -1)
