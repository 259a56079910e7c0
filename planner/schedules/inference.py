"""A freshly imported module in the form that inference needs: what depends on constants alone is computed.

TVM's own folding compiles a kernel for each constant expression, however small: 400 of them, and a third of the time
to compile DenseNet-121.  What occurs in every network is computed with numpy here; the rest is left to TVM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

_Array = NDArray[np.generic]


def _reshape(call: relax.Call, value: _Array) -> _Array:
    return value.reshape([int(n) for n in call.ty.shape.values])


def _permute(call: relax.Call, value: _Array) -> _Array:
    axes = call.attrs.axes
    return np.ascontiguousarray(value.transpose(None if axes is None else [int(a) for a in axes]))


_MOVED: dict[str, Callable[[relax.Call, _Array], _Array]] = {
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": _permute,
}
"""Operators that move the entries of one tensor and compute nothing."""

_COMPUTED: dict[str, Callable[..., _Array]] = {
    # What the importer makes of the bounds of every Clip.
    "relax.isnan": np.isnan,
    "relax.where": np.where,
    # What becomes of a normalisation whose factor is stored as integers.
    "relax.add": np.add,
    "relax.sqrt": np.sqrt,
}


@mutator
class _Simplifier(PyExprMutator):
    """Rewrites the calls of one function."""

    def __init__(self) -> None:
        super().__init__(None)
        self._known: dict[Any, _Array] = {}
        self._now: Any = None

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self._now = binding.var
        super().visit_var_binding_(binding)

    def _constant(self, operand: Any) -> _Array | None:
        """Give the value of an operand as it was before the pass; None where it is no constant."""
        if isinstance(operand, tvm.ir.Constant):
            return np.asarray(operand.value.numpy())
        return self._known.get(operand) if isinstance(operand, relax.Var) else None

    def visit_call_(self, call: relax.Call) -> Any:
        name = getattr(call.op, "name", "")
        if name in _MOVED:
            value = self._constant(call.args[0])
            # Integers are left alone: a weight that is stored as integers is read through its dequantisation.
            if value is not None and value.dtype == np.float32:
                self._known[self._now] = _MOVED[name](call, value)
                return relax.const(self._known[self._now])
        if name in _COMPUTED:
            values = [self._constant(operand) for operand in call.args]
            if all(value is not None for value in values):
                self._known[self._now] = np.asarray(_COMPUTED[name](*values))
                return relax.const(self._known[self._now])
        if name == "relax.nn.batch_norm" and not call.attrs.training:
            return self._normalised(call)
        return super().visit_call_(call)

    def _normalised(self, call: relax.Call) -> Any:
        """Write a batch normalisation as one multiplication and one addition per channel."""
        values = [self._constant(operand) for operand in call.args[1:]]
        new = super().visit_call_(call)
        if any(value is None for value in values):
            return new
        data, *rest = new.args
        scale, shift, mean, variance = (np.asarray(value, np.float64) for value in values)
        factor = (scale if call.attrs.scale else 1.0) / np.sqrt(variance + float(call.attrs.epsilon))
        term = (shift if call.attrs.center else 0.0) - mean * factor
        rank = len(data.ty.shape.values)
        shape = [1] * rank
        shape[int(call.attrs.axis) % rank] = -1
        multiplier, summand = (relax.const(v.reshape(shape).astype(np.float32)) for v in (factor, term))
        product = self.builder_.emit(relax.op.multiply(data, multiplier))
        return relax.Tuple([relax.op.add(product, summand), *rest[2:]])


@tvm.transform.module_pass(opt_level=0, name="SimplifyConstants")
class SimplifyConstants:
    """Module pass: constants that are only moved, and batch normalisation by constants, computed at once."""

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module."""
        new = {
            var: _Simplifier().visit_expr(function) if isinstance(function, relax.Function) else function
            for var, function in module.functions_items()
        }
        return tvm.IRModule(new, attrs=module.attrs)


def _constant_operands(operands: Sequence[Any]) -> bool:
    """Tell whether there are tensors among some operands, and all of them constants."""
    tensors = [o for o in operands if not isinstance(o, relax.ShapeExpr | tvm.ir.GlobalVar)]
    flat = [field for o in tensors for field in (o.fields if isinstance(o, relax.Tuple) else [o])]
    return bool(flat) and all(isinstance(o, tvm.ir.Constant) for o in flat)


@tvm.transform.module_pass(opt_level=0, name="FoldRemainingConstants")
class FoldRemainingConstants:
    """Module pass: TVM's FoldConstant, where anything is left to fold; it legalises all operators to find out."""

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give the module, folded."""
        left = any(
            isinstance(binding.value, relax.Call) and _constant_operands(binding.value.args)
            for _, function in module.functions_items()
            if isinstance(function, relax.Function)
            for block in function.body.blocks
            for binding in block.bindings
        )
        return relax.transform.FoldConstant()(module) if left else module
