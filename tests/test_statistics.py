from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodels.statistics import estimate, spread


def test_the_error_of_a_median_is_how_much_medians_of_new_samples_differ() -> None:
    random = np.random.default_rng(0)
    errors = [estimate(random.normal(1000, 20, 25), seed=n).error for n in range(200)]
    medians = [np.median(random.normal(1000, 20, 25)) for _ in range(2000)]
    assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.15)


def test_outliers_reach_neither_the_median_nor_its_error() -> None:
    samples = np.random.default_rng(1).normal(1000, 10, 51)
    disturbed = samples.copy()
    disturbed[:8] *= 50
    calm, other = estimate(samples), estimate(disturbed)
    assert other.median == pytest.approx(calm.median, rel=0.01)
    assert other.error < 3 * calm.error
    assert other.spread < 2 * calm.spread


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=30), st.floats(0.1, 10))
def test_figures_scale_with_the_unit(values: list[float], unit: float) -> None:
    one, other = estimate(np.array(values)), estimate(unit * np.array(values))
    assert other.median == pytest.approx(unit * one.median)
    assert other.error == pytest.approx(unit * one.error, abs=1e-6 * unit * one.median)
    assert other.quantile(0.9) == pytest.approx(unit * one.quantile(0.9))
    assert min(values) <= one.median <= max(values)
    assert spread(np.array(values)) >= 0


def test_equal_samples_are_certain() -> None:
    found = estimate(np.full(9, 5.0))
    assert (found.median, found.spread, found.error) == (5.0, 0.0, 0.0)


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_samples_that_say_nothing_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite samples"):
        estimate(np.array(samples))
