"""Simplification of an ONNX model before anything is measured.

Constants become initialisers, operators that do nothing at inference go, and per-channel scaling and shifting
(batch normalisation among them) is folded into the operator in front. The names of the nodes that remain are
those of the source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.draft import Draft, attributes
from planner.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["fold"]

_KEPT = frozenset({"BitShift", "DequantizeLinear", "QuantizeLinear"})
"""Operators on constants that say how weights are stored, and so are never evaluated ahead of time."""

_FOLDED_INTO = frozenset({"Conv", "Gemm", "BatchNormalization"})


def fold(draft: Draft) -> onnx.ModelProto:
    """Simplify a draft in place and return it as a model whose every tensor has a static shape.

    Args:
        draft: The network, in topological order, with every node named.

    Returns:
        The folded model at batch 1, with the shape of every tensor in ``value_info``.

    Raises:
        InputError: The shape of a tensor cannot be known before the network runs (the node is named).
    """
    _drop_idle(draft)
    _evaluate_constants(draft)
    _drop_idle(draft)
    for node in draft.nodes:
        _normalise(draft, node)
    while _fold_once(draft):
        pass
    _unshare(draft)
    draft.infer()
    made = [(node, name) for node in draft.nodes for name in node.output if name]
    for node, name in made:
        if name not in draft.shapes:
            raise InputError(
                f"{draft.where}: the shape of tensor {name!r}, made by node {node.name!r} ({node.op_type}), "
                "is not known before the network runs; expected a network of static shapes"
            )
    return draft.to_model()


def _drop_idle(draft: Draft) -> None:
    """Remove nodes that hand their input on unchanged, and nodes whose results nobody reads."""
    changed = True
    while changed:
        changed = False
        read = draft.readers()
        for node in list(draft.nodes):
            if not any(read[name] for name in node.output if name):
                draft.nodes.remove(node)
                changed = True
                break
            idle = node.op_type in {"Identity", "Dropout"} or (
                node.op_type in {"Sum", "Max", "Min", "Mean", "Concat"} and len(node.input) == 1
            )
            if idle and not any(read[name] for name in node.output[1:] if name) and _bypass(draft, node):
                changed = True
                break


def _bypass(draft: Draft, node: onnx.NodeProto) -> bool:
    """Connect a node's readers to its first input and remove it, unless it joins the network's ends."""
    source, target = node.input[0], node.output[0]
    if target == draft.output_name:
        made_here = any(source in other.output for other in draft.nodes)
        if not made_here or source == draft.input_name:
            return False
        draft.nodes.remove(node)
        _rename(draft, source, target)
        return True
    draft.nodes.remove(node)
    _rename(draft, target, source)
    return True


def _rename(draft: Draft, old: str, new: str) -> None:
    for node in draft.nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _evaluate_constants(draft: Draft) -> None:
    """Turn nodes that depend on constants or on static shapes alone into constants."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    changed = True
    while changed:
        draft.infer()
        changed = False
        rest: list[onnx.NodeProto] = []
        for node in draft.nodes:
            reads = [name for name in node.input if name]
            known = node.op_type in {"Shape", "Size"} and reads[0] in draft.shapes
            if node.op_type.startswith(("Random", "Bernoulli")) or node.op_type in _KEPT or _is_half(draft, node):
                known = False
            elif not known:
                known = all(name in draft.arrays for name in reads)
            if not known or draft.output_name in node.output:
                rest.append(node)
                continue
            feeds = {
                name: draft.arrays[name] if name in draft.arrays else np.zeros(draft.shapes[name], np.float32)
                for name in reads
            }
            graph = helper.make_graph(
                [node],
                "constant",
                [
                    helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                    for name, array in feeds.items()
                ],
                [onnx.ValueInfoProto(name=name) for name in node.output if name],
            )
            single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", draft.opset)])
            values = ReferenceEvaluator(single).run(None, feeds)
            for name, value in zip((name for name in node.output if name), values, strict=True):
                draft.arrays[name] = numpy_helper.to_array(value) if hasattr(value, "raw_data") else np.asarray(value)
            changed = True
        draft.nodes = rest


def _is_half(draft: Draft, node: onnx.NodeProto) -> bool:
    """Tell whether a node widens weights that are stored as float16."""
    stored = draft.arrays.get(node.input[0]) if node.op_type == "Cast" else None
    return stored is not None and stored.dtype == np.float16 and stored.ndim > 1


def _normalise(draft: Draft, node: onnx.NodeProto) -> None:
    """Bring a node to the form later steps know: explicit pads, ``Gemm`` as x·Wᵀ + b, ``Sum`` as ``Add``."""
    if node.op_type == "Sum" and len(node.input) == 2:
        node.op_type = "Add"
    elif node.op_type in {"Conv", "MaxPool", "AveragePool"}:
        _explicit_pads(draft, node)
    elif node.op_type == "MatMul":
        left, right = node.input
        if right in draft.arrays and draft.arrays[right].ndim == 2 and len(draft.shapes.get(left, ())) == 2:
            node.op_type = "Gemm"
            _set_weights(draft, node, draft.arrays[right].T, None)
            _set_attributes(node, transB=1)
    elif node.op_type == "Gemm" and node.input[1] in draft.arrays:
        _plain_gemm(draft, node)


def _plain_gemm(draft: Draft, node: onnx.NodeProto) -> None:
    values = attributes(node)
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if values.get("transA", 0) or (bias is not None and bias not in draft.arrays):
        return
    weight = draft.arrays[node.input[1]]
    if not values.get("transB", 0):
        weight = weight.T
    if values.get("alpha", 1.0) != 1.0:
        weight = weight * np.float32(values["alpha"])
    shift: NDArray[Any] | None = None
    if bias is not None:
        shift = draft.arrays[bias] * np.float32(values.get("beta", 1.0))
        if shift.ndim == 2 and shift.shape[0] != 1:
            return
        shift = np.broadcast_to(shift.reshape(-1), weight.shape[:1])
    _set_weights(draft, node, weight, shift)
    _set_attributes(node, transB=1)


def _explicit_pads(draft: Draft, node: onnx.NodeProto) -> None:
    """Replace ``auto_pad`` by the pads it stands for (ONNX operator reference, Conv: auto_pad)."""
    values = attributes(node)
    mode = values.pop("auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        return
    size = draft.shapes[node.input[0]][2:]
    kernel = values.get("kernel_shape")
    if kernel is None:
        kernel = draft.shapes[node.input[1]][2:]
    strides = values.get("strides") or [1] * len(size)
    dilations = values.get("dilations") or [1] * len(size)
    begin, end = [0] * len(size), [0] * len(size)
    if mode != "VALID":
        for axis, length in enumerate(size):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((-(-length // strides[axis]) - 1) * strides[axis] + reach - length, 0)
            begin[axis] = total - total // 2 if mode == "SAME_LOWER" else total // 2
            end[axis] = total - begin[axis]
    values["pads"] = begin + end
    _set_attributes(node, **values)


def _fold_once(draft: Draft) -> bool:
    """Fold one per-channel scaling or shifting into the operator before it; say whether there was one."""
    made = {name: node for node in draft.nodes for name in node.output if name}
    read = draft.readers()
    for node in draft.nodes:
        found = _affine(draft, node)
        if found is None:
            continue
        source, scale, shift = found
        producer = made.get(source)
        if producer is None or read[source] != 1 or source == draft.output_name or not _foldable(draft, producer):
            continue
        if producer.op_type == "BatchNormalization":
            new_scale, new_shift = (
                draft.arrays[producer.input[1]] * scale,
                draft.arrays[producer.input[2]] * scale,
            )
            names = [*producer.input]
            names[1], names[2] = _fresh(draft, producer, "scale"), _fresh(draft, producer, "shift")
            draft.arrays[names[1]] = new_scale.astype(np.float32)
            draft.arrays[names[2]] = (new_shift + shift).astype(np.float32)
            del producer.input[:]
            producer.input.extend(names)
        else:
            weight = draft.arrays[producer.input[1]]
            bias = draft.arrays[producer.input[2]] if len(producer.input) > 2 and producer.input[2] else 0.0
            scale = np.broadcast_to(scale, weight.shape[:1])
            _set_weights(
                draft,
                producer,
                weight * scale.reshape(-1, *[1] * (weight.ndim - 1)),
                np.asarray(bias * scale + shift),
            )
        producer.output[0] = node.output[0]
        draft.nodes.remove(node)
        return True
    return False


def _foldable(draft: Draft, node: onnx.NodeProto) -> bool:
    if node.op_type not in _FOLDED_INTO or any(name for name in node.output[1:]):
        return False
    constants = [name for name in node.input[1:] if name]
    plain = node.op_type != "Gemm" or (attributes(node).get("transB", 0) == 1 and len(attributes(node)) == 1)
    return plain and all(name in draft.arrays and draft.arrays[name].dtype == np.float32 for name in constants)


def _affine(draft: Draft, node: onnx.NodeProto) -> tuple[str, NDArray[np.float64], NDArray[np.float64]] | None:
    """Read a node as y[c] = scale[c]·x[c] + shift[c]; None where it is something else."""
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "BatchNormalization":
        if not all(name in draft.arrays for name in node.input[1:]):
            return None
        gain, offset, mean, variance = (draft.arrays[name].astype(np.float64) for name in node.input[1:5])
        scale = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        return node.input[0], scale, offset - mean * scale
    if node.op_type not in {"Mul", "Add", "Sub", "Div"}:
        return None
    source, constant = node.input
    if source in draft.arrays and node.op_type in {"Mul", "Add"}:
        source, constant = constant, source
    if constant not in draft.arrays or source not in draft.shapes:
        return None
    value = _per_channel(draft.arrays[constant], draft.shapes[source])
    if value is None:
        return None
    forms = {"Mul": (value, zero), "Add": (one, value), "Sub": (one, -value)}
    scale, shift = forms[node.op_type] if node.op_type in forms else (1.0 / value, zero)
    return source, scale, shift


def _per_channel(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return a constant as one value a channel (axis 1), or None where it varies along another axis."""
    if array.dtype != np.float32 or array.ndim > len(shape) or len(shape) < 2:
        return None
    full = (1,) * (len(shape) - array.ndim) + array.shape
    if full[1] not in {1, shape[1]} or any(length != 1 for axis, length in enumerate(full) if axis != 1):
        return None
    return array.reshape(-1).astype(np.float64)


def _unshare(draft: Draft) -> None:
    """Give every operator its own copy of weights it shares, so that each can be approximated on its own."""
    owner: dict[str, str] = {}
    for node in draft.nodes:
        if node.op_type not in {"Conv", "Gemm"}:
            continue
        for index, name in enumerate(node.input[1:], start=1):
            if name not in draft.arrays:
                continue
            if owner.setdefault(name, node.name) != node.name:
                copy = _fresh(draft, node, "weight" if index == 1 else "bias")
                draft.arrays[copy] = draft.arrays[name]
                node.input[index] = copy


def _set_weights(draft: Draft, node: onnx.NodeProto, weight: NDArray[Any], bias: NDArray[Any] | None) -> None:
    names = [node.input[0], _fresh(draft, node, "weight")]
    draft.arrays[names[1]] = np.ascontiguousarray(weight, dtype=np.float32)
    if bias is not None:
        names.append(_fresh(draft, node, "bias"))
        draft.arrays[names[2]] = np.ascontiguousarray(np.broadcast_to(bias, weight.shape[:1]), dtype=np.float32)
    del node.input[:]
    node.input.extend(names)


def _set_attributes(node: onnx.NodeProto, **values: object) -> None:
    from onnx import helper

    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())


def _fresh(draft: Draft, node: onnx.NodeProto, what: str) -> str:
    name, count = f"{node.name}.{what}", 0
    while name in draft.arrays:
        count += 1
        name = f"{node.name}.{what}.{count}"
    return name
