from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from planner.accuracy import compare, hits
from planner.errors import InputError
from planner.judging import Judge, calibrated, cross_entropy, divergence, log_softmax

SCORES = arrays.arrays(np.float32, (6, 4), elements=st.floats(-8, 8, width=32))
UNKNOWN = np.full(6, -1)
RIGHT = np.array([0, 1, 2, 3, 0, 1])


def brier(scores, labels):
    likely = np.exp(log_softmax(scores))
    return ((likely - np.eye(likely.shape[1])[labels]) ** 2).sum(axis=1)


@given(SCORES, SCORES)
def test_divergence_is_never_negative_and_nothing_from_itself(one, other):
    assert (divergence(one, other) >= 0).all()
    assert divergence(one, one).max() < 1e-6


@given(SCORES, SCORES)
def test_divergence_is_the_cross_entropy_added_where_labels_are_drawn_from_the_exact_network(one, other):
    likely = np.exp(log_softmax(other))
    added = sum(
        likely[:, k] * (cross_entropy(one, np.full(6, k)) - cross_entropy(other, np.full(6, k))) for k in range(4)
    )
    np.testing.assert_allclose(divergence(one, other), added, atol=1e-5)


def test_calibration_finds_the_temperature_that_labels_were_drawn_at():
    random = np.random.default_rng(0)
    scores = random.normal(0, 2, (4000, 5)).astype(np.float32)
    likely = np.exp(log_softmax(scores / 2))
    labels = (likely.cumsum(axis=1) > random.random((4000, 1))).argmax(axis=1)
    assert np.abs(calibrated(scores, labels) - likely).max() < 0.05
    assert np.abs(np.exp(log_softmax(scores)) - likely).max() > 0.2


def test_expected_top1_agrees_with_counting_and_is_less_noisy():
    random = np.random.default_rng(1)
    exact = random.normal(0, 2, (20000, 5)).astype(np.float32)
    likely = np.exp(log_softmax(exact))
    labels = (likely.cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)
    found = compare(exact + random.normal(0, 0.7, exact.shape).astype(np.float32), exact, labels)
    assert found.top1_expected == pytest.approx(found.top1_change, abs=3 * found.top1_change_std)
    assert found.top1_expected < -1
    assert found.top1_expected_std < found.top1_change_std / 2


def test_without_labels_top1_is_agreement_and_the_loss_divergence():
    exact = np.eye(4, dtype=np.float32)[RIGHT % 4] * 3
    other = exact.copy()
    other[0] = other[0][::-1]
    found = compare(other, exact, UNKNOWN)
    assert found.top1_change == pytest.approx(-100 / 6)
    assert found.top1_expected == found.top1_change
    assert found.loss_raw == pytest.approx(divergence(other, exact).mean())
    assert hits(exact, UNKNOWN, exact).all()
    with pytest.raises(InputError, match="no labels"):
        hits(exact, UNKNOWN)


def test_a_metric_of_the_users_own_is_the_loss():
    exact, other = np.eye(4, dtype=np.float32)[RIGHT % 4] * 3, np.zeros((6, 4), np.float32)
    found = compare(other, exact, RIGHT, judge=Judge(metric=brier))
    assert found.loss_raw == pytest.approx((brier(other, RIGHT) - brier(exact, RIGHT)).mean())
    assert Judge(metric=brier).name(RIGHT) == "brier"
    assert Judge(metric=brier).digest != Judge(metric=lambda scores, labels: scores[:, 0]).digest
    assert Judge().digest == ""


@pytest.mark.parametrize(
    "metric",
    [
        lambda scores, labels: 1.0,
        lambda scores, labels: scores,
        lambda scores, labels: np.full(len(labels), np.nan),
        lambda scores, labels: np.array(["good"] * len(labels)),
    ],
)
def test_a_metric_that_gives_no_number_for_each_image_is_refused(metric):
    with pytest.raises(InputError, match=r"metric .*lambda.* expected a finite number for each of 6 images"):
        Judge(metric=metric).lost(np.zeros((6, 4), np.float32), np.zeros((6, 4), np.float32), RIGHT)


def test_a_metric_cannot_change_what_others_see():
    def greedy(scores, labels):
        scores[:] = 0
        labels[:] = 0
        return scores[:, 0]

    scores = np.ones((6, 4), np.float32)
    Judge(metric=greedy).lost(scores, scores, RIGHT)
    assert (scores == 1).all()
    assert RIGHT[1] == 1
