"""Leaving out choices that another choice of the same layer beats in every cost, before anything is planned.

Whatever plan takes such a choice can take the other one instead: every row of the problem, and every format that
meets a neighbour's, stays within what it was. So no optimum is lost, and the solver has less to look at: what is kept
are the minima of each layer's costs under componentwise order (H. T. Kung, F. Luccio and F. P. Preparata, *On finding
the maxima of a set of vectors*, Journal of the ACM 22, 1975).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from costmodels import ChoiceCost, CostTable, Format, LayerCosts, ModelCosts
from planner.errors import InputError
from planner.figures import exact_loss

__all__ = ["Dominated", "describe", "instead", "undominated"]

_MOST_NAMED = 6

_Costs = tuple[Fraction | float, ...]
_Kind = tuple[tuple[Format, Format, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominated:
    """One choice that was left out, and the choice that costs no more in anything.

    Attributes:
        model: Name of the model.
        layers: The layer, or the layers of one tie.
        choice: Name of the choice that was left out.
        by: Name of the choice that beats it, which is kept.

    >>> Dominated(model="m", layers=("conv1",), choice="int4w", by="int8w").by
    'int8w'
    """

    model: str
    layers: tuple[str, ...]
    choice: str
    by: str

    def __post_init__(self) -> None:
        """Refuse a choice that beats itself, and one of no layer."""
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or self.choice == self.by:
            raise InputError(f"the choice {self.choice!r} of the layers {self.layers} cannot be beaten by {self.by!r}")


def undominated(table: CostTable, *, spread: bool = False) -> tuple[CostTable, tuple[Dominated, ...]]:
    """Leave out the choices that another choice of the same layer beats in every cost.

    Costs are latency, weight bytes, activation bytes, loss, and energy where it is given. Only choices that read the
    same format and write the same format are compared, and of a network whose arena is put together from memory
    scripts only those that become the same in memory: what else a choice makes of an arena no figure of its own says.
    Layers of one tie are one: their costs are added up, their
    activations are the largest of any. Of choices that cost the same in everything, the first is kept.

    Args:
        table: What choices cost.
        spread: Whether the standard deviation of the latency counts as a cost too, as it does where a quantile
            above the median is bound.

    Returns:
        The table without them, and what was left out because of what.

    >>> exact = ChoiceCost(name="exact", latency_ns=1000, weight_bytes=64, loss=0.0)
    >>> worse = ChoiceCost(name="int8w", latency_ns=1500, weight_bytes=64, loss=0.1)
    >>> layer = LayerCosts(name="conv1", choices=(exact, worse))
    >>> kept, dropped = undominated(CostTable(models=(ModelCosts(name="m", layers=(layer,)),)))
    >>> [choice.name for choice in kept.models[0].layers[0].choices], dropped[0].choice
    (['exact'], 'int8w')
    """
    models, dropped = [], []
    for model in table.models:
        gone: dict[str, set[str]] = {}
        for layers in _groups(model):
            beaten = _beaten(model, layers, spread=spread)
            names = tuple(layer.name for layer in layers)
            dropped += [
                Dominated(model=model.name, layers=names, choice=choice, by=by) for choice, by in beaten.items()
            ]
            gone |= {name: set(beaten) for name in names}
        kept = [
            replace(layer, choices=tuple(c for c in layer.choices if c.name not in gone[layer.name]))
            if gone[layer.name]
            else layer
            for layer in model.layers
        ]
        models.append(replace(model, layers=tuple(kept)))
    if not dropped:
        return table, ()
    return replace(table, models=tuple(models)), tuple(dropped)


def instead(choices: Mapping[str, Mapping[str, str]], dropped: Sequence[Dominated]) -> Mapping[str, Mapping[str, str]]:
    """Take for each choice that was left out the one that beats it.

    Args:
        choices: A choice for each layer of each model.
        dropped: What was left out.

    Returns:
        The choices, of which none was left out.
    """
    beaten = {(item.model, layer, item.choice): item.by for item in dropped for layer in item.layers}
    return {
        model: {layer: beaten.get((model, layer, choice), choice) for layer, choice in chosen.items()}
        for model, chosen in choices.items()
    }


def describe(dropped: Sequence[Dominated]) -> str:
    """Say in one line how many choices were left out, and which the most often.

    >>> describe([Dominated(model="m", layers=("conv1",), choice="int4w", by="int8w")])
    '1 choice was left out, beaten in every cost by another of its layer: int4w (1)'
    """
    counts: dict[str, int] = {}
    for item in dropped:
        counts[item.choice] = counts.get(item.choice, 0) + 1
    often = sorted(counts, key=lambda name: -counts[name])
    most = ", ".join(f"{name} ({counts[name]})" for name in often[:_MOST_NAMED])
    more = f" and {len(often) - _MOST_NAMED} more" if len(often) > _MOST_NAMED else ""
    number = "1 choice was" if len(dropped) == 1 else f"{len(dropped)} choices were"
    return f"{number} left out, beaten in every cost by another of its layer: {most}{more}"


def _groups(model: ModelCosts) -> list[tuple[LayerCosts, ...]]:
    """Return the layers that choose together: those of one tie, and every other by itself."""
    ties = model.ties()
    alone = [(layer,) for layer in model.layers if layer.tie is None]
    return [*alone, *ties.values()]


def _beaten(model: ModelCosts, layers: tuple[LayerCosts, ...], *, spread: bool) -> dict[str, str]:
    """Return the choices of one group that are beaten, each with the one that beats it and is kept."""
    kinds: dict[tuple[_Kind, int], list[tuple[_Costs, int, str]]] = {}
    alike = _alike_in_memory(model, layers)
    for place, name in enumerate(ModelCosts.common_choices(layers)):
        members = [layer.choice(name) for layer in layers]
        kind = tuple((c.in_format, c.out_format, c.energy_nj is not None) for c in members)
        kinds.setdefault((kind, alike.get(name, 0)), []).append((_costs(model, members, spread=spread), place, name))
    found = {}
    for compared in kinds.values():
        kept: list[tuple[_Costs, str]] = []
        # What beats another choice comes before it in lexicographic order.
        for costs, _, name in sorted(compared):
            by = next((best for less, best in kept if all(a <= b for a, b in zip(less, costs, strict=True))), None)
            if by is None:
                kept.append((costs, name))
            else:
                found[name] = by
    return found


def _alike_in_memory(model: ModelCosts, layers: tuple[LayerCosts, ...]) -> dict[str, int]:
    """Number the choices of a group so that those of one number become the same in memory, whatever they find."""
    numbers: dict[str, int] = {}
    if model.memory is None:
        return numbers
    scripts = [found for layer in layers if (found := model.memory.layer(layer.name)) is not None]
    first: list[str] = []
    for name in ModelCosts.common_choices(layers):
        for number, other in enumerate(first):
            if all(found.alike(name, other) for found in scripts):
                numbers[name] = number
                break
        else:
            numbers[name] = len(first)
            first.append(name)
    return numbers


def _costs(model: ModelCosts, members: Sequence[ChoiceCost], *, spread: bool) -> _Costs:
    """Add up what a choice costs a group of layers, the way the rows of the problem count it.

    What a single layer costs is compared as it stands in the table: rows count no less for what is more there.
    """
    if len(members) == 1:
        (one,) = members
        alive = (one.activation_bytes, one.least_arena)
        figures = (one.latency_ns, one.weight_bytes, *alive, one.loss, one.energy_nj or 0)
        return (*figures, (one.latency_std_ns or 0.0) if spread else 0)
    variance = sum(Fraction(choice.latency_std_ns or 0.0) ** 2 for choice in members) if spread else 0
    return (
        sum(model.scaled_ns(choice) for choice in members),
        sum(choice.weight_bytes for choice in members),
        max(choice.activation_bytes for choice in members),
        max(choice.least_arena for choice in members),
        sum((exact_loss(choice.loss) for choice in members), Fraction(0)),
        sum(choice.energy_nj or 0 for choice in members),
        variance,
    )
