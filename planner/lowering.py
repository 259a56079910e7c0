"""From rewritten ONNX models to one Relax module whose kernels know their layers.

Each layer is imported by itself and its operators are strung together under names that carry the layer: Relax
drops ONNX names on import, and measured time has to find its way back.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import tvm
from onnx import numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from planner.schedules import WINOGRAD, naming, prepare
from planner.segments import Entry, Network, Segment
from planner.storage import stored_weights

_KEPT = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16})


def lower(entries: Sequence[Entry]) -> tvm.IRModule:
    """Import networks into one ``tvm.IRModule`` with a function for each.

    Args:
        entries: The networks.

    Returns:
        A module for :func:`planner.schedules.pipeline`.
    """
    builder = relax.BlockBuilder()
    for index, entry in enumerate(entries):
        _string_together(builder, index, entry)
    return builder.get()


def _string_together(builder: relax.BlockBuilder, index: int, entry: Entry) -> None:
    """Emit one network as a function of the builder's module, layer after layer."""
    network = Network(entry)
    parameter = relax.Var(network.input, relax.TensorType(network.shape(network.input), "float32"))
    values: dict[str, Any] = {network.input: parameter}
    segments = network.segments()
    winograd = [number for number, segment in enumerate(segments) if segment.winograd]
    attributes: dict[str, Any] = {"num_input": 1} | ({WINOGRAD: winograd} if winograd else {})
    with builder.function(entry.name, [parameter], attrs=attributes):
        with builder.dataflow():
            for number, segment in enumerate(segments):
                _emit(builder, (index, number), network, segment, values)
            result = builder.emit_output(values[network.output])
        builder.emit_func_output(result)


def _emit(
    builder: relax.BlockBuilder,
    place: tuple[int, int],
    network: Network,
    segment: Segment,
    values: dict[str, Any],
) -> None:
    """Import one layer and copy its bindings behind those that are there."""
    segment, values = stored_weights.emit(builder, place, segment, values)
    # Narrow numbers come in as parameters: constant folding would widen them to float32.
    biases = {
        node.input[0]
        for node in segment.nodes
        if node.op_type == "DequantizeLinear"
        and node.input[0] in segment.initialisers
        and segment.initialisers[node.input[0]].data_type == onnx.TensorProto.INT32
    }
    integers = [
        name
        for name, constant in segment.initialisers.items()
        if constant.dims and (constant.data_type in _KEPT or name in biases)
    ]
    with warnings.catch_warnings():
        # The importer warns of every initialiser that is not an input too, which is how ONNX has them since IR 4.
        warnings.filterwarnings("ignore", message=".*in initializer but not in graph input")
        # Names of inputs are looked up by position here, never by name.
        warnings.filterwarnings("ignore", message="Renaming name")
        imported = prepare()(from_onnx(network.extract(segment, open_constants=integers), keep_params_in_input=False))
    main = imported["main"]
    constants = [relax.const(numpy_helper.to_array(segment.initialisers[name])) for name in integers]
    copied = dict(zip(main.params, [*(values[i] for i in segment.inputs), *constants], strict=True))
    functions = {
        var: builder.add_func(function, naming.tag(*place, var.name_hint))
        for var, function in imported.functions_items()
        if not isinstance(function, relax.Function)
    }

    def copy(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return copied[expression]
        if isinstance(expression, tvm.ir.GlobalVar):
            return functions[expression]
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([copy(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(copy(expression.tuple_value), expression.index)
        if isinstance(expression, relax.Call):
            operands = [copy(operand) for operand in expression.args]
            return relax.Call(expression.op, operands, expression.attrs, expression.ty_args)
        return expression

    for block in main.body.blocks:
        for binding in block.bindings:
            operator = getattr(getattr(binding.value, "op", None), "name", "value")
            hint = naming.tag(*place, operator.split(".")[-1])
            copied[binding.var] = builder.emit(copy(binding.value), name_hint=hint)
    body = main.body.body
    results = [copy(field) for field in (body.fields if isinstance(body, relax.Tuple) else [body])]
    if len(results) == 1 and len(segment.outputs) > 1:
        results = [builder.emit(relax.TupleGetItem(results[0], place)) for place in range(len(segment.outputs))]
    values.update(zip(segment.outputs, results, strict=True))
