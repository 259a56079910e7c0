"""The pass that puts a Relax module into the blocked layout.

Every activation that a convolution or a pooling touches is kept blocked (see :mod:`blocked`); weights are
packed once, here, at build time.  What the pass does not know is left as it is, on plain NCHW tensors, so that
any module stays correct.  Names of variables are kept, and kernels are named after the variable they compute:
that is how a kernel is traced back to its layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax, te

from planner.schedules import blocked, convolution, dense, elementwise, naming, pooling
from planner.schedules.blocked import FeatureMap
from planner.schedules.constants import Constants, Weight
from planner.schedules.convolution import Window

_FUSABLE = {"op_pattern": 4}
"""TVM's "complex, elementwise operators may be fused to its output"."""
_ALONE = {"op_pattern": 8}
"""TVM's "opaque": never fused, so that what a layer costs does not depend on the layer before it."""

_UNARY = frozenset(
    f"relax.{name}"
    for name in (
        "nn.relu", "nn.relu6", "nn.leakyrelu", "nn.silu", "nn.gelu", "sigmoid", "tanh", "clip",
        "exp", "sqrt", "negative", "abs", "hardswish", "hardsigmoid",
    )
)  # fmt: skip
_BINARY = frozenset(f"relax.{name}" for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"))


def shape_of(expression: Any) -> list[int]:
    """Give the static shape of a tensor expression."""
    return [int(n) for n in expression.ty.shape.values]


class _Function:
    """Rewrites one Relax function."""

    def __init__(self, module: tvm.IRModule, builder: relax.BlockBuilder, functions: dict[Any, Any]) -> None:
        self.module, self.bb, self.functions = module, builder, functions
        self.plain: dict[Any, Any] = {}
        self.blocked: dict[Any, tuple[Any, FeatureMap]] = {}
        self.padded: dict[Any, Any] = {}
        self.constants = Constants()
        self.name = ""

    # -- access to operands in one layout or the other ------------------------------------------------------
    def as_plain(self, operand: Any) -> Any:
        """Give an operand as it was before the pass, gathering it back from the blocked layout if need be."""
        if isinstance(operand, relax.Tuple):
            return relax.Tuple([self.as_plain(field) for field in operand.fields])
        if isinstance(operand, tvm.ir.GlobalVar):
            return self.functions[operand]
        if not isinstance(operand, relax.Var):
            return operand
        if operand not in self.plain and operand in self.blocked:
            data, size = self.blocked[operand]
            self.plain[operand] = self.call(elementwise.to_plain, data, hint="to_plain", size=size)
        if operand not in self.plain:
            weight = self.constants.of(operand)
            if weight is None:
                raise ValueError(f"{operand} is used before it is computed")
            self.plain[operand] = self.bb.emit(relax.const(np.ascontiguousarray(weight.widened())))
        return self.plain[operand]

    def as_blocked(self, operand: Any) -> Any:
        """Give an operand in the blocked layout."""
        if operand not in self.blocked:
            _, channels, height, width = shape_of(operand)
            size = FeatureMap(channels=channels, height=height, width=width)
            data = self.call(elementwise.to_blocked, self.as_plain(operand), hint="to_blocked", size=size)
            self.blocked[operand] = (data, size)
        return self.blocked[operand][0]

    def call(
        self,
        describe: Callable[..., te.Tensor],
        *operands: Any,
        hint: str,
        pattern: dict[str, int] | None = None,
        **keywords: Any,
    ) -> Any:
        """Emit a tensor-expression kernel, named after the variable that is being computed."""
        attributes = {"primfunc_attrs": pattern} if pattern else {}
        value = self.bb.call_te(
            lambda *tensors: describe(*tensors, **keywords),
            *operands,
            primfunc_name_hint=f"{self.name}_{hint}",
            **attributes,
        )
        return self.bb.emit(value, name_hint=self.name)

    # -- the walk -------------------------------------------------------------------------------------------
    def rewrite(self, name: str, function: relax.Function) -> None:
        """Rewrite a function into the builder under the same name."""
        for parameter in function.params:
            self.plain[parameter] = parameter
        with self.bb.function(name, list(function.params), attrs=dict(function.attrs or {})):
            with self.bb.dataflow():
                for block in function.body.blocks:
                    for binding in block.bindings:
                        self.binding(binding.var, binding.value)
                result = self.bb.emit_output(self.as_plain(function.body.body))
            self.bb.emit_func_output(result)

    def binding(self, var: relax.Var, value: Any) -> None:
        """Rewrite ``var = value``: a known operator into its kernel, all else as it stands."""
        if naming.owner(var.name) is not None or not self.name:
            self.name = var.name
        if self.constants.learn(var, value):
            return
        if isinstance(value, relax.Var) and value in self.blocked:
            self.blocked[var] = self.blocked[value]
            return
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            name = value.op.name
            if name in _UNARY:
                done = self.unary(var, value)
            elif name in _BINARY:
                done = self.binary(var, value)
            else:
                handler = _HANDLERS.get(name)
                done = handler is not None and handler(self, var, value)
            if done:
                return
        self.plain[var] = self.bb.emit(self.copy(value), name_hint=self.name)

    def copy(self, value: Any) -> Any:
        """Repeat an expression on plain operands."""
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self.as_plain(value.tuple_value), value.index)
        if isinstance(value, relax.Call):
            operands = [self.as_plain(a) for a in value.args]
            return relax.Call(value.op, operands, value.attrs, value.ty_args)
        return self.as_plain(value)

    # -- operators ------------------------------------------------------------------------------------------
    def unary(self, var: relax.Var, call: relax.Call) -> bool:
        """Apply an elementwise function to the blocked form where its operand has one."""
        source = call.args[0]
        if source not in self.blocked:
            return False
        data, size = self.blocked[source]
        repeated = relax.Call(call.op, [data, *call.args[1:]], call.attrs)
        self.blocked[var] = (self.bb.emit(repeated, name_hint=self.name), size)
        return True

    def binary(self, var: relax.Var, call: relax.Call) -> bool:
        """Combine two maps, or a map and one value a channel, in the blocked layout."""
        if not any(isinstance(a, relax.Var) and a in self.blocked for a in call.args):
            return False
        shape = shape_of(var)
        if len(shape) != 4 or shape[0] != 1:
            return False
        size = FeatureMap(channels=shape[1], height=shape[2], width=shape[3])
        operands = [self._operand(a, size) for a in call.args]
        if any(o is None for o in operands):
            return False
        self.blocked[var] = (
            self.bb.emit(relax.Call(call.op, operands, call.attrs), name_hint=self.name),
            size,
        )
        return True

    def _operand(self, operand: Any, size: FeatureMap) -> Any:
        weight = self.constants.of(operand)
        if weight is None:
            return self.as_blocked(operand) if shape_of(operand) == list(size.plain_shape) else None
        values = weight.widened()
        if values.size == 1:
            return relax.const(values.reshape(()))
        trailing = values.shape[-2:] if values.ndim >= 2 else (0, 0)
        if values.size == size.channels and trailing == (1, 1):
            return relax.const(np.ascontiguousarray(blocked.per_channel(values, size.channels)))
        return None

    def scaled(self, data: Any, weight: Weight, channels: int) -> Any:
        """Multiply by the scales of an integer weight, one a channel, in the blocked layout."""
        if weight.scales is None:
            return data
        scales = relax.const(np.ascontiguousarray(blocked.per_channel(weight.scales, channels)))
        return self.bb.emit(relax.op.multiply(data, scales), name_hint=self.name)

    def padded_input(self, source: Any, data: Any, size: FeatureMap, window: Window) -> Any:
        """Pad a map once, however many windows of the same padding read it."""
        if not window.padded:
            return data
        key = (source, data, window.padding)
        if key not in self.padded:
            self.padded[key] = self.call(convolution.pad, data, hint="pad", pattern=_ALONE, source=size, window=window)
        return self.padded[key]

    def conv2d(self, var: relax.Var, call: relax.Call) -> bool:
        """Lower an ungrouped or a depthwise convolution; other groupings stay plain."""
        source, attrs = call.args[0], call.attrs
        weight = self.constants.of(call.args[1])
        shape = shape_of(source)
        if weight is None or attrs.data_layout != "NCHW" or len(shape) != 4 or shape[0] != 1:
            return False
        if weight.scales is not None and weight.axis != 0:
            return False
        _, channels, height, width = shape
        _, filters, out_height, out_width = shape_of(var)
        window = Window.of(attrs, weight.values.shape[2:])
        size = FeatureMap(channels=channels, height=height, width=width)
        output = FeatureMap(channels=filters, height=out_height, width=out_width)
        groups = int(attrs.groups)
        if groups == 1:
            plain = source not in self.blocked and channels < blocked.CHANNELS
            data = self.as_plain(source) if plain else self.as_blocked(source)
            data = self.padded_input(source, data, size, window)
            packed = relax.const(blocked.pack_convolution(weight.values))
            result = self.call(
                convolution.convolution, data, packed, hint="conv2d", pattern=_FUSABLE,
                source=size, output=output, window=window, plain=plain,
            )  # fmt: skip
        elif groups == channels == filters:
            data = self.padded_input(source, self.as_blocked(source), size, window)
            packed = relax.const(blocked.pack_depthwise(weight.values))
            result = self.call(
                convolution.depthwise, data, packed, hint="depthwise", pattern=_FUSABLE,
                source=size, output=output, window=window,
            )  # fmt: skip
        else:
            return False
        self.blocked[var] = (self.scaled(result, weight, filters), output)
        return True

    def pool(self, var: relax.Var, call: relax.Call) -> bool:
        """Lower a sliding maximum or mean of a map that is blocked already."""
        source, attrs = call.args[0], call.attrs
        if source not in self.blocked:
            return False
        data, size = self.blocked[source]
        _, channels, height, width = shape_of(var)
        output = FeatureMap(channels=channels, height=height, width=width)
        window = Window.of(attrs, attrs.pool_size)
        common = {"source": size, "output": output, "window": window}
        if call.op.name.endswith("max_pool2d"):
            result = self.call(pooling.maximum, data, hint="max_pool", pattern=_FUSABLE, **common)
        else:
            count = bool(attrs.count_include_pad)
            result = self.call(pooling.mean, data, hint="avg_pool", pattern=_FUSABLE, count_padding=count, **common)
        self.blocked[var] = (result, output)
        return True

    def global_pool(self, var: relax.Var, call: relax.Call) -> bool:
        """Lower the mean over all pixels."""
        source = call.args[0]
        shape = shape_of(var)
        if source not in self.blocked or len(shape) != 4 or shape[2:] != [1, 1]:
            return False
        if call.op.name == "relax.mean" and sorted(int(a) % 4 for a in call.attrs.axis) != [2, 3]:
            return False
        data, size = self.blocked[source]
        output = FeatureMap(channels=size.channels, height=1, width=1)
        result = self.call(pooling.global_mean, data, hint="global_pool", pattern=_FUSABLE, source=size)
        self.blocked[var] = (result, output)
        return True

    def resize(self, var: relax.Var, call: relax.Call) -> bool:
        """Lower the doubling of rows by linear interpolation, the form that row perforation takes."""
        source, attrs = call.args[0], call.attrs
        if source not in self.blocked or attrs.layout != "NCHW" or attrs.method != "linear":
            return False
        data, size = self.blocked[source]
        _, channels, height, width = shape_of(var)
        doubled = attrs.coordinate_transformation_mode == "asymmetric" and height == 2 * size.height
        aligned = attrs.coordinate_transformation_mode == "align_corners" and height == 2 * size.height - 1
        if width != size.width or not (doubled or aligned):
            return False
        output = FeatureMap(channels=channels, height=height, width=width)
        result = self.call(elementwise.interpolate_rows, data, hint="interpolate_rows", source=size, output=output)
        self.blocked[var] = (result, output)
        return True

    def concat(self, var: relax.Var, call: relax.Call) -> bool:
        """Join maps along their channels where all but the last end on a block."""
        fields = list(call.args[0].fields)
        shapes = [shape_of(f) for f in fields]
        blocked_fields = [f for f in fields if isinstance(f, relax.Var) and f in self.blocked]
        if not blocked_fields or len(shapes[0]) != 4 or int(call.attrs.axis) % 4 != 1:
            return False
        if any(s[1] % blocked.CHANNELS for s in shapes[:-1]):
            return False
        channels = sum(s[1] for s in shapes)
        output = FeatureMap(channels=channels, height=shapes[0][2], width=shapes[0][3])
        parts = [self.as_blocked(f) for f in fields]
        self.blocked[var] = (self.call(elementwise.concatenate, *parts, hint="concat"), output)
        return True

    def matmul(self, var: relax.Var, call: relax.Call) -> bool:
        """Lower a product with a constant matrix."""
        source = call.args[0]
        weight = self.constants.of(call.args[1])
        if weight is None or weight.values.ndim != 2:
            return False
        if weight.scales is not None and weight.axis != 1:
            return False
        outputs = weight.values.shape[1]
        matrix = weight.values.T
        packed = relax.const(blocked.pack_dense(matrix, dense.columns_for(outputs)))
        result = self.call(dense.dense, self.as_plain(source), packed, hint="dense", pattern=_FUSABLE, outputs=outputs)
        if weight.scales is not None:
            scales = relax.const(np.ascontiguousarray(weight.scales))
            result = self.bb.emit(relax.op.multiply(result, scales), name_hint=self.name)
        self.plain[var] = result
        return True


_HANDLERS: dict[str, Callable[[_Function, relax.Var, relax.Call], bool]] = {
    "relax.nn.conv2d": _Function.conv2d,
    "relax.nn.max_pool2d": _Function.pool,
    "relax.nn.avg_pool2d": _Function.pool,
    "relax.nn.adaptive_avg_pool2d": _Function.global_pool,
    "relax.mean": _Function.global_pool,
    "relax.image.resize2d": _Function.resize,
    "relax.concat": _Function.concat,
    "relax.matmul": _Function.matmul,
}


@tvm.transform.module_pass(opt_level=0, name="BlockedLayout")
class BlockedLayout:
    """Module pass: all Relax functions into the blocked layout."""

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module; PrimFuncs that were there are carried over."""
        builder = relax.BlockBuilder()
        functions = {
            var: builder.add_func(function, var.name_hint)
            for var, function in module.functions_items()
            if not isinstance(function, relax.Function)
        }
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                _Function(module, builder, functions).rewrite(var.name_hint, function)
        return builder.get()
