"""From rewritten ONNX models to one Relax module whose kernels know their layers.

Each layer is imported by itself and its operators are strung together under names that carry the layer: Relax
drops ONNX names on import, and measured time has to find its way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.schedules import naming, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One network of a module to be built.

    Attributes:
        name: Name of its function in the module.
        model: The rewritten network, an ``onnx.ModelProto`` with static shapes and batch 1.
        nodes: Names of the nodes of each layer, layers in topological order, every node in exactly one.
    """

    name: str
    model: Any
    nodes: Mapping[str, Sequence[str]]


def lower(entries: Sequence[Entry]) -> Any:
    """Import networks into one ``tvm.IRModule`` with a function for each.

    Args:
        entries: The networks.

    Returns:
        A module for :func:`planner.schedules.pipeline`.

    Raises:
        ValueError: A node belongs to no layer, or a layer names a node that is not there.
    """
    from tvm import relax

    builder = relax.BlockBuilder()
    for index, entry in enumerate(entries):
        _Stitcher(builder, index, entry).run()
    return builder.get()


class _Stitcher:
    """Strings the layers of one network together in a builder."""

    def __init__(self, builder: Any, index: int, entry: Entry) -> None:
        import onnx

        self.builder, self.index, self.entry = builder, index, entry
        self.model = onnx.shape_inference.infer_shapes(entry.model, strict_mode=True, data_prop=True)
        graph = self.model.graph
        self.initialisers = {i.name: i for i in graph.initializer}
        self.infos = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
        self.functions: dict[Any, Any] = {}

    def run(self) -> None:
        from tvm import relax

        graph = self.model.graph
        nodes = {n.name: n for n in graph.node}
        position = {n.name: i for i, n in enumerate(graph.node)}
        listed = [n for names in self.entry.nodes.values() for n in names]
        if sorted(listed) != sorted(nodes):
            odd = sorted(set(listed) ^ set(nodes))
            raise ValueError(
                f"{self.entry.name}: layers must hold every node exactly once, not so: {odd[:5]}"
            )
        (source,) = (i for i in graph.input if i.name not in self.initialisers)
        shape = [d.dim_value for d in source.type.tensor_type.shape.dim]
        parameter = relax.Var(source.name, relax.TensorType(shape, "float32"))
        values: dict[str, Any] = {source.name: parameter}
        wanted = {o.name for o in graph.output}
        layers = [
            [nodes[name] for name in sorted(names, key=position.__getitem__)]
            for names in self.entry.nodes.values()
        ]
        readers: dict[str, set[int]] = {}
        for number, members in enumerate(layers):
            for node in members:
                for name in node.input:
                    readers.setdefault(name, set()).add(number)
        with self.builder.function(self.entry.name, [parameter], attrs={"num_input": 1}):
            with self.builder.dataflow():
                for number, members in enumerate(layers):
                    made = {o for node in members for o in node.output}
                    outputs = [
                        o
                        for node in members
                        for o in node.output
                        if o in wanted or readers.get(o, set()) - {number}
                    ]
                    inputs = sorted(
                        {i for n in members for i in n.input if i}
                        - made
                        - set(self.initialisers)
                    )
                    self.layer(number, members, inputs, outputs, values)
                (output,) = graph.output
                result = self.builder.emit_output(values[output.name])
            self.builder.emit_func_output(result)

    def layer(
        self, number: int, members: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str], values: dict[str, Any]
    ) -> None:
        """Import one layer and copy its bindings behind those that are there."""
        import onnx
        import tvm
        from onnx import helper, numpy_helper
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        used = [self.initialisers[i] for n in members for i in n.input if i in self.initialisers]
        unique = {i.name: i for i in used}
        # Integers come in as parameters: constant folding would widen them to float32.
        integers = {k: v for k, v in unique.items() if v.data_type == onnx.TensorProto.INT8 and v.dims}
        graph = helper.make_graph(
            list(members),
            "layer",
            [self.infos[i] for i in inputs]
            + [helper.make_tensor_value_info(k, v.data_type, list(v.dims)) for k, v in integers.items()],
            [self.infos[o] for o in outputs],
            [v for k, v in unique.items() if k not in integers],
        )
        model = helper.make_model(graph, opset_imports=list(self.model.opset_import))
        model.ir_version = self.model.ir_version
        imported = prepare()(from_onnx(model, keep_params_in_input=False))
        main = imported["main"]
        known = [values[i] for i in inputs] + [
            relax.const(numpy_helper.to_array(v)) for v in integers.values()
        ]
        copied: dict[Any, Any] = dict(zip(main.params, known, strict=True))
        functions = {
            var: self.builder.add_func(function, naming.tag(self.index, number, var.name_hint))
            for var, function in imported.functions_items()
            if not isinstance(function, relax.Function)
        }

        def copy(expression: Any) -> Any:
            if isinstance(expression, relax.Var):
                return copied[expression]
            if isinstance(expression, tvm.ir.GlobalVar):
                return functions[expression]
            if isinstance(expression, relax.Tuple):
                return relax.Tuple([copy(f) for f in expression.fields])
            if isinstance(expression, relax.TupleGetItem):
                return relax.TupleGetItem(copy(expression.tuple_value), expression.index)
            if isinstance(expression, relax.Call):
                return relax.Call(
                    expression.op, [copy(a) for a in expression.args], expression.attrs, expression.ty_args
                )
            return expression

        for block in main.body.blocks:
            for binding in block.bindings:
                operator = getattr(getattr(binding.value, "op", None), "name", "value")
                hint = naming.tag(self.index, number, operator.split(".")[-1])
                copied[binding.var] = self.builder.emit(copy(binding.value), name_hint=hint)
        body = main.body.body
        fields = list(body.fields) if isinstance(body, relax.Tuple) else [body]
        results = [copy(f) for f in fields]
        if len(results) == 1 and len(outputs) > 1:
            results = [self.builder.emit(relax.TupleGetItem(results[0], i)) for i in range(len(outputs))]
        values.update(zip(outputs, results, strict=True))
