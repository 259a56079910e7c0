"""From a cost table and a budget to a problem; the formulas in the order of docs/formulation.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from costmodels import CostTable, ModelCosts
from planner.budget import Budget
from planner.errors import InputError
from planner.figures import exact_loss, z_of
from planner.formulation import LOSS, Arena, Formulation, Group, Objective, Side
from solvers import Pair, Pairs, Peak, Problem, Row, Spread

__all__ = ["formulate"]

_MOST_LOSS = 2**51
_MOST_DECIMALS = 18
_SPREAD_BITS = 58


def formulate(
    table: CostTable,
    budget: Budget,
    objective: Objective = "loss",
    side: Side = "safe",
    arena: Arena = "most",
) -> Formulation:
    """Write a table and a budget as a problem on integers.

    Args:
        table: What choices cost.
        budget: What may be spent.
        objective: What is minimised; latency is that of all models together.
        side: How to round: ``safe`` for a plan that keeps its bounds, ``optimistic`` for a bound that no plan
            beats.
        arena: What counts as alive while a layer runs, whatever its neighbours take: ``most`` for a plan that keeps
            its bound, ``least`` for a bound that no plan beats.

    Returns:
        The problem and what it means.

    Raises:
        InputError: The figures are too large to be added up, or the choices of a tie exclude each other.
    """
    budget.check_against(tuple(model.name for model in table.models))
    # x[l, k]: one option for each choice of each group of layers; exactly one of each group is taken.
    groups = tuple(group for model in table.models for group in _groups(model))
    columns = _Columns(table, groups, side, arena)
    for model in table.models:
        columns.add_edges(model)
    try:
        return columns.formulation(budget, objective)
    except ValueError as error:
        raise InputError(f"the table's figures cannot be added up: {error}") from None


def _groups(model: ModelCosts) -> list[Group]:
    found = []
    ties = model.ties()
    for layer in model.layers:
        members = (layer,) if layer.tie is None else ties[layer.tie]
        if members[0] is not layer:
            continue
        names = ModelCosts.common_choices(members)
        maps = [{choice.name: choice for choice in member.choices} for member in members]
        costs = tuple(tuple(of[name] for of in maps) for name in names)
        found.append(
            Group(model=model.name, layers=tuple(member.name for member in members), choices=names, costs=costs)
        )
    return found


class _Columns:
    """The columns of the problem while it is written: what each option costs in each row."""

    def __init__(self, table: CostTable, groups: tuple[Group, ...], side: Side, arena: Arena) -> None:
        self.table = table
        self.groups = groups
        self.side = side
        self.start = np.cumsum([0, *(len(group.choices) for group in groups)])
        self.place = {(group.model, layer): index for index, group in enumerate(groups) for layer in group.layers}
        models = {model.name: model for model in table.models}
        options = [(models[group.model], costs) for group in groups for costs in group.costs]
        self.loss = [sum((exact_loss(cost.loss) for cost in costs), Fraction(0)) for _, costs in options]
        self.time = [sum(model.scaled_ns(cost) for cost in costs) for model, costs in options]
        self.weight = [sum(cost.weight_bytes for cost in costs) for _, costs in options]
        self.activation = [
            max(cost.activation_bytes if arena == "most" else cost.least_arena for cost in costs)
            for _, costs in options
        ]
        self.variance = [
            sum(((Fraction(m.scale) * Fraction(c.latency_std_ns or 0.0)) ** 2 for c in costs), Fraction(0))
            for m, costs in options
        ]
        self.model = np.repeat([list(models).index(group.model) for group in groups], np.diff(self.start))
        self.pairs: list[_Meeting] = []

    def add_edges(self, model: ModelCosts) -> None:
        """Add what it costs that two layers meet; within one group, that is a cost of its options."""
        layers = {layer.name: layer for layer in model.layers}
        position = [entry.name for entry in self.table.models].index(model.name)
        for edge in model.edges:
            source, target = self.place[model.name, edge.source], self.place[model.name, edge.target]
            writes = [layers[edge.source].choice(name).out_format for name in self.groups[source].choices]
            reads = [edge.read(layers[edge.target].choice(name)) for name in self.groups[target].choices]
            if source == target:
                self._meet_itself(source, [edge.cost(w, r) for w, r in zip(writes, reads, strict=True)], str(edge))
                continue
            outs, ins = list(dict.fromkeys(writes)), list(dict.fromkeys(reads))
            costs = [[edge.cost(out, into) for into in ins] for out in outs]
            meeting = _Meeting(
                model=position,
                source=source,
                target=target,
                source_format=[outs.index(form) for form in writes],
                target_format=[ins.index(form) for form in reads],
                allowed=[[cost is not None for cost in line] for line in costs],
                time=[[0 if cost is None else cost.latency_ns for cost in line] for line in costs],
                loss=[[Fraction(0) if cost is None else exact_loss(cost.loss) for cost in line] for line in costs],
            )
            if not meeting.free:
                self.pairs.append(meeting)

    def _meet_itself(self, group: int, costs: Sequence[object], edge: str) -> None:
        from costmodels import Conversion

        for place, cost in enumerate(costs):
            if not isinstance(cost, Conversion):
                name = self.groups[group].choices[place]
                raise InputError(f"{edge}: tied layers cannot both take {name!r}: their formats cannot meet")
            self.time[int(self.start[group]) + place] += cost.latency_ns
            self.loss[int(self.start[group]) + place] += exact_loss(cost.loss)

    def formulation(self, budget: Budget, objective: Objective) -> Formulation:
        """Write the rows: loss, the latency of each model, memory."""
        scale = self._loss_scale()
        rows = [self._loss_row(budget, scale)]
        rows += [self._latency_row(index, budget) for index in range(len(self.table.models))]
        peaks = self._peaks(budget)
        fixed = sum(model.fixed_bytes for model in self.table.models)
        rows.append(
            _row(
                "memory",
                self.weight,
                constant=fixed,
                peaks=tuple(range(len(peaks))),
                capacity=budget.memory_bytes,
            )
        )
        minimised = {"loss": LOSS, "worst": LOSS, "latency": 1, "memory": len(rows) - 1}.get(objective)
        if minimised is None:
            raise InputError(f"objective is {objective!r}; expected 'loss', 'worst', 'latency' or 'memory'")
        worst = total = None
        if len(self.table.models) > 1 and objective == "latency":
            minimised = total = len(rows)
            rows.append(self._total_latency(rows[1:-1], budget))
        if len(self.table.models) > 1 and objective == "worst":
            minimised = worst = len(rows)
            rows.append(_row("loss of the worst model", [0] * int(self.start[-1]), peaks=(len(peaks),)))
            peaks = (*peaks, self._worst_loss(rows[LOSS]))
        problem = Problem(
            start=self.start,
            rows=tuple(rows),
            objective=minimised,
            # Among plans that are as good, the one of least loss.
            then=() if minimised == LOSS else (LOSS,),
            peaks=peaks,
            pairs=Pairs.of(self._pair(meeting, scale, total) for meeting in self.pairs),
        )
        return Formulation(
            problem=problem,
            groups=self.groups,
            models=tuple(model.name for model in self.table.models),
            loss_scale=scale,
            loss_error=self._loss_error(scale),
            worst=worst,
        )

    def _round(self, value: Fraction) -> int:
        return math.ceil(value) if self.side == "safe" else math.floor(value)

    def _loss_scale(self) -> Fraction:
        """Choose the power of ten that makes all losses whole, or else the greatest that sums can bear."""
        values = [*self.loss, *(loss for meeting in self.pairs for line in meeting.loss for loss in line)]
        total = sum(values, Fraction(0))
        decimals = 0
        denominators = {value.denominator for value in values}
        while decimals < _MOST_DECIMALS and any(10**decimals % denominator for denominator in denominators):
            decimals += 1
        scale = Fraction(10) ** decimals
        while total * scale > _MOST_LOSS:
            scale /= 10
        return scale

    def _loss_error(self, scale: Fraction) -> Fraction:
        """Bound what rounding up adds: in each group and meeting, the largest rounding of one option."""
        if self.side == "optimistic":
            return Fraction(0)
        error = [math.ceil(loss * scale) - loss * scale for loss in self.loss]
        bounds = zip(self.start[:-1].tolist(), self.start[1:].tolist(), strict=True)
        total = sum((max(error[first:beyond]) for first, beyond in bounds), Fraction(0))
        for meeting in self.pairs:
            total += max(math.ceil(loss * scale) - loss * scale for line in meeting.loss for loss in line)
        return total / scale

    def _loss_row(self, budget: Budget, scale: Fraction) -> Row:
        capacity = None
        if budget.loss_exact is not None:
            capacity = math.floor(Fraction(budget.loss_exact) * scale)
        return _row("loss", [self._round(loss * scale) for loss in self.loss], capacity=capacity)

    def _latency_row(self, index: int, budget: Budget) -> Row:
        """Sum up one model's latency; above the median mean + z sigma, the variance being that of the layers."""
        model = self.table.models[index]
        mine = (self.model == index).tolist()
        times = [time if own else 0 for time, own in zip(self.time, mine, strict=True)]
        variances = [variance if own else Fraction(0) for variance, own in zip(self.variance, mine, strict=True)]
        return _row(
            f"latency of {model.name}",
            times,
            constant=model.overhead_ns,
            capacity=budget.latency_ns(model.name),
            spread=self._spread(variances, budget),
        )

    def _spread(self, variances: Sequence[Fraction], budget: Budget) -> Spread | None:
        """Write variances, in ns², as integers of the finest unit whose sum 64 bits can bear."""
        total = sum(variances, Fraction(0))
        if budget.latency_quantile <= 0.5 or not total:
            return None
        magnitude = total.numerator.bit_length() - total.denominator.bit_length()
        fineness = (_SPREAD_BITS - magnitude) // 2
        options, whole = _nonzero([self._round(variance * Fraction(4) ** fineness) for variance in variances])
        return Spread(
            options=options, variances=whole, z=Fraction(z_of(budget.latency_quantile)) / Fraction(2) ** fineness
        )

    def _total_latency(self, rows: Sequence[Row], budget: Budget) -> Row:
        """Sum up the latency of all models; above the median no more than that.

        The root of all variances together lies below the sum of the models' roots: what is proven of this row holds.
        """
        total = np.zeros(int(self.start[-1]), np.int64)
        for row in rows:
            total[row.options] += row.costs
        constant = sum(row.constant for row in rows)
        return _row("latency", total.tolist(), constant=constant, spread=self._spread(self.variance, budget))

    def _worst_loss(self, losses: Row) -> Peak:
        """Return the greatest of the models' losses: each model is a step, in which all of its layers count."""
        for meeting in self.pairs:
            if any(map(any, meeting.loss)):
                source, target = self.groups[meeting.source].layers[0], self.groups[meeting.target].layers[0]
                raise InputError(
                    f"model {self.table.models[meeting.model].name!r}: the edge {source} -> {target} costs loss of its "
                    "own, which the objective 'worst' does not count; expected edges that cost time alone"
                )
        steps = self.model[losses.options]
        return Peak(name="loss of the worst model", options=losses.options, costs=losses.costs, steps=steps)

    def _peaks(self, budget: Budget) -> tuple[Peak, ...]:
        if budget.arena == "shared":
            return (_peak("arena", self.activation),)
        return tuple(
            _peak(f"arena of {model.name}", np.where(self.model == index, self.activation, 0).tolist())
            for index, model in enumerate(self.table.models)
        )

    def _pair(self, meeting: _Meeting, scale: Fraction, total: int | None) -> Pair:
        time = np.array(meeting.time, np.int64)
        loss = np.array([[self._round(value * scale) for value in line] for line in meeting.loss], np.int64)
        costs = [(LOSS, loss), (1 + meeting.model, time)]
        if total is not None:
            costs.append((total, time))
        return Pair(
            source=meeting.source,
            target=meeting.target,
            source_format=np.array(meeting.source_format),
            target_format=np.array(meeting.target_format),
            allowed=np.array(meeting.allowed),
            costs=tuple((row, matrix) for row, matrix in costs if matrix.any()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """An edge between two groups, its formats numbered: ``time[source format][target format]`` and so on."""

    model: int
    source: int
    target: int
    source_format: list[int]
    target_format: list[int]
    allowed: list[list[bool]]
    time: list[list[int]]
    loss: list[list[Fraction]]

    @property
    def free(self) -> bool:
        """Whether everything may meet, at no cost."""
        return all(map(all, self.allowed)) and not any(map(any, self.time)) and not any(map(any, self.loss))


def _row(name: str, costs: Sequence[int], **more: object) -> Row:
    options, kept = _nonzero(costs)
    return Row(name=name, options=options, costs=kept, **more)  # type: ignore[arg-type]


def _peak(name: str, costs: Sequence[int]) -> Peak:
    options, kept = _nonzero(costs)
    return Peak(name=name, options=options, costs=kept)


def _nonzero(costs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    if max(costs, default=0) >= 2**62:
        raise ValueError(f"a cost comes to {max(costs)}; expected less than 2^62")
    array = np.asarray(costs, np.int64)
    options = np.flatnonzero(array)
    return options, array[options]
