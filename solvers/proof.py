"""What is known of a problem's optimum without any solver, in whole numbers, from prices that anyone may have made.

For any prices the Lagrangian function is a bound (`solvers.dual.bound`). Where formats meet, its least choice is a
least path (`solvers.dual.trellis`). Peaks are no less than any mean of their steps, and the mean that proves most is a
best answer to the least choices: it is approached by play (G. W. Brown, Iterative solution of games by fictitious play,
1951; J. Robinson, An iterative method of solving a game, Annals of Mathematics 54, 1951), and whatever it has come to
is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers import check
from solvers.arrays import Integers
from solvers.dual.bound import exact_bound
from solvers.dual.columns import Prices, Room
from solvers.dual.oracle import Oracle
from solvers.dual.whole import bound, value, whole
from solvers.problem import Problem
from solvers.reduction import reduce

__all__ = ["Proof", "proof"]

_ROUNDS = 24
"""How often the mean of steps answers the least choice; ten times as many bring little more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known of a problem's optimum without a solver.

    Attributes:
        bound: What no choice can undercut; None where there is proof that no choice keeps every capacity.
        by: What proves it: ``prices``, or ``least costs`` where each group at its cheapest says as much.

    >>> Proof(bound=7, by="prices").bound
    7
    """

    bound: int | None
    by: str


def proof(problem: Problem, prices: Sequence[float] | None, choices: Sequence[int] | None = None) -> Proof:
    """Bound the optimum in whole numbers, without a solver.

    Args:
        problem: The problem.
        prices: What a unit of each row costs, ``(rows,)``; None leaves the least costs.
        choices: A good choice, which says at what steps peaks are; None where there is none.

    Returns:
        The best of what the prices prove and of what the least costs of all groups do.

    Raises:
        ValueError: There is not one price for each row, or one is negative or not finite.

    >>> from solvers.problem import Row
    >>> rows = (Row(name="loss", options=[1], costs=[7]), Row(name="time", options=[0], costs=[9], capacity=5))
    >>> proof(Problem(start=[0, 2], rows=rows), [0.0, 0.7])
    Proof(bound=3, by='prices')
    """
    if prices is not None and len(prices) != len(problem.rows):
        raise ValueError(f"got {len(prices)} prices; expected one for each of the {len(problem.rows)} rows")
    reduction = reduce(problem)
    reduced = reduction.problem
    if reduced is None or _overfull(reduced):
        return Proof(bound=None, by="least costs")
    least = check.floor(reduced)
    if prices is None:
        return Proof(bound=least, by="least costs")
    proven: int | None = exact_bound(reduced, prices)
    if len(reduced.pairs) or reduced.peaks:
        start = None if choices is None else reduction.project(choices)
        met = _with_meetings(reduced, prices, start)
        proven = None if proven is None or met is None else max(proven, met)
    if proven is None or proven > reduced.most()[reduced.objective]:
        # More than all costs together, or no formats that can meet: no choice that keeps the capacities is left.
        return Proof(bound=None, by="prices")
    return Proof(bound=least, by="least costs") if proven <= least else Proof(bound=proven, by="prices")


def _with_meetings(problem: Problem, prices: Sequence[float], choices: Sequence[int] | None) -> int | None:
    """Evaluate the Lagrangian function with pairs and peaks; None where formats leave no choice at all."""
    oracle = Oracle(problem)
    bound_rows = np.array([row.capacity is not None for row in problem.rows])
    paid = np.where(bound_rows, np.array(prices, dtype=np.float64), 0.0)
    step = np.zeros(oracle.steps.count)
    if oracle.steps.count:
        step = _steps(oracle, paid, choices)
    exact = whole(oracle, Prices(objective=1.0, row=paid, step=step))
    found = value(oracle, exact)
    return None if found is None else bound(exact, found)


def _steps(oracle: Oracle, paid: npt.NDArray[np.float64], choices: Sequence[int] | None) -> npt.NDArray[np.float64]:
    """Weigh the steps of every peak, together no more than the rows that contain it weigh.

    Each round the worst step of the least choice so far is added to the mean, then the least choice is sought anew.
    """
    problem, room = oracle.problem, Room.of(oracle)
    nothing = Prices(objective=1.0, row=paid, step=np.zeros(oracle.steps.count))
    weights = room.weights(nothing)
    may = weights @ room.contains
    mean = np.zeros(oracle.steps.count)
    best, found = nothing.step, -np.inf
    chosen: Integers | None = None if choices is None else problem.start[:-1] + np.asarray(choices, np.int64)
    for turn in range(_ROUNDS + 1):
        step = mean * may[oracle.steps.peak]
        costs = oracle.costs(weights, step)
        answer = oracle.least(costs)
        total = float(answer.value.sum())
        if total > found:
            best, found = step, total
        if turn or chosen is None:
            chosen = answer.chosen
        if bool((chosen < 0).any()):
            break
        worst = _worst(oracle, chosen)
        mean *= turn / (turn + 1)
        mean[worst] += 1 / (turn + 1)
    return best


def _worst(oracle: Oracle, chosen: Integers) -> npt.NDArray[np.intp]:
    """Return the step of each peak at which the chosen options come to most."""
    loads = oracle.steps.loads(chosen, oracle.problem.options)
    order = np.lexsort((loads, oracle.steps.peak))
    last = np.flatnonzero(np.diff(oracle.steps.peak[order], append=-1))
    found: npt.NDArray[np.intp] = order[last]
    return found


def _overfull(problem: Problem) -> bool:
    """Say whether some row is above its capacity with every group at its cheapest."""
    group, sizes = problem.group, np.diff(problem.start)
    for row in (problem.rows[index] for index in problem.bound_rows):
        total = row.constant
        if len(row.options):
            of = group[row.options]
            first = np.flatnonzero(np.diff(of, prepend=-1))
            # A group that has options without a cost in this row costs nothing at its cheapest.
            every = np.diff(first, append=len(of)) == sizes[of[first]]
            total += int(np.minimum.reduceat(row.costs, first)[every].sum())
        if row.capacity is not None and total > row.capacity:
            return True
    return False
