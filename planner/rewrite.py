"""Rewriting a network under a choice for each layer, in topological order.

Each layer is handed what it reads in the exact network and what it reads now, behind the layers already
approximated. Under refit, a layer whose inputs have changed is first fitted to its exact outputs, and then
approximated itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.activations.boundaries import join
from planner.activations.grids import LEVELS
from planner.approximations.base import Context, LayerView, Replacement, exact
from planner.calibration import Calibration, opset_of
from planner.choices import EXACT, Choice, applicable, approximation, checked, formats, offers, parsed
from planner.draft import Draft
from planner.errors import InputError
from planner.layering import bytes_of, in_order, parameters_of
from planner.linear import Linear, Moments, moments
from planner.masks.pruned import pruned
from planner.refit import Aim, aim_at

if TYPE_CHECKING:
    import onnx

    from planner.activations.grids import Grid
    from planner.approximations.prune import Criterion
    from planner.graph import LayerGraph

__all__ = ["EXACT", "Rewritten", "applicable", "apply", "offers"]

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
        activations: How the grids of tensors of bytes were placed; nothing where there are none.
        bodies: The nodes of each layer alone, from and to float32, as they were before its tensors got their formats.
    """

    graph: LayerGraph
    model: onnx.ModelProto = field(repr=False)
    choices: Mapping[str, str]
    nodes: Mapping[str, tuple[str, ...]] = field(repr=False)
    parameter_bytes: Mapping[str, int] = field(repr=False)
    refit: bool
    activations: str = ""
    bodies: Mapping[str, tuple[onnx.NodeProto, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check that every layer has a choice and that its nodes are those of the model."""
        names = [layer.name for layer in self.graph.layers]
        if list(self.choices) != names or list(self.nodes) != names:
            raise InputError(f"model {self.graph.name!r}: expected one choice and the nodes of each layer, in order")
        owned = sorted(name for names in self.nodes.values() for name in names)
        if owned != sorted(node.name for node in self.model.graph.node):
            raise InputError(f"model {self.graph.name!r}: every node must belong to exactly one layer")


def apply(
    graph: LayerGraph,
    choices: Mapping[str, str],
    calibration: Calibration | NDArray[np.float32],
    *,
    refit: bool = True,
    instead: Mapping[str, Callable[[Context, str], Replacement]] | None = None,
    criterion: Criterion = "surgeon",
) -> Rewritten:
    """Rewrite a network under a choice for each layer.

    Args:
        graph: The exact network.
        choices: A choice for each layer; layers left out are ``exact``.
        calibration: Calibration images as the network takes them, ``[image][channel][row][column]``, or a
            `Calibration` that keeps what the exact network gives on them from one call to the next.
        refit: Whether layers behind an approximated one are refitted to the exact network's outputs.
        instead: Other ways to apply single choices, by their names, to compare them with what is done otherwise.
        criterion: By what the channels that go are chosen, likewise.

    Returns:
        The rewritten network. Where every choice is ``exact`` it is the exact network itself.

    Raises:
        InputError: There is no such layer or choice, or the choice does not apply to the layer.
    """
    if not isinstance(calibration, Calibration):
        calibration = Calibration(graph, calibration)
    elif calibration.graph is not graph:
        raise InputError(f"the calibration belongs to another network than {graph.name!r}")
    chosen = parsed(graph, choices)
    formed = next((dtype for dtype in LEVELS if any(choice.dtype == dtype for choice in chosen.values())), None)
    given, activations = calibration, ""
    if formed is not None:
        calibration = given.in_bytes(formed)
        activations = calibration.grids.chosen(formed) + (", equalised" if calibration is not given else "")
    calibration = pruned(calibration, chosen, criterion, exact=given)
    checked(graph, calibration.views, chosen)
    arrays: dict[str, NDArray[Any]] = dict(calibration.arrays)
    by_name = {node.name: node for node in calibration.nodes}
    last = _last_needed(calibration.views, chosen, refit=refit)
    present: dict[str, NDArray[np.float32]] = {}
    stored: dict[str, str] = {}
    moved: set[str] = set()
    nodes = {layer.name: [by_name[name] for name in layer.nodes] for layer in graph.layers}
    bodies = {name: tuple(own) for name, own in nodes.items()}
    for index, layer in enumerate(graph.layers):
        choice = chosen[layer.name]
        if not choice.parts and not choice.reads and not {*present, *stored}.intersection(layer.inputs):
            continue
        reads, writes = (side.dtype for side in formats(graph, layer.name, str(choice)))
        meet = partial(join, layer, stored=stored, reads=reads, writes=writes, grid=calibration.grid)
        if index <= last:
            anchor = nodes[layer.name][0]
            read = {anchor.input[0]: calibration.grid(anchor.input[0], reads)} if reads != "float32" else {}
            ways = {part: (instead or {}).get(part, approximation(part).apply) for part in choice.parts}
            fits = refit and (_moves(choice) or not moved.isdisjoint(layer.inputs))
            new = _replaced(calibration, calibration.views[layer.name], anchor, ways, present, read, refit=fits)
            if new is not None:
                arrays.update(new.arrays)
                nodes[layer.name][:1] = new.nodes
        if index < last and (choice.changes_values or any(tensor in present for tensor in layer.inputs)):
            feeds = {name: present[name] if name in present else calibration.exact(name) for name in layer.inputs}
            alone = meet(nodes[layer.name], open_ended=True)
            present |= calibration.run(in_order(alone.nodes), arrays | alone.arrays, feeds, layer.outputs)
        if _moves(choice) or not moved.isdisjoint(layer.inputs):
            moved.update(layer.outputs)
        bodies[layer.name] = tuple(nodes[layer.name])
        joined = meet(nodes[layer.name])
        nodes[layer.name] = list(joined.nodes)
        arrays.update(joined.arrays)
        stored |= dict.fromkeys(layer.outputs if writes != "float32" else (), writes)
        present = {name: array for name, array in present.items() if calibration.last_use[name] > index}
    names = {name: str(choice) for name, choice in chosen.items()}
    return _assemble(graph, names, nodes, arrays, refit=refit, activations=activations, bodies=bodies)


def _last_needed(views: Mapping[str, LayerView], chosen: Mapping[str, Choice], *, refit: bool) -> int:
    """Return the index of the last layer that is rewritten; -1 where none is."""
    changed = [index for index, choice in enumerate(chosen.values()) if choice.parts]
    fits = refit and any(_moves(choice) for choice in chosen.values())
    fitted = [index for index, view in enumerate(views.values()) if view.linear is not None and fits]
    return max([*changed, *fitted], default=-1)


def _moves(choice: Choice) -> bool:
    """Tell whether a choice changes values by more than rounding them to 8 bits.

    Layers behind are refitted to nothing less: what rounding adds is noise, of which as much is learnt as is removed.
    """
    kinds = {approximation(part).KIND for part in choice.parts}
    return bool(choice.reads or choice.writes) or not kinds <= {"schedule", "arithmetic"}


def _replaced(
    calibration: Calibration,
    view: LayerView,
    anchor: onnx.NodeProto,
    parts: Mapping[str, Callable[[Context, str], Replacement]],
    present: Mapping[str, NDArray[np.float32]],
    grids: Mapping[str, Grid],
    *,
    refit: bool,
) -> Replacement | None:
    """Refit a layer whose inputs have changed and approximate it; None where it stays as it is."""
    source = anchor.input[0]
    fits = refit and _misses(calibration, view, present)
    if not parts and not fits:
        return None
    inputs = _read(calibration, source, present, grids)
    linear = view.linear
    changed = source in present or source in grids
    aims: list[Aim] = []

    def aim() -> Aim:
        if not aims:
            aims.append(_aim(calibration, view.name, linear, inputs, present, refit=refit))
        return aims[0]

    def statistics() -> Moments:
        if linear is None:
            raise InputError(f"layer {view.name!r} has no weights whose inputs could be summed up")
        if aims:
            return aims[0].moments
        if not changed:
            return calibration.moments(view.name)
        return moments(linear, inputs, output_shape=view.output_shape, limit=calibration.rows)

    if linear is not None and fits:
        linear = aim().fit(linear)
    new = Replacement(nodes=(anchor,), arrays={}) if linear is None else exact(anchor, linear)
    for part, way in parts.items():
        context = Context(
            view=view,
            weights=linear,
            replacement=new,
            present=inputs,
            exact=calibration.exact(source),
            statistics=statistics,
            aim=aim,
            epilogue=calibration.epilogue(view.name),
            opset=calibration.opset,
            batch=calibration.batch,
            rows=calibration.rows,
        )
        new = way(context, part)
    _log.debug("layer %s: %s", view.name, "+".join([*(["refit"] if fits else []), *parts]))
    return new


def _read(
    calibration: Calibration, source: str, present: Mapping[str, NDArray[np.float32]], grids: Mapping[str, Grid]
) -> NDArray[np.float32]:
    """Return what a layer reads now."""
    inputs = present[source] if source in present else calibration.exact(source)
    return grids[source].rounded(inputs) if source in grids else inputs


def _misses(calibration: Calibration, view: LayerView, present: Mapping[str, NDArray[np.float32]]) -> bool:
    """Tell whether a layer has weights, and reads or adds something else than in the exact network."""
    source, addend = calibration.anchor(view.name).input[0], calibration.epilogue(view.name).addend
    changed = source in present or addend in present or calibration.is_thinned(view.name)
    return view.linear is not None and changed


def _aim(
    calibration: Calibration,
    layer: str,
    linear: Linear | None,
    inputs: NDArray[np.float32],
    present: Mapping[str, NDArray[np.float32]],
    *,
    refit: bool,
) -> Aim:
    """State what a layer ought to give: under refit what the exact network gives, else what it gives itself."""
    if linear is None:
        raise InputError(f"layer {layer!r} has no weights that could be fitted")
    epilogue = calibration.epilogue(layer)
    addends = None
    if epilogue.addend is not None:
        before = calibration.exact(epilogue.addend)
        addends = (before, present.get(epilogue.addend, before))
    return aim_at(
        linear,
        inputs,
        output_shape=calibration.views[layer].output_shape,
        epilogue=epilogue,
        targets=calibration.targets(layer) if refit else None,
        addends=addends,
        limit=calibration.rows,
    )


def _assemble(
    graph: LayerGraph,
    chosen: Mapping[str, str],
    nodes: Mapping[str, Sequence[onnx.NodeProto]],
    arrays: Mapping[str, NDArray[Any]],
    *,
    refit: bool,
    activations: str,
    bodies: Mapping[str, tuple[onnx.NodeProto, ...]],
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
        activations=activations,
        bodies=bodies,
    )
