"""Put solvers side by side on problems of integers: files, knapsacks, made-up instances, formulated tables.

Every answer is looked at again in exact integers, and the bound is recomputed from the solver's prices where it gives
any: ``proven`` is what stands without its word.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import solvers
from costmodels import CostTable, write_aside
from planner.budget import Budget
from planner.compare import Comparison, Run, warmed, written_versions
from planner.curves import Curve, Moment, fold
from planner.errors import InputError
from solvers import Limits, Problem, Solution, Solver
from solvers.certificate import Certificate, write
from solvers.instances import files
from solvers.instances.generate import check_arguments, generate
from solvers.instances.mmkp import Knapsack
from solvers.proof import proof

__all__ = [
    "Instance",
    "Laboratory",
    "Trial",
    "compare_problems",
    "generated",
    "instance_of_table",
    "proven",
    "read_instance",
    "write_mps",
]

_SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""The parts of the time limit that solvers which trace nothing are run at, for a curve."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """A problem under a name.

    Attributes:
        name: The name.
        problem: The problem.
        knapsack: The knapsack it is part of, where it is one; gives the value back.
        loss_scale: How many integers of the objective make a loss of 1, where it was a table.

    >>> Instance(name="made", problem=generate(0, layers=3)).problem.groups
    3
    """

    name: str
    problem: Problem
    knapsack: Knapsack | None = None
    loss_scale: Fraction | None = None

    def value(self, objective: int) -> Decimal | None:
        """Return the value of a knapsack's choice; None where the instance is no knapsack."""
        return None if self.knapsack is None else self.knapsack.value(objective)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One solver on one instance.

    Attributes:
        run: What is written down of it.
        solution: The answer; None where the solver refused, or answered wrongly.
        curve: How it got there; None where that was not asked for, or there is no answer.
    """

    run: Run
    solution: Solution | None
    curve: Curve | None = None


def read_instance(path: str | os.PathLike[str]) -> Instance:
    """Read a problem or a knapsack.

    Args:
        path: A name that ends in .json or .npz, or a knapsack in its text format.

    Returns:
        The instance, named after its file.

    Raises:
        InputError: The file cannot be read as one.
    """
    try:
        found = files.read(path)
    except files.ProblemFileError as error:
        raise InputError(str(error)) from None
    if isinstance(found, Knapsack):
        return Instance(name=Path(path).name, problem=found.problem, knapsack=found)
    return Instance(name=Path(path).name, problem=found)


def instance_of_table(name: str, table: CostTable, budget: Budget) -> Instance:
    """Formulate a table within a budget as a problem; its losses are rounded up to integers."""
    from planner.formulate import formulate

    formulation = formulate(table, budget)
    return Instance(name=name, problem=formulation.problem, loss_scale=formulation.loss_scale)


def generated(text: str) -> dict[str, Callable[[], Instance]]:
    """Make up instances from a line such as ``0-4,10,70-80,12,skips,pairs,peaks``.

    Args:
        text: Seed, or the first and the last of several; models; layers of each, or the least and the most of them;
            options; topology; and perhaps ``pairs`` and ``peaks``.

    Returns:
        For each seed, the instance's name and what makes it, so that large ones need not be there all at once.

    Raises:
        InputError: The text says something else.

    >>> made = generated("3-4,2,3,4,chain,pairs")
    >>> list(made)
    ['3,2,3,4,chain,pairs', '4,2,3,4,chain,pairs']
    >>> made["3,2,3,4,chain,pairs"]().problem.pairs.source.tolist()
    [0, 1, 3, 4]
    """
    wrong = (
        f"{text!r} makes no instance; expected SEED,MODELS,LAYERS,OPTIONS,TOPOLOGY such as 0,10,70-80,12,skips,pairs"
    )
    numbers, words = text.split(",")[:4], text.split(",")[4:]
    seeds, layers = (numbers[place].split("-") if len(numbers) == 4 else [] for place in (0, 2))
    plain = (*seeds, *numbers[1:2], *layers, *numbers[3:])
    if not words or len(seeds) > 2 or len(layers) > 2 or not all(number.isdigit() for number in plain):
        raise InputError(wrong)
    if len(set(words)) < len(words) or not set(words[1:]) <= {"pairs", "peaks"}:
        raise InputError(f"{wrong}; behind the topology stand pairs or peaks, or both")
    models, options, between = int(numbers[1]), int(numbers[3]), (int(layers[0]), int(layers[-1]))
    try:
        check_arguments(int(seeds[0]), models, between, options, words[0])
    except ValueError as error:
        raise InputError(f"{wrong}: {error}") from None

    def make(seed: int, name: str) -> Instance:
        flags = {word: word in words for word in ("pairs", "peaks")}
        problem = generate(seed, models=models, layers=between, options=options, topology=words[0], **flags)
        return Instance(name=name, problem=problem)

    chosen = range(int(seeds[0]), int(seeds[-1]) + 1)
    if not chosen:
        raise InputError(f"{wrong}; the first seed {seeds[0]} is above the last, {seeds[-1]}")
    names = {seed: f"{seed},{text.partition(',')[2]}" for seed in chosen}
    return {name: partial(make, seed, name) for seed, name in names.items()}


def write_mps(instances: Iterable[Instance], folder: str | os.PathLike[str]) -> None:
    """Write instances as MPS files, which every solver of mixed-integer programs reads.

    Args:
        instances: The instances.
        folder: Where the files go; it is made where it is not there.

    Raises:
        InputError: An instance has what MPS cannot state, or the folder cannot be written to.
    """
    from solvers.instances import mps

    for instance in instances:
        try:
            text = mps.write(instance.problem)
        except ValueError as error:
            raise InputError(f"{instance.name}: {error}") from None
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_aside(Path(folder) / f"{_stem(instance)}.mps", text)
        except OSError as error:
            raise InputError(f"{folder}: nothing can be written there: {error.strerror or error}") from None


def _stem(instance: Instance) -> str:
    """Name files of an instance; what tells files of one name from different folders apart is what they hold."""
    safe = "".join(c if c.isalnum() or c in "-.," else "_" for c in instance.name)
    return f"{safe.removesuffix('.npz').removesuffix('.json')}-{instance.problem.digest[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """The conditions that all trials share.

    Attributes:
        limits: What each solver is given.
        curves: Whether answers over time are asked for.
        save: Folder for certificates, and for the problems that they answer; None keeps none.
        proves: Whether it is looked at what stands without the solver's word, which takes time and memory of its own.

    >>> instance = Instance(name="made", problem=generate(0, layers=3, options=4))
    >>> trial = Laboratory(limits=Limits(time_s=5.0)).trial(instance, solvers.get("exhaustive"))
    >>> trial.run.status, trial.run.checked
    ('optimal', True)
    """

    limits: Limits
    curves: bool = False
    save: Path | None = None
    proves: bool = True

    def trial(self, instance: Instance, solver: Solver) -> Trial:
        """Run one solver on one instance.

        Args:
            instance: The instance.
            solver: The solver.

        Returns:
            What came of it; what a solver refuses, or answers wrongly, is said and not raised.
        """
        limits = self.limits
        begin = time.perf_counter()
        moments: list[Moment] = []

        def watch(seconds: float, objective: int | None, bound: int | None) -> None:
            moments.append(Moment(seconds=seconds, objective=objective, bound=bound))

        traced = self.curves and solver.capabilities.traces
        run = Run(
            solver=solver.name,
            instance=instance.name,
            status="refused",
            seed=limits.seed,
            time_limit_s=limits.time_s,
            workers=limits.workers,
            work=limits.work,
        )
        if limits.work is not None and not solver.capabilities.deterministic:
            note = f"{solver.name} knows no limit of work"
            return Trial(run=replace(run, note=note), solution=None)
        try:
            solution = self._solve(instance, solver, replace(limits, watch=watch if traced else None))
            if self.curves and not traced:
                moments = self._reruns(instance, solver, solution)
        except solvers.RefusedError as error:
            return Trial(run=replace(run, note=str(error)), solution=None)
        except solvers.WrongAnswerError as error:
            seconds = time.perf_counter() - begin
            found = replace(run, status="wrong", seconds=seconds, checked=False, note=str(error))
            return Trial(run=found, solution=None)
        self._save(instance, solution)
        curve = None
        if self.curves:
            moments.append(Moment(seconds=solution.seconds, objective=solution.objective, bound=solution.bound))
            curve = Curve(
                solver=solver.name,
                instance=instance.name,
                how="traced" if traced else "reruns",
                moments=fold(moments),
            )
        run = replace(_written(run, instance, solution), curve="" if curve is None else curve.how)
        if self.proves:
            run = replace(run, proven=proven(instance, solution))
        return Trial(run=run, solution=solution, curve=curve)

    def _solve(self, instance: Instance, solver: Solver, limits: Limits) -> Solution:
        return solver.solve(
            instance.problem,
            time_limit_s=limits.time_s,
            seed=limits.seed,
            workers=limits.workers,
            gap=limits.gap,
            work=limits.work,
            watch=limits.watch,
        )

    def _reruns(self, instance: Instance, solver: Solver, solution: Solution) -> list[Moment]:
        """Run again at parts of the time limit, up to what the whole run took."""
        moments = []
        for share in _SHARES:
            part = share * self.limits.time_s
            if part >= solution.seconds:
                break
            early = self._solve(instance, solver, replace(self.limits, time_s=part))
            moments.append(Moment(seconds=early.seconds, objective=early.objective, bound=early.bound))
        return moments

    def _save(self, instance: Instance, solution: Solution) -> None:
        if self.save is None:
            return
        stem = _stem(instance)
        problem = self.save / f"{stem}.npz"
        certificate = Certificate(solution=solution, problem_sha256=instance.problem.digest, limits=self.limits)
        try:
            self.save.mkdir(parents=True, exist_ok=True)
            if not problem.is_file():
                files.write(problem, instance.problem)
            write(self.save / f"{stem}.{solution.solver}.json", certificate)
        except OSError as error:
            raise InputError(f"{self.save}: nothing can be saved there: {error.strerror or error}") from None


def compare_problems(
    instances: Iterable[Instance],
    names: Sequence[str] | None = None,
    laboratory: Laboratory | None = None,
    *,
    tell: Callable[[Run], None] | None = None,
) -> Comparison:
    """Let several solvers solve the same problems.

    Args:
        instances: The instances; each is let go of before the next is asked for.
        names: Names of the solvers; None takes all that are installed.
        laboratory: The conditions; None gives 10 s.
        tell: Is told of each run when it is over.

    Returns:
        One run for each instance and solver, and a curve for each where the laboratory asks for curves.

    Raises:
        InputError: A solver does not exist, or nothing can be saved where it is to be.
    """
    conditions = Laboratory(limits=Limits(time_s=10.0)) if laboratory is None else laboratory
    chosen = warmed(solvers.available() if names is None else names)
    runs: list[Run] = []
    curves: list[Curve] = []
    for instance in instances:
        for solver in chosen:
            trial = conditions.trial(instance, solver)
            runs.append(trial.run)
            if trial.curve is not None:
                curves.append(trial.curve)
            if tell is not None:
                tell(trial.run)
    return Comparison(runs=tuple(runs), curves=tuple(curves))


def proven(instance: Instance, solution: Solution) -> int | None:
    """Return what of a solution's bound stands without the solver's word; None without a bound, or a choice."""
    known = proof(instance.problem, solution.prices, solution.choices).bound
    return None if known is None or solution.bound is None else min(known, solution.bound)


def _written(run: Run, instance: Instance, solution: Solution) -> Run:
    notes = [solution.note] if solution.note else []
    if instance.knapsack is not None:
        for what, objective in (("value", solution.objective), ("at most", solution.bound)):
            notes += [] if objective is None else [f"{what} {instance.value(objective)}"]
    loss = None
    if instance.loss_scale is not None and solution.objective is not None:
        loss = float(solution.objective / instance.loss_scale)
    return replace(
        run,
        status=str(solution.status),
        loss=loss,
        objective=solution.objective,
        bound=solution.bound,
        gap=solution.gap,
        seconds=solution.seconds,
        checked=None if solution.choices is None else True,
        note="; ".join(notes),
        bound_solver=solution.bound_solver,
        versions=written_versions(solution.versions),
    )
