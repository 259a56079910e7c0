"""Shipped networks with every form of storage in some layer: bytes as counted, values as ONNX has them."""

from __future__ import annotations

import numpy as np
import pytest
from entries import compiled
from networks import run

import planner
from planner.calibration import Calibration
from planner.choices import modules
from planner.rewrite import EXACT, applicable, apply
from planner.segments import Entry

IMAGES = 64
FORMS = tuple(name for name, module in modules().items() if module.KIND == "storage")


@pytest.mark.parametrize(("name", "first"), [("quick", 0), ("resnet8", 1), ("vggs", 4), ("resnet8", 6)])
def test_mixed_forms_of_storage_take_the_bytes_that_were_counted(name: str, first: int) -> None:
    model = planner.load(planner.shipped(f"models/{name}.onnx"), data=planner.shipped("fashion_mnist.npz"))
    images = model.data().inputs("calibration", first=IMAGES)
    offered = applicable(model.graph, FORMS)
    chosen, turn = {}, first
    for layer, choices in offered.items():
        forms = [choice for choice in choices if choice != EXACT]
        chosen[layer] = forms[turn % len(forms)] if forms else EXACT
        turn += bool(forms)
    assert len(set(chosen.values())) > 3
    found = apply(model.graph, chosen, Calibration(model.graph, images))
    entry = Entry(name="net", model=found.model, nodes=found.nodes)
    _, artefact = compiled(entry)
    # The classifier's ten outputs are filled up to a block of 16, its scales and biases are not.
    last = [layer for layer, choices in offered.items() if len(choices) > 1][-1]
    filled = found.parameter_bytes[last] - 4 * 10 * (2 if chosen[last] not in {"fp16w", EXACT} else 1)
    table = {"cluster@16": 16, "cluster@8": 8, "cluster@4": 4}.get(chosen[last], 0)
    expected = sum(found.parameter_bytes.values()) + (filled - table) * 6 // 10
    assert artefact.trace("net", images[:1]).weight_bytes == expected
    reference = run(found.model, images[:3])
    np.testing.assert_allclose(artefact.run("net", images[:3]), reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_forms_of_storage_are_all_there() -> None:
    assert set(FORMS) == {"fp16w", "int8w", "int4w", "intw", "cluster", "po2"}
