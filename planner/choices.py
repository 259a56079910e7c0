"""Names of choices: what a name is made of, which names a layer may take, and what formats they read and write.

A choice is written ``part+part:reads>writes``.  The parts are applied in order: at most one change of structure, then
at most one way to store weights, then at most one arithmetic; or one schedule of the exact layer.  The masks behind the
colon, where there are any, say which share of their channels the layer's inputs and outputs keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from costmodels.costs import Format
from planner.approximations.base import Approximation, LayerView, Offer
from planner.calibration import arrays_of, views_of
from planner.errors import InputError
from planner.masks.choices import USUAL_MASKED, mask_offers, masked_names, share_of
from planner.registry import discover, get

if TYPE_CHECKING:
    from planner.graph import LayerGraph

__all__ = [
    "EXACT",
    "Choice",
    "applicable",
    "approximation",
    "checked",
    "fits",
    "formats",
    "modules",
    "offers",
    "parsed",
]

EXACT = "exact"
KINDS = ("structure", "storage", "arithmetic")
"""What a choice may change, in the order in which it is done."""
MASK = "mask"
"""Kind of what removes channels: it is no part of a name but stands behind the colon."""
_PACKAGE = "planner.approximations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Hold the parts of a choice's name.

    Attributes:
        parts: Its approximations in order; none for ``exact``.
        reads: Share of the channels that its inputs keep, ``""`` for all.
        writes: Share of the channels that its outputs keep, ``""`` for all.

    >>> Choice.parse("lowrank@0.5+int8:0.75>1")
    Choice(parts=('lowrank@0.5', 'int8'), reads='0.75', writes='')
    >>> str(Choice.parse("exact:0.75>0.5"))
    'exact:0.75>0.5'
    """

    parts: tuple[str, ...] = ()
    reads: str = ""
    writes: str = ""

    @classmethod
    def parse(cls, name: str) -> Choice:
        """Read a name.

        Raises:
            InputError: Something stands behind a colon that is no pair of masks.
        """
        what, colon, masks = name.partition(":")
        reads, arrow, writes = masks.partition(">")
        if colon and not (arrow and reads and writes):
            raise InputError(f"choice {name!r}: behind the colon, expected what it reads and writes, like 0.75>0.5")
        kept = ["" if mask == "1" else mask for mask in (reads, writes)]
        parts = tuple(part for part in what.split("+") if part != EXACT)
        return cls(parts=parts, reads=kept[0], writes=kept[1])

    def __str__(self) -> str:
        """Write the name."""
        parts = self.parts
        if parts and _kind(parts[0]) == "schedule":
            parts = (EXACT, *parts)
        masks = f":{self.reads or 1}>{self.writes or 1}" if self.reads or self.writes else ""
        return ("+".join(parts) or EXACT) + masks

    @property
    def changes_values(self) -> bool:
        """Whether the layer's weights or outputs are other than in the exact network."""
        return bool(self.reads or self.writes) or any(_kind(part) != "schedule" for part in self.parts)

    @property
    def dtype(self) -> str:
        """Type of the tensors that it reads and writes: float32, or that of its arithmetic."""
        for part in self.parts:
            if _kind(part) == "arithmetic":
                return str(approximation(part).DTYPES[part])  # type: ignore[attr-defined]
        return "float32"


@cache
def _found() -> dict[str, Approximation]:
    return {name: get(_PACKAGE, name) for name in discover(_PACKAGE)}


@cache
def _owners() -> dict[str, str]:
    """Return which approximation each single choice belongs to."""
    return {choice: name for name, item in _found().items() for choice in item.CHOICES}


def modules() -> dict[str, Approximation]:
    """Return the approximations by name."""
    return dict(_found())


def approximation(part: str) -> Approximation:
    """Return the approximation that a single choice belongs to.

    Raises:
        InputError: There is no such choice; the message lists those that exist.
    """
    if part not in _owners():
        raise InputError(f"unknown approximation {part!r}; there are: {', '.join([EXACT, *_owners()])}")
    return _found()[_owners()[part]]


def _kind(part: str) -> str:
    return approximation(part).KIND


def formats(graph: LayerGraph, layer: str, choice: str) -> tuple[Format, Format]:
    """Return what a layer reads and what it writes under a choice.

    The network's own output is float32 whatever its layer computes with.
    """
    read = Choice.parse(choice)
    last = graph.output_name in graph.layer(layer).outputs
    return (
        Format(dtype=read.dtype, mask=read.reads),
        Format(dtype="float32" if last else read.dtype, mask=read.writes),
    )


def offers(graph: LayerGraph) -> dict[str, dict[str, Offer]]:
    """Return what each approximation offers for each layer, with its reasons.

    Args:
        graph: The network.

    Returns:
        ``{layer: {approximation: offer}}``.
    """
    views = views_of(graph, arrays_of(graph.model))
    masked = mask_offers(graph)
    return {
        view.name: {
            name: masked[view.name] if item.KIND == MASK else _offer(item, view) for name, item in _found().items()
        }
        for view in views
    }


def _offer(item: Approximation, view: LayerView) -> Offer:
    """Return what an approximation offers; the better reason for nothing is that weights cannot be changed."""
    offer = item.offer(view)
    return Offer(reason=view.unfit) if view.unfit and not offer.choices else offer


def applicable(graph: LayerGraph, approximations: str | Sequence[str] = "default") -> dict[str, tuple[str, ...]]:
    """Return the choices of each layer, ``exact`` first.

    Args:
        graph: The network.
        approximations: ``"default"`` for what usually pays, or names of approximations (``lowrank``) or of choices
            (``lowrank@0.5``, ``lowrank@0.5+int8``).  Approximations that are named together are also composed;
            ``prune`` adds to each choice its forms that read or write fewer channels.

    Returns:
        ``{layer: (choice, ...)}`` in topological order.

    Raises:
        InputError: An approximation or a choice is not known; the message lists those that exist.
    """
    singles = {str(Choice(parts=(part,))): part for part in _owners() if _kind(part) != MASK}
    composed = _compositions()
    wanted = None if approximations == "default" else _names(approximations)
    for name in wanted or ():
        if name not in {*_found(), *_owners(), *singles, *composed, EXACT}:
            existing = ", ".join([*_found(), *singles])
            raise InputError(f"unknown approximation {name!r}; there are: {existing}, and compositions with '+'")

    def is_wanted(name: str, parts: Sequence[str]) -> bool:
        if wanted is None:
            return _is_usual(parts)
        return name in wanted or all(_owners()[part] in wanted for part in parts)

    result = {}
    views = {view.name: view for view in views_of(graph, arrays_of(graph.model))}
    for layer, by_name in offers(graph).items():
        offered = {part for offer in by_name.values() for part in offer.choices}
        names = [name for name, part in singles.items() if part in offered and is_wanted(name, (part,))]
        names += [name for name, parts in composed.items() if offered.issuperset(parts) and is_wanted(name, parts)]
        masks = [part for part in _owners() if _kind(part) == MASK and part in offered]
        shares = [share_of(part) for part in masks if is_wanted(part, (part,))]
        bases = [name for name in (EXACT, *names) if wanted is not None or name in USUAL_MASKED]
        result[layer] = (EXACT, *names, *masked_names(graph, views[layer], bases, shares))
    return result


def _compositions() -> dict[str, tuple[str, ...]]:
    """Return every choice of more than one part, in the order in which parts are listed."""
    by_kind = [("", *(part for part in _owners() if _kind(part) == kind)) for kind in KINDS]
    found = [tuple(part for part in parts if part) for parts in product(*by_kind)]
    return {"+".join(parts): parts for parts in found if len(parts) > 1 and _fit(parts)}


def fits(view: LayerView, parts: Sequence[str]) -> bool:
    """Tell whether a layer is offered all parts of a choice."""
    return all(part in approximation(part).offer(view).choices for part in parts)


def _fit(parts: Sequence[str]) -> bool:
    """Tell whether arithmetic can read weights as they are stored."""
    stored = next((part for part in parts if _kind(part) == "storage"), None)
    computed = any(_kind(part) == "arithmetic" for part in parts)
    return not (stored and computed) or bool(getattr(approximation(stored), "INTEGER", False))


def _is_usual(parts: Sequence[str]) -> bool:
    """Tell whether a choice is offered unless something else is asked for.

    A module's ``ON_REQUEST`` is True where all its choices have to be asked for, or names those that have to.  Changed
    structures are composed with integer arithmetic, which takes less time and no more bytes than a form of storage.
    """
    for part in parts:
        on_request = getattr(approximation(part), "ON_REQUEST", ())
        if on_request is True or (on_request and part in on_request):
            return False
    kinds = [_kind(part) for part in parts]
    return kinds not in (["structure", "storage"], ["structure", "storage", "arithmetic"])


def _names(approximations: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(approximations.split(",")) if isinstance(approximations, str) else tuple(approximations)


def parsed(graph: LayerGraph, choices: Mapping[str, str]) -> dict[str, Choice]:
    """Return the choice of every layer; layers left out are exact.

    Raises:
        InputError: There is no such layer or choice.
    """
    found = {}
    for layer, name in choices.items():
        graph.layer(layer)
        try:
            found[layer] = Choice.parse(name)
            for part in found[layer].parts:
                approximation(part)
        except InputError as error:
            raise InputError(f"model {graph.name!r}, layer {layer!r}, choice {name!r}: {error}") from None
    return {layer.name: found.get(layer.name, Choice()) for layer in graph.layers}


def checked(graph: LayerGraph, views: Mapping[str, LayerView], choices: Mapping[str, Choice]) -> None:
    """Check that each choice applies to its layer.

    Args:
        graph: The network.
        views: Its layers, without the channels that the choices remove.
        choices: The choice of every layer.

    Raises:
        InputError: A choice does not apply to its layer.
    """
    for layer, choice in choices.items():
        label = f"model {graph.name!r}, layer {layer!r}, choice {str(choice)!r}"
        parts = choice.parts
        kinds = [_kind(part) for part in parts]
        for part in parts:
            offer = _offer(approximation(part), views[layer])
            if part not in offer.choices:
                reason = offer.reason or f"it is offered {', '.join(offer.choices)} only"
                raise InputError(f"{label}: {part} does not apply: {reason}")
        if MASK in kinds:
            raise InputError(f"{label}: masks stand behind a colon; expected a name like exact:0.75>0.5")
        ordered = [kind for kind in KINDS if kind in kinds]
        if kinds != ["schedule"] and (kinds != ordered or not _fit(parts)):
            raise InputError(
                f"{label}: expected at most one change of structure, one form of storage and one arithmetic that can "
                f"read it, in this order, or a schedule of the exact layer"
            )
