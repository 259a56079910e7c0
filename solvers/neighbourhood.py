"""Better a choice piece by piece: free some groups, leave all others as they are, and solve what is free exactly.

P. Shaw, Using constraint programming and local search methods to solve vehicle routing problems, CP (1998). What is
freed together decides what can be found: groups that meet or share a capacity of their own form a block, a network
for instance, and blocks trade what they share with each other only when several are free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.check import broken, values
from solvers.dual import blocks
from solvers.fixing import Shrunk
from solvers.problem import Problem
from solvers.solver import Answer, Limits

__all__ = ["Search"]

_FIRST = 24
_LEAST = 4
_OPTIONS = 6
"""So many options in doubt are as hard as one free group."""
_GROW, _SHRINK = 1.15, 0.8
_STALLED = 40
"""After so many neighbourhoods in a row without anything better the search ends."""


class Search:
    """A search around the best choice known, on several threads.

    Attributes:
        best: The best choice.
        objective: What it costs.
        tries: How many neighbourhoods were solved.
    """

    def __init__(
        self,
        problem: Problem,
        choices: Sequence[int],
        answers: Sequence[Answer],
        seed: int,
        doubt: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Start from a choice that keeps all capacities.

        Args:
            problem: The problem, without ties and forbidden options.
            choices: The choice.
            answers: Exact solvers for what is free, taken in turn.
            seed: Seed of which groups are freed.
            doubt: How much dearer than the best choice could be one that takes an option, ``(options,)``: the less, the
                more that option is worth a try. None where nothing is known.
        """
        self.doubt = doubt
        self.problem, self.answers = problem, answers
        self.best = np.asarray(choices, np.int64)
        self.objective = values(problem, choices)[problem.objective]
        self.block = blocks.find(problem, blocks.steps(problem)).of_group
        self.count = int(self.block.max()) + 1
        self.rng = np.random.default_rng(seed)
        self.lock = threading.Lock()
        self.tries = self.since = 0
        # How many groups to free, of each kind of neighbourhood: as many as are solved within their time.
        self.sizes = dict.fromkeys(self.kinds(), float(_FIRST))
        self.gains = dict.fromkeys(self.kinds(), 1.0)

    def kinds(self) -> tuple[str, ...]:
        """Name the kinds of neighbourhoods that make sense here."""
        kinds: tuple[str, ...] = ("row", "anywhere")
        if self.count > 1:
            kinds = (*kinds, "blocks")
        return kinds if self.doubt is None else (*kinds, "doubt")

    def run(
        self,
        limits: Limits,
        left: Callable[[], float],
        each_s: float,
        found: Callable[[Sequence[int]], None],
    ) -> bool:
        """Search until nothing better was found for long, or the time is over.

        Args:
            limits: Seed and threads.
            left: Says how many seconds are left.
            each_s: How long one neighbourhood may take.
            found: Is handed every better choice.

        Returns:
            Whether the search ended before its time.
        """
        workers = limits.threads

        def work() -> None:
            while left() > 0.05 and self.since < _STALLED:
                self._try(replace(limits, workers=1, watch=None, work=None, gap=0.0), min(each_s, left()), found)

        with ThreadPoolExecutor(workers) as pool:
            for running in [pool.submit(work) for _ in range(workers)]:
                running.result()
        return self.since >= _STALLED

    def _try(self, limits: Limits, seconds: float, found: Callable[[Sequence[int]], None]) -> None:
        with self.lock:
            start, number = self.best, self.tries
            self.tries += 1
            weights = np.array(list(self.gains.values()))
            kind = str(self.rng.choice(list(self.gains), p=weights / weights.sum()))
            kept = self._kept(kind, self.sizes[kind])
            seed = int(self.rng.integers(2**31))
        kept[self.problem.start[:-1] + start] = True
        shrunk = Shrunk.of(self.problem).without(np.flatnonzero(~kept))
        if shrunk.problem is None:
            raise RuntimeError("a neighbourhood without the choice it is around")
        answer = self.answers[number % len(self.answers)]
        solution = answer(shrunk.problem, replace(limits, time_s=seconds, seed=seed), shrunk.project(start.tolist()))
        closed = solution.objective is not None and solution.gap is not None and solution.gap < 1e-6
        better = None if solution.choices is None else np.array(shrunk.restore(solution.choices))
        with self.lock:
            self.since += 1
            self.gains[kind] = max(0.1, 0.9 * self.gains[kind])
            size = self.sizes[kind] * (_GROW if closed else _SHRINK)
            self.sizes[kind] = min(max(size, _LEAST), float(self.problem.groups))
            if better is not None and self._accept(start, better):
                self.since = 0
                self.gains[kind] += 0.5
                found(self.best.tolist())

    def _accept(self, start: Integers, better: Integers) -> bool:
        """Take what is better; where another thread was faster, take the change along with the other's."""
        both = np.where(better != start, better, self.best)
        for choices in (both, better):
            objective = values(self.problem, choices.tolist())[self.problem.objective]
            if objective < self.objective and not broken(self.problem, choices.tolist()):
                self.best, self.objective = choices, objective
                return True
        return False

    def _kept(self, kind: str, size: float) -> npt.NDArray[np.bool_]:
        """Choose the options that may be taken besides those of the best choice, ``(options,)``."""
        if kind != "doubt" or self.doubt is None:
            return np.repeat(self._free(kind, size), np.diff(self.problem.start))
        noisy = self.doubt * self.rng.uniform(0.5, 1.5, len(self.doubt))
        many = min(self.problem.groups + round(_OPTIONS * size), self.problem.options)
        kept: npt.NDArray[np.bool_] = noisy <= np.partition(noisy, many - 1)[many - 1]
        return kept

    def _free(self, kind: str, size: float) -> npt.NDArray[np.bool_]:
        """Choose about so many groups to free, ``(groups,)``."""
        free = np.zeros(self.problem.groups, np.bool_)
        many = min(max(round(size), 2), self.problem.groups)
        if kind == "anywhere":
            free[self.rng.choice(self.problem.groups, many, replace=False)] = True
        elif kind == "row":
            # Groups in a row, half of them in one place and half in another: neighbours, and somebody to trade with.
            for _ in range(2):
                first = int(self.rng.integers(self.problem.groups))
                free[first : first + (many + 1) // 2] = True
        else:
            for block in self.rng.permutation(self.count).tolist():
                free |= self.block == block
                if int(free.sum()) >= many:
                    break
        return free
