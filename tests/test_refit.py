from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.epilogue import Epilogue
from planner.linear import Linear, Moments, moments, sample, values_at
from planner.refit import aim_at, ridge, solve


def layer(rng: np.random.Generator, outputs: int = 6, inputs: int = 5, *, bias: bool = True, groups: int = 1) -> Linear:
    return Linear(
        weight=rng.normal(size=(outputs, inputs // groups, 3, 3)).astype(np.float32) / 5,
        bias=rng.normal(size=outputs).astype(np.float32) if bias else None,
        pads=(1, 1, 1, 1),
        groups=groups,
    )


def outputs_of(linear: Linear, x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    parts = np.split(windows, linear.groups, axis=1)
    weights = np.split(linear.weight, linear.groups)
    found = [np.einsum("ncyxij,ocij->noyx", p, w, optimize=True) for p, w in zip(parts, weights, strict=True)]
    result = np.concatenate(found, axis=1)
    return result if linear.bias is None else result + linear.bias[None, :, None, None]


def at(linear: Linear, tensor: np.ndarray) -> np.ndarray:
    return values_at(tensor.astype(np.float32), linear, sample(linear, (1, *tensor.shape[1:]), len(tensor)))


def error(epilogue: Epilogue, made: np.ndarray, right: np.ndarray) -> float:
    return float(np.square(made.clip(epilogue.low, epilogue.high) - right.clip(epilogue.low, epilogue.high)).mean())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_that_can_give_what_is_wanted_are_found(rng: np.random.Generator, groups: int, *, bias: bool) -> None:
    right = layer(rng, 8, 4, groups=groups, bias=bias)
    wrong = layer(rng, 8, 4, groups=groups, bias=bias)
    x = rng.normal(size=(40, 4, 9, 8)).astype(np.float32)
    targets = at(right, outputs_of(right, x))
    aim = aim_at(wrong, x, output_shape=(1, 8, 9, 8), epilogue=Epilogue(), targets=targets)
    fitted = aim.fit(wrong)
    np.testing.assert_allclose(fitted.weight, right.weight, atol=5e-3)
    assert (fitted.bias is None) == (not bias)
    assert aim.error(fitted) < 1e-4 * aim.error(wrong)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(0.0, np.inf), (0.0, 1.0), (-np.inf, 0.5)]))
def test_no_step_behind_an_activation_makes_the_fit_worse(seed: int, bounds: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    right, wrong = layer(rng), layer(rng)
    x = rng.normal(size=(12, 5, 8, 8)).astype(np.float32)
    noisy = x + 0.5 * rng.normal(size=x.shape).astype(np.float32)
    epilogue = Epilogue(low=bounds[0], high=bounds[1])
    targets = at(right, outputs_of(right, x))
    aim = aim_at(wrong, noisy, output_shape=(1, 6, 8, 8), epilogue=epilogue, targets=targets)
    now = aim.step(wrong)
    for _ in range(5):
        following = aim.step(wrong, now)
        assert aim.error(following) <= aim.error(now) * (1 + 1e-2)
        now = following


def test_a_fit_that_knows_the_activation_is_right_behind_it(rng: np.random.Generator) -> None:
    right = layer(rng, 12)
    right = replace(right, bias=np.full(12, -1, np.float32))
    x = rng.normal(size=(40, 5, 10, 10)).astype(np.float32)
    noisy = x + 0.7 * rng.normal(size=x.shape).astype(np.float32)
    made, epilogue = outputs_of(right, x), Epilogue(low=0.0)
    common = {"output_shape": (1, 12, 10, 10), "targets": at(right, made)}
    plain = aim_at(right, noisy, epilogue=Epilogue(), **common).fit(right)
    knowing = aim_at(right, noisy, epilogue=epilogue, **common).fit(right)
    before, after = (error(epilogue, outputs_of(found, noisy), made) for found in (plain, knowing))
    assert after < 0.98 * before


def test_a_sum_is_made_right_where_what_is_added_has_changed(rng: np.random.Generator) -> None:
    right = layer(rng, 5, 5)
    x = rng.normal(size=(40, 5, 9, 9)).astype(np.float32)
    made, before = outputs_of(right, x), x
    present = x + 0.3 * np.roll(x, 1, axis=2)
    common = {"output_shape": (1, 5, 9, 9), "epilogue": Epilogue(addend="x"), "targets": at(right, made)}
    knowing = aim_at(right, x, addends=(before, present), **common).fit(right)
    alone = aim_at(right, x, **common).fit(right)
    wanted = made + before
    ours, theirs = (np.square(outputs_of(found, x) + present - wanted).mean() for found in (knowing, alone))
    assert ours < 0.2 * theirs


def test_without_targets_a_layer_aims_at_what_it_gives_itself(rng: np.random.Generator) -> None:
    linear = layer(rng)
    x = rng.normal(size=(10, 5, 8, 8)).astype(np.float32)
    aim = aim_at(linear, x, output_shape=(1, 6, 8, 8), epilogue=Epilogue(low=0.0), targets=None)
    assert aim.error(linear) < 1e-12
    np.testing.assert_allclose(aim.fit(linear).weight, linear.weight, atol=1e-4)


def test_the_ridge_grows_where_a_dense_layer_has_few_samples() -> None:
    def strength(rows: int, images: int) -> float:
        return ridge(100, Moments(gram=np.eye(101)[None], cross=None, rows=rows, images=images))

    assert strength(100, 100) > strength(1000, 1000) > strength(1000, 10)


def test_a_dense_layer_with_fewer_samples_than_inputs_is_drawn_to_its_old_weights(rng: np.random.Generator) -> None:
    old = Linear(weight=rng.normal(size=(4, 60)).astype(np.float32), bias=np.zeros(4, np.float32))
    x = rng.normal(size=(20, 60)).astype(np.float32)
    targets = (x @ old.weight.T + 0.1 * rng.normal(size=(20, 4)).astype(np.float32))[None]
    fitted = solve(old, moments(old, x, targets=targets))
    assert np.abs(fitted.weight - old.weight).max() < 0.1
    assert not np.array_equal(fitted.weight, old.weight)


def test_the_ridge_is_strong_where_there_is_nothing_to_learn_and_weak_where_there_is(rng: np.random.Generator) -> None:
    right, x = layer(rng, 4), rng.normal(size=(24, 5, 3, 3)).astype(np.float32)
    made = outputs_of(right, x)
    noise = rng.normal(size=made.shape).astype(np.float32)
    noisy = aim_at(right, x, output_shape=(1, 4, 3, 3), epilogue=Epilogue(), targets=at(right, made + noise))
    moved = layer(rng, 4)
    clean = aim_at(moved, x, output_shape=(1, 4, 3, 3), epilogue=Epilogue(), targets=at(right, made))
    ours, usual = (np.abs(found.weight - right.weight).max() for found in (noisy.fit(right), noisy.step(right)))
    assert ours < 0.7 * usual
    np.testing.assert_array_equal(clean.fit(moved).weight, clean.step(moved).weight)


def test_a_fit_needs_targets() -> None:
    linear = Linear(weight=np.ones((1, 2), np.float32), bias=None)
    with pytest.raises(ValueError, match="needs moments with targets"):
        solve(linear, moments(linear, np.ones((3, 2), np.float32)))
