"""Where one choice after another is put into a network and judged: what all of them have in common is kept.

The exact network's answers, and its activations on calibration images, are computed once.  On the images that losses
are judged by, only what lies behind the first layer that a choice changes is run: what the exact network gives up to
there goes along from layer to layer, and never more of it than a cut through the network holds.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.accuracy import LossCost, compare, scores_of
from planner.batching import batchable
from planner.calibration import KEPT_BYTES, Calibration, arrays_of, opset_of
from planner.dataset import Split
from planner.errors import InputError
from planner.execution import BATCH, Part, run_nodes
from planner.judging import Judge, calibrated
from planner.masks.choices import alone
from planner.rewrite import EXACT, apply

if TYPE_CHECKING:
    import onnx

    from planner.dataset import Dataset
    from planner.graph import LayerGraph
    from planner.rewrite import Rewritten

__all__ = ["HOPELESS_NATS", "SINGLE_ROWS", "Bench", "Finding", "Subject", "Task", "measure_losses", "measure_task"]

Float32 = NDArray[np.float32]
Arrays = Mapping[str, Float32]
Progress = Callable[[str, str, "Finding"], None]
"""Called with the layer and the choice that have just been measured, and what was found."""

SINGLE_ROWS = 12_000
"""Positions of a layer that refits of a single choice sum over.  A build takes 30,000; on two networks that changed a
loss by a quarter of its standard error, to neither side, and took three quarters of the time."""
HOPELESS_NATS = 1.0
"""A choice that loses more than this, with certainty, is not judged on the rest of the images."""
_CERTAIN = 4.0
"""Standard errors that count as certainty."""
_LOOKS = (192, 448)
"""Images after which a choice may be found hopeless."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """Hold what was found of one choice of one layer.

    Attributes:
        cost: What it loses.
        change: float16 ``[image][class]``, by how much it changed the exact network's class scores on the images that
            it was judged on.  A softmax does not see what is added to all classes, so each row's mean is 0.
    """

    cost: LossCost
    change: NDArray[np.float16] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that there is a row for each image."""
        if self.change.ndim != 2 or len(self.change) != self.cost.images:
            raise InputError(f"changes of shape {self.change.shape} on {self.cost.images} images")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """State whose choices are measured, and how.

    Attributes:
        graph: The network.
        data: Calibration images to fit by, validation images to judge by.
        refit: Whether the layers behind an approximated one are refitted.
        judge: What counts as loss.
        rows: Positions of a layer that refits sum over.
        threads: Threads of onnxruntime.
    """

    graph: LayerGraph
    data: Dataset = field(repr=False)
    refit: bool
    judge: Judge
    rows: int = SINGLE_ROWS
    threads: int = 1

    def packed(self) -> bytes:
        """Return everything that another process needs; the test images stay here.

        Raises:
            InputError: It cannot be sent, as a metric that no module holds cannot.
        """
        labelled, images = self.data.labelled, self.data.validation.images[:1]
        first = Split(images=images, labels=self.data.validation.labels[:1]) if labelled else Split(images=images)
        light = replace(self, data=replace(self.data, test=first))
        try:
            return pickle.dumps(light, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = self.judge.name(self.data.validation.labels)
            raise InputError(
                f"model {self.graph.name!r}, loss {name!r}: cannot be sent to another process ({error}); "
                "expected a metric that is a function of a module"
            ) from None


class _Prefix:
    """What the exact network gives up to a cut, on the images to judge by; the cut moves on from layer to layer."""

    def __init__(self, graph: LayerGraph, images: Float32, batch: int, threads: int) -> None:
        self._graph = graph
        self._images = images
        self._batch, self._threads = batch, threads
        self._arrays = arrays_of(graph.model)
        self._nodes = {node.name: node for node in graph.model.graph.node}
        self._at = 0
        self._live: Arrays = {graph.input_name: images}

    def before(self, index: int) -> Arrays:
        """Return the tensors that are made before the layer of an index and read from it on.

        Where they are too much to be kept, those of the last cut before it that are not.
        """
        while index and 4 * len(self._images) * self._elements(index) > KEPT_BYTES:
            index -= 1
        if index < self._at:
            self._at, self._live = 0, {self._graph.input_name: self._images}
        layers, wanted = self._graph.layers, self._wanted(index)
        made = {name for layer in layers[self._at : index] for name in layer.outputs}
        fresh = [name for name in made if name in wanted]
        if fresh:
            nodes = [self._nodes[name] for layer in layers[self._at : index] for name in layer.nodes]
            read = {name for node in nodes for name in node.input}
            feeds = {name: array for name, array in self._live.items() if name in read}
            self._live = {
                **self._live,
                **run_nodes(
                    nodes,
                    self._arrays,
                    feeds,
                    fresh,
                    opset=opset_of(self._graph.model),
                    batch=self._batch,
                    threads=self._threads,
                ),
            }
        self._live = {name: array for name, array in self._live.items() if name in wanted}
        self._at = index
        return self._live

    def _wanted(self, index: int) -> set[str]:
        """Return the names of the tensors that are made before a layer and read from it on."""
        layers = self._graph.layers[index:]
        return {name for layer in layers for name in layer.inputs} - {n for layer in layers for n in layer.outputs}

    def _elements(self, index: int) -> int:
        """Count the elements that such tensors have for an image."""
        return sum(prod(self._graph.shapes[name][1:]) for name in self._wanted(index))


class Bench:
    """Put choices into a network, one at a time, and judge them.

    Attributes:
        subject: The network, its data, and what counts.
        labels: Right classes of the images to judge by, -1 where they are not known.
        exact: Class scores of the exact network on them, ``[image][class]``.
        likely: How likely each class is for each image (`planner.judging.calibrated`).
    """

    def __init__(self, subject: Subject, calibration: Calibration | None = None) -> None:
        """Run the exact network.

        Args:
            subject: The network, its data, and what counts.
            calibration: The network on the calibration images, where that is at hand already.
        """
        self.subject = subject
        graph, data = subject.graph, subject.data
        self.labels = data.validation.labels
        self._calibration = calibration or Calibration.of(graph, data, rows=subject.rows, threads=subject.threads)
        self._batch = BATCH if batchable(graph.model, graph.shapes) else 1
        self._prefix = _Prefix(graph, data.inputs("validation"), self._batch, subject.threads)
        self._order = {layer.name: index for index, layer in enumerate(graph.layers)}
        self._arrays = arrays_of(graph.model)
        self._nodes = {node.name: node for node in graph.model.graph.node}
        self.exact = self._judged(graph.model, 0, lambda _: False)
        self.likely = calibrated(self.exact, self.labels)

    def measure(self, layer: str, choice: str) -> Finding:
        """Measure what a choice of a layer loses, all other layers being exact.

        Args:
            layer: The layer, or the layer that is the first to make the channels of a class.
            choice: Its choice, or ``prune@`` and a share for the class.
        """
        graph, count = self.subject.graph, len(self.labels)
        if choice == EXACT:
            cost = LossCost(
                loss_raw=0.0,
                loss_std=0.0,
                top1_change=0.0,
                top1_change_std=0.0,
                parameter_bytes=graph.layer(layer).parameter_bytes,
                images=count,
            )
            return Finding(cost=cost, change=np.zeros(self.exact.shape, np.float16))
        rewritten = apply(graph, alone(graph, layer, choice), self._calibration, refit=self.subject.refit)
        scores = self._judged(rewritten.model, self._first_changed(rewritten), self._is_hopeless)
        return self._finding(scores, rewritten.parameter_bytes[layer])

    def _finding(self, scores: Float32, parameter_bytes: int) -> Finding:
        seen = len(scores)
        cost = compare(
            scores,
            self.exact[:seen],
            self.labels[:seen],
            parameter_bytes=parameter_bytes,
            judge=self.subject.judge,
            likely=self.likely[:seen],
        )
        change = scores - self.exact[:seen]
        change = np.clip(change - change.mean(axis=1, keepdims=True), -6e4, 6e4)  # float16 ends at 65,504
        return Finding(cost=replace(cost, stopped=seen < len(self.labels)), change=change.astype(np.float16))

    def _is_hopeless(self, scores: Float32) -> bool:
        """Tell whether a network's answers so far are lost for certain; only nats have a bar."""
        if not self.subject.judge.is_nats():
            return False
        seen = len(scores)
        lost = self.subject.judge.lost(scores, self.exact[:seen], self.labels[:seen])
        return bool(lost.mean() - _CERTAIN * lost.std(ddof=1) / np.sqrt(seen) > HOPELESS_NATS)

    def _judged(self, model: onnx.ModelProto, cut: int, hopeless: Callable[[Float32], bool]) -> Float32:
        """Return class scores, ``[image][class]``: of all images, or of the first ones where that is enough."""
        graph = self.subject.graph
        feeds = self._prefix.before(cut)
        arrays = arrays_of(model)
        output = graph.output_name
        nodes = _behind(model, output, set(feeds))
        read = {name for node in nodes for name in node.input}
        feeds = {name: array for name, array in feeds.items() if name in read}
        part = Part(
            nodes,
            arrays,
            {name: array.shape for name, array in feeds.items()},
            [output],
            opset=opset_of(model),
            batch=self._batch,
            threads=self.subject.threads,
        )
        count = len(self.labels)
        ends = [*(look for look in _LOOKS if look < count), count]
        scores: list[Float32] = []
        start = 0
        for end in ends:
            outputs = part.run({name: array[start:end] for name, array in feeds.items()})[output]
            scores.append(scores_of(model, outputs.reshape(end - start, -1)))
            start = end
            if end < count and hopeless(np.concatenate(scores)):
                break
        return np.concatenate(scores)

    def _first_changed(self, rewritten: Rewritten) -> int:
        """Return the index of the first layer that is no longer what it is in the exact network."""
        graph = self.subject.graph
        nodes = {node.name: node for node in rewritten.model.graph.node}
        arrays = {item.name: item for item in rewritten.model.graph.initializer}
        exact = {item.name: item for item in graph.model.graph.initializer}
        for index, layer in enumerate(graph.layers):
            if tuple(rewritten.nodes[layer.name]) != tuple(layer.nodes):
                return index
            for name in layer.nodes:
                if nodes[name] != self._nodes[name]:
                    return index
                if any(arrays[item] != exact[item] for item in nodes[name].input if item in exact):
                    return index
        return len(graph.layers) - 1


def _behind(model: onnx.ModelProto, output: str, known: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that an output needs besides tensors that are known, in topological order."""
    needed, found = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            found.append(node)
            needed.update(name for name in node.input if name not in known)
    return found[::-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One choice of one layer to be measured, anywhere: all that is needed travels with it.

    Attributes:
        subject: A packed `Subject`.
        digest: What tells it from others, so that a worker keeps what its choices have in common.
        layer: The layer.
        choice: Its choice.
    """

    subject: bytes = field(repr=False)
    digest: str
    layer: str
    choice: str


class _Kept(threading.local):
    """The bench that a thread of a worker measured on last."""

    digest: str = ""
    bench: Bench | None = None


_KEPT = _Kept()


def measure_task(task: Task) -> Finding:
    """Measure one choice in whatever process this is, with one thread of linear algebra."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        if _KEPT.bench is None or _KEPT.digest != task.digest:
            _KEPT.bench = None  # before the next one is made, so that two are never there
            _KEPT.bench, _KEPT.digest = Bench(pickle.loads(task.subject)), task.digest  # noqa: S301 - our own bytes
        return _KEPT.bench.measure(task.layer, task.choice)


def measure_losses(
    graph: LayerGraph,
    dataset: Dataset,
    choices: Mapping[str, Sequence[str]],
    *,
    refit: bool = True,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
    judge: Judge | None = None,
    threads: int = 1,
) -> dict[tuple[str, str], LossCost]:
    """Measure what each choice of each layer loses, all other layers being exact.

    Args:
        graph: The network.
        dataset: Approximations are calibrated on its calibration images, losses measured on its validation
            images.
        choices: The choices of each layer, as `planner.rewrite.applicable` returns them; ``prune@`` and a share for
            the class of channels that the layer is the first to make.
        refit: Whether the layers behind the approximated one are refitted.
        progress: Called after each choice.
        calibration: The network on the calibration images, where that is at hand already.
        judge: What counts as loss; cross-entropy, or divergence without labels.
        threads: Threads of onnxruntime.

    Returns:
        ``{(layer, choice): cost}``; ``exact`` loses nothing.
    """
    subject = Subject(graph=graph, data=dataset, refit=refit, judge=judge or Judge(), threads=threads)
    bench = Bench(subject, calibration)
    measured = {}
    for layer, names in choices.items():
        for choice in names:
            found = bench.measure(layer, choice)
            measured[layer, choice] = found.cost
            if progress is not None:
                progress(layer, choice, found)
    return measured
