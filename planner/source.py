"""Reading ONNX files: what is wrong with one is said before anything is computed from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from planner.draft import Draft
from planner.errors import InputError

if TYPE_CHECKING:
    import onnx

    from planner.layering import Shape

__all__ = ["OPSET", "load"]

OPSET = 21
"""The lowest ONNX operator set that a network is rewritten in; older ones are converted."""

_REFUSED = frozenset(
    {
        *("NonZero", "NonMaxSuppression", "Unique", "StringNormalizer", "TfIdfVectorizer", "Optional"),
        *("OptionalGetElement", "OptionalHasElement", "ImageDecoder", "Compress", "ConcatFromSequence"),
        *(
            "SplitToSequence",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
        ),
        *("SequenceLength", "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        *("RandomUniformLike", "StringConcat", "StringSplit", "RegexFullMatch"),
    }
)
"""Operators whose results have no fixed shape, are random, or are no tensors of numbers."""

_IMAGE_DIMS = 4
_SEQUENCE_DIMS = 3


def load(path: Path, input_shape: tuple[int, ...] | None = None) -> tuple[Draft, str]:
    """Read an ONNX network, name its nodes and bring it to a known operator set at batch 1.

    Args:
        path: The ONNX file.
        input_shape: Shape ``(1, C, H, W)`` of an image or ``(1, length, width)`` of a sequence, needed where the file
            leaves a size other than the batch open.

    Returns:
        The network as a draft, and the SHA-256 of the file.

    Raises:
        InputError: The file is missing, is not a complete ONNX model, holds an operator that cannot be run,
            or reads neither an image nor a sequence of known size.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected an ONNX model")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as err:
        raise InputError(f"{path}: not an ONNX model, or one cut short ({len(content):,} bytes read): {err}") from err
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{path}: not an ONNX model: {len(content):,} bytes that hold no operator; expected a network")
    _check_operators(str(path), model)
    _name_nodes(model)
    if any(item.external_data for item in model.graph.initializer):
        _load_external(path, model)
    model = _convert(str(path), model)
    return _draft(str(path), model, input_shape), hashlib.sha256(content).hexdigest()


def _check_operators(where: str, model: onnx.ModelProto) -> None:
    """Refuse operators that neither a runtime nor a compiler can be expected to run, naming the node."""
    import onnx

    versions = {item.domain: item.version for item in model.opset_import}
    for index, node in enumerate(model.graph.node):
        label = f"{where}: node {node.name or f'{node.op_type}_{index}'!r} is a {node.op_type}"
        if node.domain not in {"", "ai.onnx"}:
            raise InputError(f"{label} of domain {node.domain!r}; expected operators of the ONNX standard only")
        if any(item.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS} for item in node.attribute):
            raise InputError(f"{label}: control flow is not supported")
        if node.op_type in _REFUSED:
            raise InputError(f"{label}: not supported, its result is random or has no fixed shape and number type")
        version = versions.get("", versions.get("ai.onnx", 1))
        if not onnx.defs.has(node.op_type, max_inclusive_version=version, domain=""):
            raise InputError(f"{label}: no such operator in version {version} of the ONNX standard")
        training = [item.i for item in node.attribute if item.name == "training_mode"]
        if training and training[0]:
            raise InputError(f"{label} in training mode; expected a network exported for inference")


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name unnamed nodes after their operator and place, and make names unique."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}_{index}"
        while name in seen:
            name = f"{name}_{index}"
        node.name = name
        seen.add(name)


def _load_external(path: Path, model: onnx.ModelProto) -> None:
    import onnx

    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, onnx.checker.ValidationError) as err:
        raise InputError(f"{path}: the weights stored beside the file cannot be read: {err}") from err


def _convert(where: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """Check a model and bring it to an operator set that the rest knows."""
    import onnx
    from onnx import version_converter

    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    try:
        if any(not item.type.tensor_type.HasField("shape") for item in model.graph.output):
            model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        version = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
        if version < OPSET:
            model = version_converter.convert_version(model, OPSET)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as err:
        raise InputError(f"{where}: not a valid ONNX model: {err}") from err
    _name_nodes(model)
    return model


def _draft(where: str, model: onnx.ModelProto, input_shape: tuple[int, ...] | None) -> Draft:
    from onnx import numpy_helper

    graph = model.graph
    if len(graph.output) != 1:
        names = ", ".join(repr(item.name) for item in graph.output)
        raise InputError(f"{where}: the network has {len(graph.output)} outputs ({names}); expected one, class scores")
    if len(graph.input) != 1:
        names = ", ".join(repr(item.name) for item in graph.input)
        raise InputError(
            f"{where}: the network has {len(graph.input)} inputs ({names}); expected one, an image or a sequence"
        )
    return Draft(
        where=where,
        nodes=list(graph.node),
        arrays={item.name: numpy_helper.to_array(item) for item in graph.initializer},
        input_name=graph.input[0].name,
        input_shape=_static_shape(where, graph.input[0], input_shape),
        output_name=graph.output[0].name,
        opset=next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}),
    )


def _static_shape(where: str, value: onnx.ValueInfoProto, given: tuple[int, ...] | None) -> Shape:
    """Return the input's shape at batch 1, taking open sizes from the shape that was given.

    An image is ``(1, C, H, W)``; a sequence, which a transformer reads, is ``(1, length, width)``.
    """
    import onnx

    tensor = value.type.tensor_type
    label = f"{where}: input {value.name!r}"
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    known = tensor.HasField("shape")
    if tensor.elem_type != onnx.TensorProto.FLOAT or (known and len(dims) not in {_IMAGE_DIMS, _SEQUENCE_DIMS}):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(
            f"{label} is {kind} of {len(dims)} dimensions; expected a float image, (batch, C, H, W), "
            "or a float sequence, (batch, length, width)"
        )
    if not known:
        dims = [None] * (len(given) if given is not None and len(given) == _SEQUENCE_DIMS else _IMAGE_DIMS)
    form = "(1, C, H, W)" if len(dims) == _IMAGE_DIMS else "(1, length, width)"
    if given is not None and (len(given) != len(dims) or given[0] != 1 or min(given) < 1):
        raise InputError(f"{label}: the shape given is {given}; expected {form}")
    shape = []
    for axis, length in enumerate(dims):
        if length is not None and given is not None and given[axis] != length:
            raise InputError(f"{label}: dimension {axis} is {length} in the file, but {given[axis]} was given")
        if length is None and axis and given is None:
            symbol = tensor.shape.dim[axis].dim_param if tensor.HasField("shape") else ""
            raise InputError(
                f"{label}: dimension {axis}{f' ({symbol})' if symbol else ''} has no size; give input_shape={form}"
            )
        shape.append(1 if axis == 0 and length is None else length or (given[axis] if given else 1))
    if shape[0] != 1:
        raise InputError(f"{label} has a fixed batch of {shape[0]}; expected a batch of 1 or an open one")
    return tuple(shape)
