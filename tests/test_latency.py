from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from costmodels.latency import fit
from costmodels.statistics import spread


def test_finds_the_overhead_factor_and_dispatch_that_made_the_times() -> None:
    kernels = np.array([1000.0, 2000.0, 1500.0, 4000.0])
    calls = np.array([4.0, 9.0, 12.0, 7.0])
    model = fit(kernels, calls, 300.0 + 1.25 * kernels + 20.0 * calls)
    assert model.overhead_ns == pytest.approx(300)
    assert model.factor == pytest.approx(1.25)
    assert model.dispatch_ns == pytest.approx(20)
    assert model.worst_error == pytest.approx(0, abs=1e-9)
    assert model.layer_ns(100.0, calls=2) == pytest.approx(165)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
@example(count=3, seed=180)  # kernels and totals unrelated: the fit gave kernels no weight at all
def test_no_network_that_was_measured_exceeds_its_prediction(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernels, calls = rng.uniform(100, 10000, count), rng.integers(1, 40, count).astype(float)
    totals = (50 + kernels + 10 * calls) * rng.uniform(0.8, 1.3, count)
    model = fit(kernels, calls, totals)
    assert min(model.overhead_ns, model.factor, model.dispatch_ns) >= 0
    assert model.reserve >= 1
    layers = np.array([model.layer_ns(k, calls=c) for k, c in zip(kernels, calls, strict=True)])
    assert np.all(totals <= model.overhead_ns + model.reserve * layers + 1e-6 * totals)


def test_of_two_networks_only_the_overhead_is_fitted() -> None:
    model = fit(np.array([100.0, 300.0]), np.array([1.0, 9.0]), np.array([150.0, 370.0]))
    assert (model.factor, model.dispatch_ns, model.overhead_ns) == (1.0, 0.0, 60.0)


@pytest.mark.parametrize("totals", [[], [0.0], [10.0, -1.0]])
def test_times_that_are_not_positive_are_refused(totals: list[float]) -> None:
    ones = np.ones(len(totals))
    with pytest.raises(ValueError, match="positive times"):
        fit(ones, ones, np.array(totals))


def test_the_spread_is_the_standard_deviation_and_outliers_do_not_reach_it() -> None:
    samples = np.random.default_rng(0).normal(1000, 10, 2001)
    assert spread(samples) == pytest.approx(10, rel=0.1)
    samples[:50] *= 100
    assert spread(samples) == pytest.approx(10, rel=0.15)
