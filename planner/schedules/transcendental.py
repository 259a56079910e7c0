"""Exponential, error function, hyperbolic tangent and what is made of them, as arithmetic that vectorises.

The compiler turns ``exp``, ``erf`` and ``tanh`` into one call of the C library an element.  Here they are short
polynomials and quotients instead, right to a few units in the last place of float32 for every finite argument.
The exponential reduces its argument to half a binade on either side of zero (Cody and Waite, *Software Manual for
the Elementary Functions*, 1980, chapter 6).  ``erf(x)`` and ``tanh(x)`` are ``x`` times a quotient of polynomials
in ``x`` squared, fitted for the least relative error by Lawson's iteratively reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from planner.schedules.rewriter import ELEMENTWISE

if TYPE_CHECKING:
    from planner.schedules.rewriter import Rewriter

_EXP_DEGREE = 6
_EXP_RANGE = (-87.33654, 88.37626)
"""Arguments between which the exponential is a normal float32; beyond them it stays what it is there."""
_SHIFT = 12582912.0
"""1.5 times 2^23: added to a float32 below 2^22 it leaves the nearest integer in the lowest bits."""
_LN2 = (0.693359375, -2.12194440e-4)
"""The logarithm of 2 in two parts, the first short enough that its small multiples are exact."""

_ERF_EDGE = 3.9192059
_ERF = (
    (1.1283791, 0.19037533, 0.052745175, 0.0037644254, 2.8488171e-4, 2.0506773e-6),
    (1.0, 0.5020485, 0.11409675, 0.014966825, 0.0011622935, 3.8097744e-5),
)
_TANH_EDGE = 9.02
_TANH = (
    (1.0, 0.14099215, 0.0044259564, 4.2273914e-5, 1.1117699e-7, 3.674486e-11),
    (1.0, 0.47432548, 0.029201118, 5.0083554e-4, 2.6038704e-6, 2.9512084e-9),
)


def _constant(value: float) -> Any:
    return tirx.const(float(np.float32(value)), "float32")


def _horner(x: Any, coefficients: Sequence[float]) -> Any:
    """Evaluate a polynomial whose coefficients are given from the lowest on."""
    value = _constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + _constant(coefficient)
    return value


def _once(value: Any, body: Callable[[Any], Any]) -> Any:
    """Name a value that an expression needs several times, so that it is written down once."""
    name = tirx.Var("v", "float32")
    return tirx.Let(name, value, body(name))


def _clamped(x: Any, low: float, high: float) -> Any:
    return tirx.max(tirx.min(x, _constant(high)), _constant(low))


def _exp_coefficients() -> list[float]:
    """Interpolate the exponential in the Chebyshev nodes of the reduced range, which is as good as least error."""
    edge = float(np.log(2)) / 2
    fitted = np.polynomial.Chebyshev.interpolate(np.exp, _EXP_DEGREE, domain=[-edge, edge])
    return [float(c) for c in fitted.convert(kind=np.polynomial.Polynomial).coef]


def exp(x: Any) -> Any:
    """Give the exponential of a float32 expression."""
    coefficients = _exp_coefficients()
    bias = int(np.float32(_SHIFT).view(np.int32)) - 127

    def of_whole(x: Any, shifted: Any) -> Any:
        whole = shifted - _constant(_SHIFT)
        rest = x - whole * _constant(_LN2[0]) - whole * _constant(_LN2[1])
        power = (tirx.reinterpret("int32", shifted) - tirx.const(bias, "int32")) << tirx.const(23, "int32")
        return _once(rest, lambda r: _horner(r, coefficients)) * tirx.reinterpret("float32", power)

    def of_clamped(x: Any) -> Any:
        shifted = x * _constant(1 / np.log(2)) + _constant(_SHIFT)
        return _once(shifted, lambda s: of_whole(x, s))

    return _once(_clamped(x, *_EXP_RANGE), of_clamped)


def _odd_quotient(x: Any, edge: float, quotient: tuple[Sequence[float], Sequence[float]]) -> Any:
    above, below = quotient

    def of_clamped(x: Any) -> Any:
        return _once(x * x, lambda u: x * _horner(u, above) / _horner(u, below))

    return _once(_clamped(x, -edge, edge), of_clamped)


def erf(x: Any) -> Any:
    """Give the error function of a float32 expression."""
    return _odd_quotient(x, _ERF_EDGE, _ERF)


def tanh(x: Any) -> Any:
    """Give the hyperbolic tangent of a float32 expression."""
    return _odd_quotient(x, _TANH_EDGE, _TANH)


def sigmoid(x: Any) -> Any:
    """Give ``1 / (1 + exp(-x))`` of a float32 expression."""
    return _constant(1) / (_constant(1) + exp(-x))


def _silu(x: Any) -> Any:
    return _once(x, lambda v: v * sigmoid(v))


def _gelu(x: Any) -> Any:
    return _once(x, lambda v: v * _constant(0.5) * (_constant(1) + erf(v * _constant(np.sqrt(0.5)))))


def _gelu_tanh(x: Any) -> Any:
    def of(v: Any) -> Any:
        inner = v * _constant(np.sqrt(2 / np.pi)) * (_constant(1) + v * v * _constant(0.044715))
        return v * _constant(0.5) * (_constant(1) + tanh(inner))

    return _once(x, of)


_POWERS: dict[float, tuple[str, Callable[[Any], Any]]] = {
    2.0: ("square", lambda x: _once(x, lambda v: v * v)),
    3.0: ("cube", lambda x: _once(x, lambda v: v * v * v)),
    0.5: ("square_root", tirx.sqrt),
}
"""Powers by a constant that need no logarithm."""

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "relax.exp": exp,
    "relax.erf": erf,
    "relax.tanh": tanh,
    "relax.sigmoid": sigmoid,
    "relax.nn.silu": _silu,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
}


def elementwise(data: te.Tensor, *, function: Callable[[Any], Any], name: str) -> te.Tensor:
    """Describe a function of each element."""
    return te.compute(data.shape, lambda *index: function(data[index]), name=name)


def _apply(rewriter: Rewriter, var: relax.Var, source: Any, name: str, function: Callable[[Any], Any]) -> bool:
    """Apply a function to a float32 tensor, in the blocked layout where its operand is so."""
    if not isinstance(source, relax.Var) or str(var.ty.dtype) != "float32":
        return False
    blocked = rewriter.blocked.get(source)
    data = rewriter.as_plain(source) if blocked is None else blocked[0]
    result = rewriter.call(elementwise, data, hint=name, pattern=ELEMENTWISE, function=function, name=name)
    if blocked is None:
        rewriter.plain[var] = result
    else:
        rewriter.blocked[var] = (result, blocked[1])
    return True


def lower_function(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a function of one tensor."""
    return _apply(rewriter, var, call.args[0], call.op.name.split(".")[-1], _FUNCTIONS[call.op.name])


def lower_power(rewriter: Rewriter, var: relax.Var, call: relax.Call) -> bool:
    """Lower a power by a constant that needs no logarithm."""
    exponent = rewriter.constants.of(call.args[1])
    if exponent is None or exponent.values.size != 1 or float(exponent.values.reshape(())) not in _POWERS:
        return False
    name, function = _POWERS[float(exponent.values.reshape(()))]
    return _apply(rewriter, var, call.args[0], name, function)


LOWERINGS = {**dict.fromkeys(_FUNCTIONS, lower_function), "relax.power": lower_power}
