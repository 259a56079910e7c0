"""The arena that is put together for a plan is the one that its artefact has, to the byte."""

from __future__ import annotations

import networks
import numpy as np
import pytest
from networks import images, saved

from planner import compiler, rewrite
from planner.artefact import Artefact
from planner.calibration import Calibration
from planner.choices import applicable
from planner.graph import read
from planner.masks.costs import random_plan
from planner.measuring.memory import study
from planner.measuring.structure import Structures
from planner.segments import Entry, Network

APPROXIMATIONS = ["int8"]


@pytest.fixture(scope="module", params=["residual"])
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Give a network, its choices, its rewritten layers, and its memory scripts."""
    source = getattr(networks, request.param)()
    graph = read(saved(source, tmp_path_factory.mktemp("network"), request.param))
    choices = applicable(graph, APPROXIMATIONS)
    calibration = Calibration(graph, images(source, 8), equalise=False)
    structures, target = Structures(calibration), compiler.host_target()
    seen = []
    for name in dict.fromkeys(name for offered in choices.values() for name in offered):
        plan = {layer: name if name in offered else "exact" for layer, offered in choices.items()}
        rewritten = rewrite.apply(graph, plan, calibration, refit=False)
        structures.remember(rewritten)
        entry = Entry(name=graph.name, model=rewritten.model, nodes=rewritten.nodes)
        seen.append((plan, compiler.outline(entry, target)))
    told: list[tuple[int, int]] = []
    scripts = study(
        graph,
        choices,
        seen,
        lambda plan: compiler.outline(structures.entry(plan), target),
        mixes=2,
        seed=0,
        tell=lambda done, of: told.append((done, of)),
    )
    assert told[-1][0] == told[-1][1]
    return graph, choices, calibration, structures, scripts


def test_what_is_put_together_agrees_with_what_is_planned(known) -> None:
    *_, scripts = known
    assert scripts is not None
    assert scripts.slack_bytes == 0
    assert scripts.checked > 4


def test_an_artefact_has_the_arena_that_is_promised(known) -> None:
    from costmodels.composing import compose

    graph, choices, calibration, _, scripts = known
    random = np.random.default_rng(3)
    for _ in range(2):
        plan = random_plan(graph, choices, random)
        rewritten = rewrite.apply(graph, plan, calibration, refit=True)
        entry = Entry(name="network", model=rewritten.model, nodes=rewritten.nodes)
        compiled = compiler.compile_networks([entry], compiler.host_target())
        network = Network(entry)
        given = np.zeros(network.shape(network.input), np.float32)
        trace = Artefact(compiled.executable).trace("network", given)
        composed = compose(scripts, plan)
        assert composed.exact
        assert composed.bytes == trace.activation_bytes


def test_a_network_put_together_from_known_layers_is_the_rewritten_one(known) -> None:
    graph, choices, calibration, structures, _ = known
    plan = random_plan(graph, choices, np.random.default_rng(5))
    rewritten = rewrite.apply(graph, plan, calibration, refit=False)
    entry = structures.entry(plan)
    assert [node.op_type for node in entry.model.graph.node] == [n.op_type for n in rewritten.model.graph.node]
    assert {layer: len(nodes) for layer, nodes in entry.nodes.items()} == {
        layer: len(nodes) for layer, nodes in rewritten.nodes.items()
    }


def test_a_network_whose_operators_give_several_tensors_has_no_scripts(known, caplog) -> None:
    from dataclasses import replace

    graph, choices, _, structures, _ = known
    target = compiler.host_target()
    plan = dict.fromkeys(choices, "exact")
    unreadable = replace(compiler.outline(structures.entry(plan), target), operations=None)
    found = study(graph, choices, [(plan, unreadable)], lambda _: unreadable, mixes=1, seed=0, tell=lambda *_: None)
    assert found is None
    assert "gives several tensors" in caplog.text
