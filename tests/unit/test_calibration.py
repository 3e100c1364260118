import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from seminar_utils.evaluation.calibration import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 200)
PROBS = RNG.dirichlet(np.ones(4) * 0.4, 200)


def test_nll_and_brier_are_scikit_learn_s():
    assert negative_log_likelihood(PROBS, LABELS) == pytest.approx(log_loss(LABELS, PROBS), abs=1e-12)
    theirs = brier_score_loss(LABELS, PROBS, labels=range(4), scale_by_half=False)
    assert brier_score(PROBS, LABELS) == pytest.approx(theirs, abs=1e-12)


def test_nll_and_brier_by_hand():
    probs = [[0.8, 0.2], [0.5, 0.5]]
    assert negative_log_likelihood(probs, [0, 1]) == pytest.approx(-(np.log(0.8) + np.log(0.5)) / 2)
    assert brier_score(probs, [0, 1]) == pytest.approx((2 * 0.2**2 + 2 * 0.5**2) / 2)
    assert brier_score([[1.0, 0.0]], [1]) == 2 and negative_log_likelihood([[1.0, 0.0]], [0]) == 0


def test_a_sure_mistake_is_dear_but_finite():
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == pytest.approx(36.04, abs=0.01)


def test_equal_mass_bins_hold_equally_many():
    table = reliability_bins(PROBS, LABELS, bins=7, equal_mass=True)
    assert table["count"].sum() == 200 and np.ptp(table["count"]) <= 1
    assert (np.diff(table["confidence"]) > 0).all()


def test_adaptive_ece_is_the_brute_force_sum():
    order = np.argsort(PROBS.max(1))
    confidence, correct = PROBS.max(1)[order], (PROBS.argmax(1) == LABELS)[order]
    parts = np.split(np.arange(200), 10)
    total = sum(abs(confidence[p].mean() - correct[p].mean()) * len(p) / 200 for p in parts)
    assert adaptive_calibration_error(PROBS, LABELS, bins=10) == pytest.approx(total)


def test_equal_confidences_share_a_bin_whatever_the_order_of_the_rows():
    probs, labels = np.array([[0.9, 0.1]] * 10), np.array([0] * 9 + [1])
    assert adaptive_calibration_error(probs, labels) == pytest.approx(0)
    shuffled = RNG.permutation(200)
    rounded = np.round(PROBS.max(1), 1)
    probs = np.stack([rounded, 1 - rounded], 1)
    right = (RNG.random(200) < rounded).astype(int)
    once = adaptive_calibration_error(probs, 1 - right)
    assert adaptive_calibration_error(probs[shuffled], 1 - right[shuffled]) == pytest.approx(once, abs=1e-12)


def test_opposite_errors_inside_one_wide_bin_are_seen_by_equal_mass_bins_only():
    """Half the samples 94% sure and always right, half 99% sure and right in 93%: one wide bin cancels it."""
    confidence = np.repeat([0.94, 0.99], 100)
    wrong = np.r_[np.zeros(100), np.arange(100) < 7].astype(int)
    probs = np.stack([confidence, 1 - confidence], 1)
    assert expected_calibration_error(probs, wrong, bins=15) < 0.005
    assert adaptive_calibration_error(probs, wrong, bins=2) == pytest.approx(0.06)
