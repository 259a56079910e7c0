"""Rewriting a network under a choice for each layer, in topological order.

Each layer is handed what it reads in the exact network and what it reads now, behind the layers already
approximated. Under refit, a layer whose inputs have changed is first fitted to its exact outputs, and then
approximated itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.approximations.base import Approximation, Context, LayerView, Offer, Replacement, exact
from planner.calibration import Calibration, arrays_of, opset_of, views_of
from planner.draft import Draft
from planner.errors import InputError
from planner.layering import bytes_of, in_order, parameters_of
from planner.linear import Linear, Moments, moments
from planner.refit import solve
from planner.registry import discover, get

if TYPE_CHECKING:
    import onnx

    from planner.graph import LayerGraph

__all__ = ["EXACT", "Rewritten", "applicable", "apply", "offers"]

EXACT = "exact"
_PACKAGE = "planner.approximations"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewritten:
    """Hold a network rewritten under a choice for each layer.

    Attributes:
        graph: The exact network.
        model: The rewritten one: static shapes at batch 1, the same input and output.
        choices: The choice of every layer.
        nodes: Names of the nodes of ``model`` that each layer became; together they are all of its nodes.
        parameter_bytes: Bytes of the weights, biases and scales of each layer.
        refit: Whether layers behind an approximated one were refitted.
    """

    graph: LayerGraph
    model: onnx.ModelProto = field(repr=False)
    choices: Mapping[str, str]
    nodes: Mapping[str, tuple[str, ...]] = field(repr=False)
    parameter_bytes: Mapping[str, int] = field(repr=False)
    refit: bool

    def __post_init__(self) -> None:
        """Check that every layer has a choice and that its nodes are those of the model."""
        names = [layer.name for layer in self.graph.layers]
        if list(self.choices) != names or list(self.nodes) != names:
            raise InputError(f"model {self.graph.name!r}: expected one choice and the nodes of each layer, in order")
        owned = sorted(name for names in self.nodes.values() for name in names)
        if owned != sorted(node.name for node in self.model.graph.node):
            raise InputError(f"model {self.graph.name!r}: every node must belong to exactly one layer")


def modules(names: Sequence[str] | None = None) -> dict[str, Approximation]:
    """Return the approximations by name, all of them or those asked for."""
    wanted = discover(_PACKAGE) if names is None else names
    return {name: get(_PACKAGE, name) for name in wanted}


def offers(graph: LayerGraph) -> dict[str, dict[str, Offer]]:
    """Return what each approximation offers for each layer, with its reasons.

    Args:
        graph: The network.

    Returns:
        ``{layer: {approximation: offer}}``.
    """
    found = modules()
    views = views_of(graph, arrays_of(graph.model))
    return {view.name: {name: item.offer(view) for name, item in found.items()} for view in views}


def applicable(graph: LayerGraph, approximations: str | Sequence[str] = "default") -> dict[str, tuple[str, ...]]:
    """Return the choices of each layer, ``exact`` first.

    Args:
        graph: The network.
        approximations: ``"default"`` for all but those that are offered on request, or names of approximations
            (``lowrank``) or of choices (``lowrank@0.5``, ``lowrank@0.5+int8w``). Approximations that are named
            together are also composed.

    Returns:
        ``{layer: (choice, ...)}`` in topological order.

    Raises:
        InputError: An approximation or a choice is not known; the message lists those that exist.
    """
    found = modules()
    singles = {choice: name for name, item in found.items() for choice in item.CHOICES}
    names = {choice: _name(choice, found[name].KIND) for choice, name in singles.items()}
    composed = [
        f"{first}+{second}"
        for first, structure in singles.items()
        for second, storage in singles.items()
        if found[structure].KIND == "structure" and found[storage].KIND == "storage"
    ]
    usual = {choice for choice, name in singles.items() if not getattr(found[name], "ON_REQUEST", False)}
    wanted = None if approximations == "default" else _names(approximations)
    for name in wanted or ():
        if name not in {*found, *singles, *names.values(), *composed, EXACT}:
            existing = ", ".join([*found, *names.values(), *composed])
            raise InputError(f"unknown approximation {name!r}; there are: {existing}")

    def is_wanted(choice: str) -> bool:
        if wanted is None:
            return usual.issuperset(_parts(choice))
        return choice in wanted or all(singles[part] in wanted for part in _parts(choice))

    result = {}
    for layer, by_name in offers(graph).items():
        offered = {choice for offer in by_name.values() for choice in offer.choices}
        choices = [names[choice] for choice in singles if choice in offered and is_wanted(names[choice])]
        choices += [name for name in composed if offered.issuperset(name.split("+")) and is_wanted(name)]
        result[layer] = (EXACT, *choices)
    return result


def _names(approximations: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(approximations.split(",")) if isinstance(approximations, str) else tuple(approximations)


def apply(
    graph: LayerGraph,
    choices: Mapping[str, str],
    calibration: Calibration | NDArray[np.float32],
    *,
    refit: bool = True,
) -> Rewritten:
    """Rewrite a network under a choice for each layer.

    Args:
        graph: The exact network.
        choices: A choice for each layer; layers left out are ``exact``.
        calibration: Calibration images as the network takes them, ``[image][channel][row][column]``, or a
            `Calibration` that keeps what the exact network gives on them from one call to the next.
        refit: Whether layers behind an approximated one are refitted to the exact network's outputs.

    Returns:
        The rewritten network. Where every choice is ``exact`` it is the exact network itself.

    Raises:
        InputError: There is no such layer or choice, or the choice does not apply to the layer.
    """
    if not isinstance(calibration, Calibration):
        calibration = Calibration(graph, calibration)
    elif calibration.graph is not graph:
        raise InputError(f"the calibration belongs to another network than {graph.name!r}")
    chosen = _checked(graph, calibration.views, choices)
    arrays: dict[str, NDArray[Any]] = dict(calibration.arrays)
    by_name = {node.name: node for node in graph.model.graph.node}
    last = _last_needed(calibration.views, chosen, refit=refit)
    kinds = {choice: item.KIND for item in modules().values() for choice in item.CHOICES}

    def changes_values(parts: Sequence[str]) -> bool:
        return any(kinds[part] != "schedule" for part in parts)

    present: dict[str, NDArray[np.float32]] = {}
    nodes = {layer.name: [by_name[name] for name in layer.nodes] for layer in graph.layers}
    for index, layer in enumerate(graph.layers[: last + 1]):
        parts = _parts(chosen[layer.name])
        if not parts and not any(tensor in present for tensor in layer.inputs):
            continue
        anchor = nodes[layer.name][0]
        new = _replaced(calibration, calibration.views[layer.name], anchor, parts, present, refit=refit)
        if new is not None:
            arrays.update(new.arrays)
            nodes[layer.name][:1] = new.nodes
        if index < last and (changes_values(parts) or any(tensor in present for tensor in layer.inputs)):
            feeds = {name: present[name] if name in present else calibration.exact(name) for name in layer.inputs}
            present |= calibration.run(in_order(nodes[layer.name]), arrays, feeds, layer.outputs)
        present = {name: array for name, array in present.items() if calibration.last_use[name] > index}
    return _assemble(graph, chosen, nodes, arrays, refit=refit)


def _name(choice: str, kind: str) -> str:
    """Name a choice: a schedule runs the layer as it is, in another way."""
    return f"{EXACT}+{choice}" if kind == "schedule" else choice


def _parts(choice: str) -> list[str]:
    return [part for part in choice.split("+") if part != EXACT]


def _checked(graph: LayerGraph, views: Mapping[str, LayerView], choices: Mapping[str, str]) -> dict[str, str]:
    """Return the choice of every layer, having checked that each applies."""
    found = modules()
    known = {choice: name for name, item in found.items() for choice in item.CHOICES}
    for layer, choice in choices.items():
        graph.layer(layer)
        label = f"model {graph.name!r}, layer {layer!r}, choice {choice!r}"
        for part in _parts(choice):
            if part not in known:
                raise InputError(f"{label}: unknown approximation {part!r}; there are: {', '.join([EXACT, *known])}")
            offer = found[known[part]].offer(views[layer])
            if part not in offer.choices:
                reason = offer.reason or f"it is offered {', '.join(offer.choices)} only"
                raise InputError(f"{label}: {part} does not apply: {reason}")
        kinds = [found[known[part]].KIND for part in _parts(choice)]
        if kinds not in _COMPOSITIONS:
            raise InputError(
                f"{label}: expected one change of structure, one of storage, the two in this order, "
                f"or a schedule of the exact layer"
            )
    return {layer.name: choices.get(layer.name, EXACT) for layer in graph.layers}


_COMPOSITIONS: tuple[list[str], ...] = ([], ["structure"], ["storage"], ["structure", "storage"], ["schedule"])


def _last_needed(views: Mapping[str, LayerView], chosen: Mapping[str, str], *, refit: bool) -> int:
    """Return the index of the last layer that is rewritten; -1 where none is."""
    changed = [index for index, choice in enumerate(chosen.values()) if _parts(choice)]
    if not changed:
        return -1
    fitted = [index for index, view in enumerate(views.values()) if view.linear is not None and refit]
    return max([*changed, *fitted])


def _replaced(
    calibration: Calibration,
    view: LayerView,
    anchor: onnx.NodeProto,
    parts: Sequence[str],
    present: Mapping[str, NDArray[np.float32]],
    *,
    refit: bool,
) -> Replacement | None:
    """Refit a layer whose inputs have changed and approximate it; None where it stays as it is."""
    source = anchor.input[0]
    if view.linear is None or not (parts or (refit and source in present)):
        return None
    linear: Linear = view.linear
    fitted: Moments | None = None
    if source in present and refit:
        targets = calibration.targets(view.name)
        fitted = moments(linear, present[source], output_shape=view.output_shape, targets=targets)
        linear = solve(linear, fitted)

    def statistics() -> Moments:
        if source not in present:
            return calibration.moments(view.name)
        return fitted or moments(linear, present[source], output_shape=view.output_shape)

    new = exact(anchor, linear)
    for part in parts:
        context = Context(
            view=view,
            linear=linear,
            replacement=new,
            present=present[source] if source in present else calibration.exact(source),
            exact=calibration.exact(source),
            statistics=statistics,
            opset=calibration.opset,
            batch=calibration.batch,
        )
        new = modules([part.partition("@")[0]])[part.partition("@")[0]].apply(context, part)
    _log.debug("layer %s: %s", view.name, "+".join([*(["refit"] if fitted else []), *parts]))
    return new


def _assemble(
    graph: LayerGraph,
    chosen: Mapping[str, str],
    nodes: Mapping[str, Sequence[onnx.NodeProto]],
    arrays: Mapping[str, NDArray[Any]],
    *,
    refit: bool,
) -> Rewritten:
    """Put the layers' nodes together to a model and count the bytes of their weights."""
    from onnx import helper

    draft = Draft(
        where=graph.name,
        nodes=[node for names in nodes.values() for node in in_order(names)],
        arrays=dict(arrays),
        input_name=graph.input_name,
        input_shape=graph.input_shape,
        output_name=graph.output_name,
        opset=opset_of(graph.model),
    )
    draft.infer()
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    return Rewritten(
        graph=graph,
        model=draft.to_model(),
        choices=chosen,
        nodes={layer: tuple(node.name for node in names) for layer, names in nodes.items()},
        parameter_bytes={
            layer: sum(bytes_of(arrays[name].size, kinds[name]) for name in parameters_of(names, kinds))
            for layer, names in nodes.items()
        },
        refit=refit,
    )
