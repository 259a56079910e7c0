"""Make up instances whose figures hang together as measured ones do; the same arguments give the same instance.

A model is a row of layers, each a group of options. Layer ``l`` of model ``m`` draws its size and how much the loss
feels it; option ``k`` is an entry of a fixed catalogue of approximations (``_CATALOGUE``), the first of them exact:

- operations ``f[l] = exp(N(4, 0.5)[m] + N(0, 1)[l])`` microseconds, weights ``exp(N(12.5, 1.4))`` bytes, activations
  ``exp(N(11.5, 0.8))`` bytes, sensitivity ``s[l] = exp(N(-5.5, 1.5))``, which is heavy-tailed: few layers matter;
- latency ``f[l] * speedup[k]^(b[l] - 1) * exp(N(0, 0.12)) + 1.5`` microseconds, rounded up to nanoseconds, where
  ``b[l]``, uniform in [0, 0.5], is how far the layer is bound by memory traffic, which fewer operations do not shorten;
- weights ``weights[l] * bytes[k] * (1 + U(0, 0.02))``, rounded up to bytes;
- loss ``s[l] * severity[k] * exp(N(0, 0.5))``, rounded up to units of 1e-9;
- the edge ``u -> v`` costs ``0.02 * exact latency of u + 3`` microseconds where the formats of its ends differ, and for
  every second edge a loss of ``exp(N(-6.5, 1))`` where int8 meets int8.

Every bound stands at ``least + share * (exact - least)``, where ``least`` takes what is cheapest for each layer.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from solvers.pairs import Pairs
from solvers.problem import Integers, Peak, Problem, Row

__all__ = ["TOPOLOGIES", "check_arguments", "generate"]

TOPOLOGIES = ("chain", "skips", "branches")
"""A row of layers; the same with residual connections over 2 to 4 layers; forks into 2 to 4 branches that join."""

_FLOAT32, _FLOAT16, _INT8 = 0, 1, 2
_UNITS_PER_LOSS = 1e9

# Speed-up of what computes, share of the weights' bytes, severity, format, bytes of a value of an activation.
_CATALOGUE = (
    (1.0, 1.0, 0.0, _FLOAT32),
    (1.8, 0.5, 0.02, _FLOAT16),
    (3.0, 0.25, 0.25, _INT8),
    (3.6, 0.125, 1.6, _INT8),
    (2.4, 0.35, 0.12, _FLOAT16),
    (4.0, 0.17, 0.7, _INT8),
    (3.1, 0.22, 0.5, _FLOAT16),
    (1.5, 0.6, 0.08, _FLOAT32),
    (2.2, 0.4, 0.35, _FLOAT32),
    (4.8, 0.1, 2.2, _INT8),
    (4.0, 0.15, 1.4, _FLOAT16),
    (3.2, 0.2, 1.1, _FLOAT32),
)
_BYTES_OF_VALUE = np.array([4.0, 2.0, 1.0])


def generate(
    seed: int,
    *,
    models: int = 1,
    layers: int | tuple[int, int] = 50,
    options: int = 8,
    topology: str = "chain",
    pairs: bool = False,
    peaks: bool = False,
    latency: float = 0.35,
    memory: float = 0.35,
) -> Problem:
    """Make up an instance: minimise the loss under a latency for each model and one memory for all.

    Its rows are ``loss``, the objective, ``latency 0`` and so on, one for each model, and ``memory``.

    Args:
        seed: Seed; the same arguments give the same instance.
        models: Number of models.
        layers: Layers of each model, or the least and the most of them.
        options: Options of each layer.
        topology: How the layers of a model are connected, one of ``TOPOLOGIES``.
        pairs: Whether edges between unlike formats cost time, and those between int8 and int8 loss.
        peaks: Whether the memory contains an arena that all models share. In a chain each layer needs an arena by its
            own option; elsewhere a layer needs all tensors that are alive while it runs.
        latency: Where each model's latency bound stands between the least possible, 0, and the exact layers', 1.
        memory: Where the memory bound stands, likewise.

    Returns:
        The instance. Where the shares are 0 or more there is a choice that keeps all bounds: a bound is raised to where
        one exists, which in instances of more than a few layers changes nothing. A negative share asks for a bound
        below the least possible.

    Raises:
        ValueError: A number is too small, or there is no such topology.

    >>> problem = generate(1, models=2, layers=(3, 5), options=4)
    >>> [row.name for row in problem.rows]
    ['loss', 'latency 0', 'latency 1', 'memory']
    >>> generate(1, models=2, layers=(3, 5), options=4).start.tolist() == problem.start.tolist()
    True
    """
    low, high = check_arguments(seed, models, layers, options, topology)
    # A stream for each subject: with pairs or without, the layers stay the same.
    shapes, sizes, connections, meetings = (np.random.default_rng([seed, subject]) for subject in range(4))
    first = np.concatenate([[0], np.cumsum(shapes.integers(low, high + 1, models))])
    groups = int(first[-1])
    model = np.repeat(np.arange(models), np.diff(first))
    speedup, size, severity, formats = _catalogue(options)

    operations = np.exp(sizes.normal(0, 1, groups) + sizes.normal(4, 0.5, models)[model])
    noise = -sizes.normal(0, 0.12, (groups, options))
    noise[:, 0] = 0
    noise -= np.log(speedup) * (1 - sizes.uniform(0, 0.5, groups))[:, None]
    latency_ns = _upward(1000 * (operations[:, None] * np.exp(noise, out=noise) + 1.5))
    weights = np.exp(sizes.normal(12.5, 1.4, groups))
    weight_bytes = _upward((1 + 0.02 * sizes.random((groups, options))) * size * weights[:, None])
    felt = np.exp(sizes.normal(-5.5, 1.5, groups)) * _UNITS_PER_LOSS
    np.exp(sizes.normal(0, 0.5, (groups, options)), out=noise)
    noise *= severity
    rows = [_row("loss", _upward(noise * felt[:, None]))]
    del noise
    activations = np.exp(sizes.normal(11.5, 0.8, groups))
    activation_bytes = _upward(activations[:, None] * _BYTES_OF_VALUE[formats] / 4)

    connected = pairs or peaks
    source, target = _edges(first, topology, connections) if connected else (first[:0], first[:0])
    alive = None if topology == "chain" else _alive(groups, source, target)

    # Layers that all take the same option meet without conversions: the quickest such option shows what can be kept.
    sums = np.add.reduceat(latency_ns, first[:-1], axis=0)
    uniform = np.repeat(sums.argmin(axis=1), np.diff(first))
    everyone = np.arange(groups)
    exact, least, kept = (
        sum(int(part) for part in parts)
        for parts in (
            (weight_bytes[:, 0].sum(), _top(activation_bytes[:, 0], alive) if peaks else 0),
            (weight_bytes.min(axis=1).sum(), _top(activation_bytes.min(axis=1), alive) if peaks else 0),
            (weight_bytes[everyone, uniform].sum(), _top(activation_bytes[everyone, uniform], alive) if peaks else 0),
        )
    )
    cheapest = np.add.reduceat(latency_ns.min(axis=1), first[:-1])
    for number, (begin, end) in enumerate(itertools.pairwise(first.tolist())):
        deadline = _between(int(cheapest[number]), int(sums[number, 0]), latency, int(sums[number].min()))
        rows.append(_row(f"latency {number}", latency_ns[begin:end], begin * options, capacity=deadline))
    rows.append(
        _row("memory", weight_bytes, peaks=(0,) if peaks else (), capacity=_between(least, exact, memory, kept))
    )
    return Problem(
        start=options * np.arange(groups + 1),
        rows=tuple(rows),
        peaks=(_arena(activation_bytes, alive),) if peaks else (),
        pairs=_meetings(source, target, formats, model, latency_ns[:, 0], meetings) if pairs else Pairs.of(()),
    )


def check_arguments(
    seed: int, models: int, layers: int | tuple[int, int], options: int, topology: str
) -> tuple[int, int]:
    """Refuse what makes no instance, without making one.

    Args:
        seed: As in ``generate``.
        models: Likewise.
        layers: Likewise.
        options: Likewise.
        topology: Likewise.

    Returns:
        The least and the most layers of a model.

    Raises:
        ValueError: A number is too small, or there is no such topology.
    """
    low, high = (layers, layers) if isinstance(layers, int) else layers
    if seed < 0 or min(models, low, options) < 1 or low > high:
        raise ValueError(
            f"got seed {seed}, {models} models, {layers} layers, {options} options; expected numbers of 1 or more, the "
            "seed 0 or more, and the least number of layers not above the most"
        )
    if topology not in TOPOLOGIES:
        raise ValueError(f"unknown topology {topology!r}; expected one of {', '.join(TOPOLOGIES)}")
    return low, high


def _catalogue(
    options: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], Integers]:
    """Return speed-up, share of bytes, severity and format of each option.

    Beyond the catalogue its entries come again, each time a little faster, smaller and more severe.
    """
    entries = [_CATALOGUE[0]]
    for index in range(options - 1):
        times, entry = divmod(index, len(_CATALOGUE) - 1)
        speedup, size, severity, code = _CATALOGUE[1 + entry]
        entries.append((speedup * 1.08**times, size * 0.92**times, severity * 1.25**times, code))
    speedups, sizes, severities, formats = zip(*entries, strict=True)
    return np.array(speedups), np.array(sizes), np.array(severities), np.array(formats, dtype=np.int64)


def _upward(values: npt.NDArray[np.floating]) -> Integers:
    found: Integers = np.ceil(values).astype(np.int64)
    return found


def _between(least: int, exact: int, share: float, kept: int) -> int:
    """Place a bound; one that can be kept at all is not placed below what is known to be kept."""
    bound = least + round(share * (exact - least))
    return bound if share < 0 else max(bound, kept)


def _row(
    name: str, costs: Integers, begin: int = 0, *, peaks: tuple[int, ...] = (), capacity: int | None = None
) -> Row:
    """Make a row of ``costs[group][option]``, without the terms that are 0; ``begin`` is the first option's number."""
    flat = costs.ravel()
    terms = np.flatnonzero(flat)
    return Row(name=name, options=terms + begin, costs=flat[terms], peaks=peaks, capacity=capacity)


def _edges(first: Integers, topology: str, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Connect the layers of each model.

    Args:
        first: First group of each model, and the number of groups, ``(models + 1,)``.
        topology: One of ``TOPOLOGIES``.
        rng: Where blocks and branches are drawn from.

    Returns:
        The source and the target of each edge, sorted; a source comes before its target.
    """
    made = []
    for begin, end in itertools.pairwise(first.tolist()):
        count = end - begin
        if topology == "branches":
            source, target = _branches(count, rng)
        else:
            source, target = np.arange(count - 1), np.arange(1, count)
            if topology == "skips":
                over = rng.integers(2, 5, count // 2 + 1)
                block = np.concatenate([[0], np.cumsum(over)[:-1]])
                there = (rng.random(len(over)) < 0.5) & (block + over < count)
                source = np.concatenate([source, block[there]])
                target = np.concatenate([target, (block + over)[there]])
        made.append(np.stack([source, target]) + begin)
    source, target = np.concatenate(made, axis=1)
    order = np.lexsort([target, source])
    return source[order], target[order]


def _branches(count: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Connect ``count`` layers as blocks: a fork, then 2 to 4 branches of 1 to 3 layers; the next fork joins them."""
    wide = rng.integers(2, 5, count // 3 + 1)
    of_block = np.repeat(np.arange(len(wide)), wide)
    deep = rng.integers(1, 4, len(of_block))
    # Before the layers of a branch stand those of earlier branches and the forks up to its own block's.
    start = np.cumsum(deep) - deep + of_block + 1
    fork = start[np.cumsum(wide) - wide] - 1
    joins = np.append(fork[1:], start[-1] + deep[-1])
    inside = np.repeat(np.arange(len(deep)), deep - 1)
    inner = np.arange(len(inside)) - np.repeat(np.cumsum(deep - 1) - (deep - 1), deep - 1) + start[inside]
    source = np.concatenate([fork[of_block], inner, start + deep - 1])
    target = np.concatenate([start, inner + 1, joins[of_block]])
    there = target < count
    return source[there], target[there]


def _alive(groups: int, source: Integers, target: Integers) -> tuple[Integers, Integers]:
    """List which tensors are alive in which step: layer ``l`` runs in step ``l``; its output lives until last read.

    Returns:
        Steps and groups, sorted by step, then by group.
    """
    last = np.arange(groups)
    np.maximum.at(last, source, target)
    lives = last - np.arange(groups) + 1
    tensor = np.repeat(np.arange(groups), lives)
    step = np.arange(len(tensor)) - np.repeat(np.cumsum(lives) - lives, lives) + tensor
    order = np.argsort(step, kind="stable")
    return step[order], tensor[order]


def _top(sizes: Integers, alive: tuple[Integers, Integers] | None) -> int:
    """Return the bytes of the worst step, where ``sizes[group]`` is the size of each layer's activations."""
    if alive is None:
        return int(sizes.max())
    step, tensor = alive
    begins = np.flatnonzero(np.diff(step, prepend=-1))
    return int(np.add.reduceat(sizes[tensor], begins).max())


def _arena(sizes: Integers, alive: tuple[Integers, Integers] | None) -> Peak:
    groups, options = sizes.shape
    if alive is None:
        return Peak(name="arena", options=np.arange(groups * options), costs=sizes.ravel())
    step, tensor = alive
    terms = tensor[:, None] * options + np.arange(options)
    return Peak(name="arena", options=terms.ravel(), costs=sizes.ravel()[terms.ravel()], steps=np.repeat(step, options))


def _meetings(
    source: Integers,
    target: Integers,
    formats: Integers,
    model: Integers,
    exact_ns: Integers,
    rng: np.random.Generator,
) -> Pairs:
    """Make the costs of edges: time in the row of their model, loss in row 0.

    Args:
        source: Source of each edge, ``(edges,)``.
        target: Target of each edge.
        formats: Format that each option reads and writes, ``(options,)``.
        model: Model of each group, ``(groups,)``.
        exact_ns: Latency of each group's exact option.
        rng: Where the losses are drawn from.
    """
    edges, columns = len(source), int(formats.max()) + 1
    cells = columns * columns
    unlike = np.flatnonzero(~np.eye(columns, dtype=bool).ravel())
    conversion = _upward(0.02 * exact_ns[source]) + 3000
    rows, at, costs = [], [], []
    if columns > _INT8:
        worse = _upward(np.where(rng.random(edges) < 0.5, rng.lognormal(-6.5, 1, edges), 0) * _UNITS_PER_LOSS)
        (felt,) = np.nonzero(worse)
        rows.append(np.zeros(len(felt), dtype=np.int64))
        at.append(felt * cells + _INT8 * columns + _INT8)
        costs.append(worse[felt])
    # Edges are sorted by their source, so that their rows ascend, and within a row their cells do.
    rows.append(np.repeat(1 + model[source], len(unlike)))
    at.append((np.arange(edges)[:, None] * cells + unlike).ravel())
    costs.append(np.repeat(conversion, len(unlike)))
    options = len(formats)
    starts = options * np.arange(edges + 1)
    return Pairs(
        source=source,
        target=target,
        source_start=starts,
        source_format=np.tile(formats, edges),
        target_start=starts,
        target_format=np.tile(formats, edges),
        cell_start=cells * np.arange(edges + 1),
        columns=np.full(edges, columns),
        allowed=np.ones(edges * cells, dtype=np.bool_),
        row=np.concatenate(rows),
        cell=np.concatenate(at),
        cost=np.concatenate(costs),
    )
