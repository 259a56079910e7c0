from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Problem, Status, get
from solvers.check import broken, values
from solvers.instances.generate import TOPOLOGIES, generate


def _edges(problem: Problem) -> list[tuple[int, int]]:
    return list(zip(problem.pairs.source.tolist(), problem.pairs.target.tolist(), strict=True))


def test_the_same_arguments_make_the_same_instance() -> None:
    arguments = {"models": 2, "layers": (4, 9), "topology": "skips", "pairs": True, "peaks": True}
    assert generate(3, **arguments).digest == generate(3, **arguments).digest
    assert generate(3, **arguments).digest != generate(4, **arguments).digest


def test_pairs_and_peaks_leave_the_layers_as_they_are() -> None:
    bare = generate(5, models=2, layers=(4, 9))
    full = generate(5, models=2, layers=(4, 9), topology="branches", pairs=True, peaks=True)
    for one, other in zip(bare.rows, full.rows, strict=True):
        assert one.options.tolist() == other.options.tolist()
        assert one.costs.tolist() == other.costs.tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    models=st.integers(1, 3),
    layers=st.integers(1, 6),
    options=st.integers(1, 14),
    topology=st.sampled_from(TOPOLOGIES),
    pairs=st.booleans(),
    peaks=st.booleans(),
    share=st.sampled_from([0.0, 0.2, 0.35, 1.0]),
)
def test_a_choice_keeps_all_bounds_that_are_asked_for(
    seed, models, layers, options, topology, pairs, peaks, share
) -> None:
    problem = generate(
        seed,
        models=models,
        layers=layers,
        options=options,
        topology=topology,
        pairs=pairs,
        peaks=peaks,
        latency=share,
        memory=share,
    )
    uniform = itertools.product(range(options), repeat=models)
    assert any(not broken(problem, np.repeat(taken, layers).tolist()) for taken in uniform)
    exact = values(problem, [0] * problem.groups)
    assert exact[0] == 0
    assert share < 1 or not broken(problem, [0] * problem.groups)


def test_bounds_below_the_least_possible_make_it_infeasible() -> None:
    for bound in ({"latency": -0.01}, {"memory": -0.01}):
        assert get("exhaustive").solve(generate(0, layers=4, options=4, **bound)).status is Status.INFEASIBLE


def test_chains_connect_each_layer_with_the_next_of_its_model() -> None:
    problem = generate(0, models=2, layers=4, pairs=True)
    assert _edges(problem) == [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]


def test_skips_reach_over_two_to_four_layers() -> None:
    edges = _edges(generate(1, layers=200, topology="skips", pairs=True))
    over = [target - source for source, target in edges]
    assert over.count(1) == 199
    assert set(over) == {1, 2, 3, 4}
    assert len(set(edges)) == len(edges)


def test_branches_fork_into_two_to_four_and_join_again() -> None:
    edges = _edges(generate(1, layers=300, topology="branches", pairs=True))
    assert all(source < target for source, target in edges)
    out = np.bincount([source for source, _ in edges], minlength=300)
    into = np.bincount([target for _, target in edges], minlength=300)
    # Every layer but the network's input reads something; what is cut off at the end has fewer readers.
    assert (into[1:] >= 1).all()
    assert set(out[:280]) == {1, 2, 3, 4}
    assert set(into[1:280]) == {1, 2, 3, 4}
    forks = np.flatnonzero(out[:280] > 1)
    assert (out[forks][:-1] == into[forks][1:]).all()
    assert set(np.flatnonzero(into[:280] > 1)) <= set(forks)


def test_edges_cost_time_of_their_model_where_formats_differ_and_loss_where_int8_meets_int8() -> None:
    problem = generate(2, models=2, layers=5, options=3, pairs=True)
    alike, unlike = values(problem, [1] * 10), values(problem, [1] * 9 + [0])
    row = problem.rows[2]
    own = dict(zip(row.options.tolist(), row.costs.tolist(), strict=True))
    exact_ns = own[3 * 8]
    assert unlike[2] - alike[2] == own[3 * 9] - own[3 * 9 + 1] + int(np.ceil(0.02 * exact_ns)) + 3000
    assert unlike[1] == alike[1]
    losses = problem.rows[0]
    alone = sum(cost for option, cost in zip(losses.options, losses.costs, strict=True) if option % 3 == 2)
    assert values(problem, [2] * 10)[0] > alone


def test_the_arena_of_skips_holds_what_is_alive_at_the_worst_step() -> None:
    problem = generate(4, layers=30, options=4, topology="skips", pairs=True, peaks=True)
    (arena,) = problem.peaks
    sizes = dict(zip(arena.options.tolist(), arena.costs.tolist(), strict=True))
    choices = np.random.default_rng(0).integers(0, 4, 30).tolist()
    last = list(range(30))
    for source, target in _edges(problem):
        last[source] = max(last[source], target)
    worst = max(sum(sizes[4 * u + choices[u]] for u in range(step + 1) if last[u] >= step) for step in range(30))
    memory = problem.rows[problem.row("memory")]
    weights = dict(zip(memory.options.tolist(), memory.costs.tolist(), strict=True))
    total = sum(weights[4 * group + choice] for group, choice in enumerate(choices))
    assert values(problem, choices)[problem.row("memory")] == total + worst


def test_milder_options_lose_less_and_save_less() -> None:
    problem = generate(7, layers=2000, options=4)
    loss, latency, memory = (np.zeros((2000, 4)) for _ in range(3))
    for array, row in zip((loss, latency, memory), problem.rows, strict=True):
        array.ravel()[row.options] = row.costs
    # float16, int8, int4 beside float32, as the catalogue has them.
    assert (np.diff(loss.mean(axis=0)) > 0).all()
    assert (np.diff(latency.mean(axis=0)) < 0).all()
    assert (np.diff(memory.mean(axis=0)) < 0).all()
    assert loss.max() > 30 * np.median(loss[:, 3])


def test_a_hundred_thousand_groups_are_made_at_once() -> None:
    problem = generate(0, models=100, layers=1000, pairs=True)
    assert problem.groups == 100_000
    assert len(problem.pairs) == 99_900
    assert max(problem.most()) < 2**51


@pytest.mark.parametrize(
    "wrong", [{"models": 0}, {"layers": 0}, {"layers": (5, 4)}, {"options": 0}, {"topology": "ring"}]
)
def test_numbers_that_make_no_instance_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected"):
        generate(0, **wrong)
