import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from seminar_utils.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    expected_calibration_error,
    gain_rate,
    harm_rate,
    per_class_recall,
    per_group,
    predicted_class_entropy,
    reliability_bins,
    summary,
    worst_group,
)
from seminar_utils.runtime import SeminarError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 200)
PREDICTIONS = np.where(RNG.random(200) < 0.6, LABELS, RNG.integers(0, 4, 200))
PROBS = RNG.dirichlet(np.ones(4) * 0.4, 200)


def test_accuracies_agree_with_scikit_learn():
    assert accuracy(LABELS, PREDICTIONS) == pytest.approx((LABELS == PREDICTIONS).mean())
    assert balanced_accuracy(LABELS, PREDICTIONS) == pytest.approx(balanced_accuracy_score(LABELS, PREDICTIONS))
    assert balanced_accuracy(torch.tensor(LABELS), PREDICTIONS.tolist()) > 0


def test_a_class_without_samples_is_nan_and_does_not_count():
    recall = per_class_recall([0, 0, 2], [0, 1, 2], num_classes=4)
    assert recall[0] == 0.5 and recall[2] == 1 and np.isnan(recall[[1, 3]]).all()
    assert balanced_accuracy([0, 0, 2], [0, 1, 2]) == 0.75


def test_prevalence_does_not_buy_balanced_accuracy():
    labels = [0] * 90 + [1] * 10
    assert accuracy(labels, [0] * 100) == 0.9 and balanced_accuracy(labels, [0] * 100) == 0.5


def test_ece_by_hand():
    probs = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]
    assert expected_calibration_error(probs, [0, 0, 1, 1], bins=10) == pytest.approx(0.5 * 0.1 + 0.5 * 0.6)


def test_ece_is_the_brute_force_sum():
    confidence, correct = PROBS.max(1), PROBS.argmax(1) == LABELS
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert expected_calibration_error(PROBS, LABELS) == pytest.approx(total)


def test_reliability_bins_cover_every_sample_and_leave_empty_bins_nan():
    table = reliability_bins(PROBS, LABELS, bins=15)
    assert table["count"].sum() == 200
    assert np.isnan(table["accuracy"][table["count"] == 0]).all()


def test_predicted_class_entropy_is_one_for_all_classes_and_zero_for_one():
    assert predicted_class_entropy([0, 1, 2, 3], 4) == pytest.approx(1)
    assert predicted_class_entropy([2, 2, 2], 4) == 0


def test_harm_counts_only_what_was_right_before():
    assert harm_rate([0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]) == 0.5


def test_summary_has_the_four_numbers():
    assert set(summary(PROBS, LABELS)) == {"accuracy", "balanced_accuracy", "ece", "predicted_class_entropy"}


def test_stored_numbers_of_the_lessons_do_not_move():
    rng = np.random.default_rng(11)
    labels, probs = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3) * 0.5, 90)
    assert summary(probs, labels) == {
        "accuracy": 0.4111111111111111,
        "balanced_accuracy": 0.4152330153006285,
        "ece": 0.31296762719476023,
        "predicted_class_entropy": 0.9958549382669746,
    }
    bins = reliability_bins(probs, labels, 7)
    assert bins["count"].tolist() == [0, 0, 3, 13, 30, 20, 24]
    assert bins["confidence"][-1] == 0.9331201582273972 and bins["accuracy"][3] == 0.46153846153846156
    assert expected_calibration_error(probs, labels, 9) == 0.3129676271947603


def test_gain_minus_harm_is_the_change_of_accuracy():
    before = np.where(RNG.random(200) < 0.5, LABELS, 0)
    gain, harm = gain_rate(LABELS, before, PREDICTIONS), harm_rate(LABELS, before, PREDICTIONS)
    assert gain > 0 and harm > 0
    assert gain - harm == pytest.approx(accuracy(LABELS, PREDICTIONS) - accuracy(LABELS, before))


def test_the_worst_group_is_found_whichever_way_is_better():
    groups = np.array(["A", "B", "B", "C", "C", "C"])
    labels, answers = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]
    assert per_group(accuracy, groups, labels, answers) == {"A": 1, "B": 0.5, "C": pytest.approx(2 / 3)}
    assert worst_group(accuracy, groups, labels, answers) == ("B", 0.5)
    assert worst_group(accuracy, groups, labels, answers, higher_is_better=False) == ("A", 1)


def test_a_tensor_on_any_device_is_taken():
    assert accuracy(torch.tensor([0, 1]), torch.tensor([0, 1], requires_grad=False)) == 1
    probs = torch.tensor([[0.2, 0.8]], requires_grad=True)
    assert expected_calibration_error(probs, torch.tensor([1])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: accuracy([], []),
        lambda: accuracy([0, 1], [0]),
        lambda: accuracy([0.5], [0.5]),
        lambda: expected_calibration_error([[0.9, 0.3]], [0]),
        lambda: expected_calibration_error([[np.nan, 1.0]], [0]),
        lambda: expected_calibration_error([[0.5, 0.5]], [2]),
        lambda: predicted_class_entropy([0, 5], 4),
        lambda: predicted_class_entropy([0], 1),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(SeminarError):
        call()
