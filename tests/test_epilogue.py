from __future__ import annotations

import math
from collections import Counter

import networks
import numpy as np
import pytest

from planner.calibration import Calibration
from planner.epilogue import Epilogue, epilogue_of
from planner.graph import read


def found(folder, *operators: str, twice: str = "") -> Epilogue:
    """The epilogue of a convolution that is followed by some operators, one of whose results is read twice."""
    b = networks.Builder((1, 4, 6, 6))
    stem = b.add("Relu", [b.conv("image", "stem", (4, 4, 1, 1))], name="stem_relu")
    x = b.conv(stem, "conv", (4, 4, 3, 3), pads=[1, 1, 1, 1])
    made = {"conv": x}
    for op in operators:
        if op == "Add":
            x = b.add("Add", [stem, x], name="add")
        elif op == "Shift":
            x = b.add("Add", [x, b.constant(np.ones((1, 4, 1, 1), np.float32), "one")], name="shift")
        elif op == "Clip":
            x = b.add("Clip", [x, b.constant(np.float32(-1), "low"), b.constant(np.float32(6), "high")], name="clip")
        else:
            x = b.add(op, [x], name=op.lower())
        made[op] = x
    if twice:
        x = b.add("Mul", [x, b.add("Sigmoid", [made[twice]], name="gate")], name="gated")
    x = b.add("GlobalAveragePool", [x], name="pool")
    graph = read(networks.saved(b.model(b.add("Flatten", [x], name="flat")), folder))
    return Calibration(graph, networks.images(graph.model, 2)).epilogue("conv")


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ((), Epilogue()),
        (("Relu",), Epilogue(low=0.0)),
        (("Clip",), Epilogue(low=-1.0, high=6.0)),
        (("Sigmoid",), Epilogue()),
        (("Shift", "Relu"), Epilogue(low=0.0)),
        (("Add",), Epilogue(addend="stem_relu:0")),
        (("Add", "Relu"), Epilogue(addend="stem_relu:0", low=0.0)),
        (("Add", "Tanh"), Epilogue(addend="stem_relu:0")),
        (("Relu", "Add"), Epilogue(low=0.0)),
    ],
)
def test_sums_and_activations_are_read_in_their_order(operators: tuple[str, ...], expected: Epilogue, tmp_path) -> None:
    assert found(tmp_path, *operators) == expected


def test_what_is_read_before_its_activation_has_none(tmp_path) -> None:
    assert found(tmp_path, "Relu", twice="conv") == Epilogue()
    assert found(tmp_path, "Add", "Relu", twice="conv") == Epilogue()
    assert found(tmp_path, "Add", "Relu", twice="Add") == Epilogue(addend="stem_relu:0")


def test_a_sum_with_itself_is_no_sum_with_another(tmp_path) -> None:
    b = networks.Builder((1, 4, 6, 6))
    x = b.conv("image", "conv", (4, 4, 1, 1))
    node = [b.nodes[-1]]
    b.add("Add", [x, x], name="double")
    assert epilogue_of([*node, b.nodes[-1]], Counter({x: 2}), {}) == Epilogue()


def test_behind_a_constant_that_is_added_every_value_counts() -> None:
    b = networks.Builder((1, 3, 4))
    x = b.add("MatMul", ["image", "weight"], name="product")
    b.add("Relu", [b.add("Add", [x, "bias"], name="sum")], name="relu")
    assert epilogue_of(b.nodes, Counter({x: 1, "sum:0": 1}), {"bias": np.ones(5, np.float32)}) == Epilogue()


def test_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the first to be less"):
        Epilogue(low=1.0, high=0.0)
    assert not Epilogue(low=-math.inf).bounded
