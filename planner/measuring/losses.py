"""What every choice of a network loses: measured one by one, on as many cores as given, or taken from the store."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodels import Alone, Interactions, interactions
from planner.masks.costs import pairs_to_measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.accuracy import LossCost
    from planner.judging import Metric
    from planner.measuring.bench import Bench, Finding, Subject
    from planner.measuring.store import Record, Store
    from planner.model import Model

__all__ = ["Losses", "choice_losses", "pool"]

METHOD = 2
"""How losses are measured; another number for figures that are not to be mixed with those that a store has."""
NATS = ("cross-entropy", "divergence")
"""Losses that are counted in nats."""
_AHEAD = 64
"""Choices that an executor may be handed before the first of them is finished."""
_PAUSE_S = 0.1

logger = logging.getLogger(__name__)

Pair = tuple[str, str]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Hold what was found of every choice of a network.

    Attributes:
        costs: What each loses alone: a layer, and a choice without masks or ``prune@`` with a share of the class whose
            channels the layer makes first.
        changes: By how much it changed the class scores, float16 ``[image][class]``; fewer rows where it was stopped.
        exact: Class scores of the exact network on the same images, float32 ``[image][class]``.
        labels: Right classes of the images, -1 where they are not known.
        loss: What counts as loss.
    """

    costs: Mapping[Pair, LossCost]
    changes: Mapping[Pair, NDArray[np.float16]] = field(repr=False)
    exact: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    loss: str

    @property
    def stopped(self) -> list[str]:
        """Layers and choices that were not judged on all images, because they are hopeless."""
        return [f"{layer} {choice}" for (layer, choice), cost in self.costs.items() if cost.stopped]

    def interactions(self) -> Interactions:
        """Work out what choices lose together."""
        alone = {
            pair: Alone(
                loss=cost.loss_raw,
                loss_std=cost.loss_std,
                top1=cost.top1_expected,
                top1_std=cost.top1_expected_std,
                change=self.changes[pair],
            )
            for pair, cost in self.costs.items()
        }
        return interactions(alone, self.exact, nats=self.loss in NATS)


def choice_losses(
    model: Model,
    choices: Mapping[str, Sequence[str]],
    store: Store,
    *,
    refit: bool,
    tell: Tell,
    metric: Metric | None = None,
    executor: Executor | None = None,
) -> Losses:
    """Measure the loss of every choice alone, those that the store has left aside.

    Args:
        model: The network with its data.
        choices: The choices of each layer.
        store: Where findings are kept.
        refit: Whether the layers behind an approximated one are refitted.
        tell: Is told how far the work is.
        metric: The user's own loss in place of cross-entropy (divergence where there are no labels).
        executor: Where choices are measured; in this process without one.

    Returns:
        The findings: the same whatever measured them.
    """
    from planner.judging import Judge
    from planner.measuring.bench import SINGLE_ROWS, Subject

    data, judge = model.data(), Judge(metric=metric)
    subject = Subject(graph=model.graph, data=data, refit=refit, judge=judge)
    about: dict[str, Any] = {
        "method": METHOD,
        "model": model.graph.source_digest,
        "data": data.digest,
        "refit": refit,
        "rows": SINGLE_ROWS,
        "loss": judge.name(data.validation.labels),
    }
    if metric is not None:
        about["metric"] = judge.digest
    order = {layer.name: index for index, layer in enumerate(model.graph.layers)}
    pairs = sorted(pairs_to_measure(model.graph, choices), key=lambda pair: order[pair[0]])
    abouts = {pair: {**about, "layer": pair[0], "choice": pair[1]} for pair in pairs}
    found = {pair: known for pair in pairs if (known := store.get("loss", abouts[pair])) is not None}
    if found:
        logger.info("%s: %d of %d losses are in the store", model.name, len(found), len(pairs))
    work = _Work(subject, executor)
    for pair, record in _missing(work, store, {pair: abouts[pair] for pair in pairs if pair not in found}):
        found[pair] = record
        tell(f"{model.name}: losses", len(found), len(pairs))
    exact = _exact(model, work, store)
    costs = {pair: _cost(found[pair].value) for pair in pairs}
    losses = Losses(
        costs=costs,
        changes={pair: found[pair].arrays["change"] for pair in pairs},
        exact=exact,
        labels=data.validation.labels,
        loss=about["loss"],
    )
    if losses.stopped:
        logger.info("%s: hopeless, and not judged to the end: %s", model.name, ", ".join(losses.stopped))
    return losses


def _missing(work: _Work, store: Store, abouts: Mapping[Pair, Mapping[str, Any]]) -> Iterator[tuple[Pair, Record]]:
    """Measure what the store lacks, and give what stays there; what another run is about to measure is left to it."""

    def kept(pair: Pair, finding: Finding) -> tuple[Pair, Record]:
        cost = dataclasses.asdict(finding.cost)
        return pair, store.put("loss", abouts[pair], cost, {"change": finding.change})

    waiting = list(abouts)
    while waiting:
        left = []
        for pair in waiting:
            for done in work.finished(room=True):
                yield kept(*done)
            if store.claim("loss", abouts[pair]):
                work.begin(pair)
                continue
            known = store.get("loss", abouts[pair])
            if known is None:
                left.append(pair)
            else:
                yield pair, known
        # Before waiting for others: they may be waiting for what is claimed here.
        for done in work.finished(room=False):
            yield kept(*done)
        if left:
            time.sleep(_PAUSE_S)
        waiting = left


def _cost(value: Mapping[str, Any]) -> LossCost:
    from planner.accuracy import LossCost

    return LossCost(**value)


def _exact(model: Model, work: _Work, store: Store) -> NDArray[np.float32]:
    """Return what the exact network gives on the validation images, from the store where it is there."""
    about = {"method": METHOD, "model": model.graph.source_digest, "data": model.data().digest}
    known = store.get("answers", about)
    if known is None:
        known = store.put("answers", about, {}, {"scores": work.bench.exact})
    return np.asarray(known.arrays["scores"], np.float32)


class _Work:
    """Measures choices: here, one after the other, or wherever an executor has them measured."""

    def __init__(self, subject: Subject, executor: Executor | None) -> None:
        self._subject = subject
        self._executor = executor
        self._bench: Bench | None = None
        self._packed: tuple[bytes, str] | None = None
        self._futures: dict[Future[Finding], Pair] = {}
        self._here: list[tuple[Pair, Finding]] = []

    @property
    def bench(self) -> Bench:
        """The bench of this process, made when it is first needed."""
        from planner.measuring.bench import Bench

        if self._bench is None:
            self._bench = Bench(self._subject)
        return self._bench

    def begin(self, pair: Pair) -> None:
        """Have a choice measured."""
        from planner.measuring.bench import Task, measure_task

        layer, choice = pair
        if self._executor is None:
            self._here.append((pair, self.bench.measure(layer, choice)))
            return
        if self._packed is None:
            packed = self._subject.packed()
            self._packed = packed, hashlib.sha256(packed).hexdigest()
        subject, digest = self._packed
        task = Task(subject=subject, digest=digest, layer=layer, choice=choice)
        self._futures[self._executor.submit(measure_task, task)] = pair

    def finished(self, *, room: bool) -> Iterator[tuple[Pair, Finding]]:
        """Give what is finished: what there is, and as much more as must end for another to begin; or all of it."""
        while self._here:
            yield self._here.pop(0)
        while self._futures:
            full = not room or len(self._futures) >= _AHEAD
            done, _ = wait(self._futures, timeout=None if full else 0, return_when=FIRST_COMPLETED)
            if not done:
                return
            for future in done:
                yield self._futures.pop(future), future.result()


@contextmanager
def pool(jobs: int) -> Iterator[Executor | None]:
    """Hold as many processes as are wanted; None for one, which is this process.

    They are started afresh: a runtime that has started threads must not be forked.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from planner.measuring.processes import end_with_parent

    if jobs <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as executor:
        yield executor
