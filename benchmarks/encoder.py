"""A transformer encoder as exporters write it, with random weights: what speed is measured on needs no training.

    python benchmarks/encoder.py encoder.onnx --layers 6

After Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), normalised behind each block as there, with the
Gaussian error linear unit of Hendrycks and Gimpel (2016) in the form with ``Erf``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class _Network:
    """Nodes and weights of an encoder while they are put together."""

    def __init__(self, width: int, seed: int) -> None:
        self.width = width
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: NDArray[np.generic], name: str) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        weight = self.rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        bias = self.rng.normal(0, 0.02, outputs).astype(np.float32)
        x = self.add("MatMul", [x, self.constant(weight, f"{name}.weight")], f"{name}.matmul")
        return self.add("Add", [self.constant(bias, f"{name}.bias"), x], f"{name}.add")

    def norm(self, x: str, name: str, *, decomposed: bool) -> str:
        gain = self.constant(self.rng.uniform(0.8, 1.2, self.width).astype(np.float32), f"{name}.gain")
        shift = self.constant(self.rng.normal(0, 0.1, self.width).astype(np.float32), f"{name}.shift")
        if not decomposed:
            return self.add("LayerNormalization", [x, gain, shift], f"{name}.norm", axis=-1, epsilon=1e-5)
        mean = self.add("ReduceMean", [x], f"{name}.mean", axes=[-1], keepdims=1)
        centred = self.add("Sub", [x, mean], f"{name}.centred")
        two = self.constant(np.float32(2.0), f"{name}.two")
        square = self.add("Pow", [centred, two], f"{name}.square")
        variance = self.add("ReduceMean", [square], f"{name}.variance", axes=[-1], keepdims=1)
        small = self.constant(np.float32(1e-5), f"{name}.small")
        deviation = self.add("Sqrt", [self.add("Add", [variance, small], f"{name}.lifted")], f"{name}.deviation")
        scaled = self.add("Mul", [self.add("Div", [centred, deviation], f"{name}.unit"), gain], f"{name}.scaled")
        return self.add("Add", [scaled, shift], f"{name}.norm")

    def attention(self, x: str, name: str, heads: int, sequence: int) -> str:
        depth = self.width // heads
        split = self.constant(np.array([1, sequence, heads, depth]), f"{name}.split")
        joined = self.constant(np.array([1, sequence, self.width]), f"{name}.joined")
        parts = {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            y = self.linear(x, f"{name}.{part}", self.width, self.width)
            y = self.add("Reshape", [y, split], f"{name}.{part}.reshape")
            parts[part] = self.add("Transpose", [y], f"{name}.{part}.transpose", perm=order)
        scores = self.add("MatMul", [parts["query"], parts["key"]], f"{name}.scores")
        root = self.constant(np.float32(depth**0.5), f"{name}.root")
        scores = self.add("Div", [scores, root], f"{name}.scaled")
        shares = self.add("Softmax", [scores], f"{name}.softmax", axis=-1)
        mixed = self.add("MatMul", [shares, parts["value"]], f"{name}.mixed")
        mixed = self.add("Transpose", [mixed], f"{name}.transpose", perm=[0, 2, 1, 3])
        mixed = self.add("Reshape", [mixed, joined], f"{name}.reshape")
        return self.linear(mixed, f"{name}.output", self.width, self.width)

    def gelu(self, x: str, name: str) -> str:
        root = self.constant(np.float32(2**0.5), f"{name}.root")
        error = self.add("Erf", [self.add("Div", [x, root], f"{name}.div")], f"{name}.erf")
        lifted = self.add("Add", [error, self.constant(np.float32(1.0), f"{name}.one")], f"{name}.lifted")
        product = self.add("Mul", [x, lifted], f"{name}.product")
        return self.add("Mul", [product, self.constant(np.float32(0.5), f"{name}.half")], f"{name}.gelu")


def encoder(
    layers: int = 6,
    width: int = 384,
    heads: int = 6,
    sequence: int = 64,
    seed: int = 0,
    *,
    decomposed: bool = False,
) -> onnx.ModelProto:
    """Make a transformer encoder.

    Args:
        layers: Blocks of attention and of two dense layers.
        width: Features of a token; the inner dense layer has four times as many.
        heads: Heads of the attention.
        sequence: Tokens.
        seed: Seed of the weights.
        decomposed: Whether layer normalisation is written out, as exporters did before operator set 17.

    Returns:
        A model from ``(1, sequence, width)`` to the same, float32.

    Raises:
        ValueError: The heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}")
    net = _Network(width, seed)
    x = "tokens"
    for layer in range(layers):
        name = f"layer{layer}"
        attended = net.attention(x, f"{name}.attention", heads, sequence)
        x = net.norm(net.add("Add", [attended, x], f"{name}.skip1"), f"{name}.norm1", decomposed=decomposed)
        inner = net.gelu(net.linear(x, f"{name}.up", width, 4 * width), f"{name}.gelu")
        inner = net.linear(inner, f"{name}.down", 4 * width, width)
        x = net.norm(net.add("Add", [inner, x], f"{name}.skip2"), f"{name}.norm2", decomposed=decomposed)
    shape = [1, sequence, width]
    graph = helper.make_graph(
        net.nodes,
        "encoder",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        net.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def main() -> int:
    """Write an encoder to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the ONNX file to write")
    for name, value in (("layers", 6), ("width", 384), ("heads", 6), ("sequence", 64), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--decomposed", action="store_true", help="write layer normalisation out")
    arguments = vars(parser.parse_args())
    onnx.save(encoder(**{key: value for key, value in arguments.items() if key != "path"}), arguments["path"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
