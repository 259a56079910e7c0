from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.linear import Linear, Moments, moments
from planner.storage.powers import fitted
from planner.storage.rounding import Codebook, Problem, Steps, fitted_codebook, fitted_steps, rounded, shift
from planner.storage.storing import clustered, in_steps


def layer(outputs: int, inputs: int, rows: int = 400, seed: int = 0) -> tuple[Linear, Moments, np.ndarray]:
    """A product whose inputs have to do with each other, and those inputs."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, inputs)).astype(np.float32)
    linear = Linear(weight=weight, bias=np.zeros(outputs, np.float32))
    x = (rng.normal(size=(rows, inputs)) @ rng.normal(size=(inputs, inputs)) / np.sqrt(inputs) + 0.5).astype(np.float32)
    return linear, moments(linear, x), x


def error(problem: Problem, values: np.ndarray) -> float:
    return float(problem.error(np.asarray(values, np.float64)).sum())


@settings(max_examples=15, deadline=None)
@given(outputs=st.integers(1, 6), inputs=st.integers(2, 48), bits=st.integers(2, 4), seed=st.integers(0, 999))
def test_outputs_change_less_than_with_weights_rounded_each_by_itself(outputs, inputs, bits, seed) -> None:
    linear, found, _ = layer(outputs, inputs, seed=seed)
    problem = Problem.of(linear.matrix, found)
    steps, scale = fitted_steps(problem, np.arange(inputs) // 16, bits=bits, largest=15)
    result = rounded(problem, steps, scale)
    naive = np.stack([steps.nearest(problem.weights[:, i] / scale, i) for i in range(inputs)], axis=1)
    assert error(problem, result.values) <= error(problem, naive * scale[:, None]) * (1 + 1e-9)
    step = steps.multipliers[:, steps.groups]
    assert np.all(result.whole % step == 0)
    assert np.all(np.abs(result.whole / step + 0.5) <= 2 ** (bits - 1))


def test_rounding_by_outputs_nearly_halves_the_error_of_related_inputs() -> None:
    linear, found, _ = layer(16, 64)
    problem = Problem.of(linear.matrix, found)
    book, scale = fitted_codebook(problem, 8)
    result = rounded(problem, book, scale)
    naive = book.nearest(problem.weights / scale[:, None], 0) * scale[:, None]
    assert error(problem, result.values) < 0.6 * error(problem, naive)


def test_weights_on_a_grid_stay_as_they_are() -> None:
    whole = np.random.default_rng(0).integers(-8, 8, (5, 24))
    whole[:, 0] = -8
    weight = (whole * np.float32(0.25)).astype(np.float32)
    linear = Linear(weight=weight, bias=None)
    found = moments(linear, np.random.default_rng(1).normal(size=(200, 24)).astype(np.float32))
    problem = Problem.of(linear.matrix, found)
    steps = Steps(multipliers=np.ones((5, 1), np.int64), groups=np.zeros(24, np.int64), bits=4)
    result = rounded(problem, steps, np.full(5, 0.25))
    np.testing.assert_allclose(result.values, weight, atol=1e-6)


def test_the_shift_keeps_the_means_of_outputs() -> None:
    linear, found, x = layer(8, 32)
    coded = in_steps(linear, found, 1, bits=3, block=32)
    change = shift(linear.matrix, coded.values.astype(np.float64), found)
    before, after = x @ linear.matrix.T, x @ coded.values.T + change
    assert np.abs((x @ coded.values.T - before).mean(axis=0)).max() > 1e-3
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_inputs_that_are_never_there_and_weights_that_are_zero_are_no_trouble(bits: int) -> None:
    linear, _, x = layer(4, 32)
    linear.weight[1] = 0
    x[:, 3:9] = 0
    found = moments(linear, x)
    for coded in (in_steps(linear, found, 1, bits=bits, block=16), clustered(linear, found, 1, bits=bits)):
        assert np.isfinite(coded.values).all()
        assert not np.any(coded.values[1])
        problem = Problem.of(linear.matrix, found)
        assert error(problem, coded.values) < 0.2 * error(problem, np.zeros_like(coded.values))


def test_inputs_that_are_all_zero_leave_weights_near_what_they_are() -> None:
    linear, _, x = layer(4, 16)
    coded = in_steps(linear, moments(linear, x * 0), 1, bits=4, block=16)
    assert np.abs(coded.values - linear.matrix).max() < 0.35 * np.abs(linear.matrix).max()


@pytest.mark.parametrize(("positions", "block"), [(1, 32), (4, 32), (9, 36), (16, 64)])
def test_groups_of_a_flattened_map_are_whole_channels_in_fours(positions: int, block: int) -> None:
    linear, found, _ = layer(3, 4 * positions * 16, rows=64)
    coded = in_steps(linear, found, positions, bits=4, block=32)
    assert coded.block == block
    assert np.abs(coded.numbers.astype(int)).max() <= 120


def test_a_codebook_is_of_ordered_whole_numbers_and_gives_the_nearest() -> None:
    linear, found, _ = layer(8, 64)
    book, _ = fitted_codebook(Problem.of(linear.matrix, found), 16)
    assert isinstance(book, Codebook)
    assert np.all(np.diff(book.levels) >= 0)
    assert np.abs(book.levels).max() == 127
    wanted = np.linspace(-200, 200, 97)
    nearest = book.nearest(wanted, 0)
    np.testing.assert_allclose(np.abs(wanted - nearest), np.abs(wanted[:, None] - book.levels).min(axis=1))


@pytest.mark.parametrize(("inputs", "there"), [(40, True), (64, False)])
def test_a_table_has_a_zero_where_kernels_fill_blocks_of_inputs_up(inputs: int, *, there: bool) -> None:
    linear, found, _ = layer(8, inputs, seed=3)
    coded = clustered(linear, found, 1, bits=2)
    assert coded.table is not None
    assert (0 in coded.table) == there


def test_more_powers_of_two_come_nearer() -> None:
    rng = np.random.default_rng(0)
    filters = rng.normal(size=(6, 16, 3, 3)).astype(np.float32)
    linear = Linear(weight=filters, bias=None)
    _, found, _ = layer(6, 16 * 9)
    problem = Problem.of(linear.matrix, found)
    whole = error(problem, np.zeros((6, 144)))
    shares = [error(problem, fitted(problem, filters.shape, kept).values.reshape(6, -1)) / whole for kept in (1, 2, 4)]
    assert shares[0] < 0.8
    assert shares[1] < 0.5 * shares[0]
    assert shares[2] < 0.1
