"""Problems as MPS files, the form that every solver of mixed-integer programs reads.

Figures are written with all their digits, whole numbers as whole numbers. The writers at hand do not: OR-Tools' writes
six significant digits, PuLP's thirteen, so that a capacity in nanoseconds or bytes would come out as another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.linear import LinearForm, linear_form
from solvers.problem import Problem
from solvers.reduction import reduce

__all__ = ["column_names", "constraint_names", "text", "write"]


def write(problem: Problem) -> str:
    """Write a problem as free MPS.

    Ties and forbidden options are reduced away; groups are numbered as they are after that. Columns are called
    ``x_G_O`` for the option O of group G, ``peak_P`` and ``meet_P_F_H`` for the pair P in the formats F and H;
    constraints by the names of their rows, ``one_G``, ``step_N`` and ``link_N``.

    Args:
        problem: The problem; one objective, and no spreads.

    Returns:
        The file's text; the objective's constant is the negative right-hand side of its row, as usual.

    Raises:
        ValueError: It has what no linear form states: spreads, rows that are minimised in turn, no choice at all.
    """
    if problem.then:
        raise ValueError("MPS states one objective; this problem has several in turn")
    reduced = reduce(problem).problem
    if reduced is None:
        raise ValueError("a group has no option that is not forbidden: there is nothing to write")
    form = linear_form(reduced)
    return text(
        matrix=form.matrix,
        upper=form.upper,
        equal=form.equal,
        objective=form.objective,
        offset=form.offset,
        least=form.least,
        most=form.most,
        whole=form.options,
        columns=column_names(form),
        constraints=constraint_names(form),
        title=reduced.rows[reduced.objective].name,
    )


def column_names(form: LinearForm) -> list[str]:
    """Name the columns of a form, ``(columns,)``."""
    problem, pairs = form.problem, form.problem.pairs
    group = problem.group
    place = np.arange(problem.options) - problem.start[group]
    names = [f"x_{g}_{o}" for g, o in zip(group.tolist(), place.tolist(), strict=True)]
    names += [f"peak_{peak}" for peak in np.flatnonzero(form.peak >= 0).tolist()]
    cells = np.flatnonzero(form.cell >= 0)
    pair = np.searchsorted(pairs.cell_start, cells, side="right") - 1
    source, target = np.divmod(cells - pairs.cell_start[pair], pairs.columns[pair])
    met = zip(pair.tolist(), source.tolist(), target.tolist(), strict=True)
    return names + [f"meet_{p}_{f}_{h}" for p, f, h in met]


def constraint_names(form: LinearForm) -> list[str]:
    """Name the constraints of a form, ``(constraints,)``; names of rows lose what an MPS name cannot have."""
    names = [f"one_{group}" for group in range(form.problem.groups)]
    for index in form.problem.bound_rows:
        name = re.sub(r"[^A-Za-z0-9_.]", "_", form.problem.rows[index].name)
        names.append(f"row{index}_{name}")
    names += [f"step_{step}" for step in range(form.first_link - len(names))]
    return names + [f"link_{link}" for link in range(len(form.upper) - form.first_link)]


def text(
    *,
    matrix: Any,
    upper: npt.NDArray[Any],
    equal: npt.NDArray[np.bool_],
    objective: npt.NDArray[Any],
    offset: float,
    least: npt.NDArray[Any],
    most: npt.NDArray[Any],
    whole: int,
    columns: Sequence[str],
    constraints: Sequence[str],
    title: str = "problem",
) -> str:
    """Write a linear form as free MPS, every figure with as many digits as it has.

    Args:
        matrix: The constraints, sparse, ``(constraints, columns)``.
        upper: What each constraint may come to, ``(constraints,)``.
        equal: Whether it has to come to exactly that, ``(constraints,)``.
        objective: What each column costs, ``(columns,)``.
        offset: What is paid in any case.
        least: The least value of each column, ``(columns,)``.
        most: The greatest value of each column, ``(columns,)``.
        whole: How many of the first columns are whole.
        columns: Names of the columns.
        constraints: Names of the constraints.
        title: Name of the whole.
    """
    named = re.sub(r"[^A-Za-z0-9_.]", "_", title)
    lines = [f"NAME {named} FREE", "ROWS", " N objective"]
    lines += [f" {'E' if tied else 'L'} {name}" for tied, name in zip(equal.tolist(), constraints, strict=True)]
    lines.append("COLUMNS")
    lines.extend(_columns(matrix.tocsc(), objective, whole, columns, constraints))
    lines.append("RHS")
    if offset:
        lines.append(f" rhs objective {-offset}")
    lines.extend(f" rhs {constraints[i]} {limit}" for i, limit in enumerate(upper.tolist()) if limit)
    lines.append("BOUNDS")
    lines.extend(_bounds(least, most, columns))
    lines.append("ENDATA")
    return "\n".join(lines) + "\n"


def _columns(
    matrix: Any, objective: npt.NDArray[Any], whole: int, columns: Sequence[str], constraints: Sequence[str]
) -> Iterator[str]:
    """Yield the entries, column by column; markers stand around those that are whole."""
    ends: list[int] = matrix.indptr.tolist()
    entries, costs, prices = matrix.indices.tolist(), matrix.data.tolist(), objective.tolist()
    yield " MARKER 'MARKER' 'INTORG'"
    for index, name in enumerate(columns):
        if index == whole:
            yield " MARKER 'MARKER' 'INTEND'"
        yield f" {name} objective {prices[index]}"
        for place in range(ends[index], ends[index + 1]):
            yield f" {name} {constraints[entries[place]]} {costs[place]}"
    if whole == len(columns):
        yield " MARKER 'MARKER' 'INTEND'"


def _bounds(least: npt.NDArray[Any], most: npt.NDArray[Any], columns: Sequence[str]) -> Iterator[str]:
    """Yield the bounds that are not 0; as two lines, which all readers know, and never as that of a binary."""
    for name, low, high in zip(columns, least.tolist(), most.tolist(), strict=True):
        if low:
            yield f" LO bound {name} {low}"
        yield f" UP bound {name} {high}"
