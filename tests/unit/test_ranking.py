import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from seminar_utils.evaluation.checks import Undefined
from seminar_utils.evaluation.ranking import (
    at_threshold,
    auprc,
    auroc,
    per_class_auprc,
    per_class_auroc,
    sensitivity_at_specificity,
    threshold_at_specificity,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 300)
SCORES = np.round(LABELS + RNG.normal(0, 1.2, 300), 1)  # rounded: many ties
MANY = RNG.integers(0, 4, 300)
PROBS = RNG.dirichlet(np.ones(4), 300) * 0.6 + 0.4 * np.eye(4)[MANY]


def test_binary_values_are_scikit_learn_s_with_ties():
    assert auroc(LABELS, SCORES) == pytest.approx(roc_auc_score(LABELS, SCORES), abs=1e-12)
    assert auprc(LABELS, SCORES) == pytest.approx(average_precision_score(LABELS, SCORES), abs=1e-12)
    assert auroc([0, 1, 1, 0], [0.5] * 4) == 0.5


def test_two_columns_are_the_score_of_class_one():
    p = 1 / (1 + np.exp(-SCORES))
    assert auroc(LABELS, np.stack([1 - p, p], 1)) == pytest.approx(auroc(LABELS, SCORES))
    assert auprc(torch.tensor(LABELS), torch.tensor(np.stack([1 - p, p], 1))) == pytest.approx(
        auprc(LABELS, SCORES)
    )


def test_macro_one_against_rest_is_scikit_learn_s():
    theirs = roc_auc_score(MANY, PROBS, multi_class="ovr", average="macro")
    assert auroc(MANY, PROBS) == pytest.approx(theirs, abs=1e-12)
    areas = [average_precision_score(MANY == k, PROBS[:, k]) for k in range(4)]
    assert per_class_auprc(MANY, PROBS) == pytest.approx(areas) and auprc(MANY, PROBS) == pytest.approx(
        np.mean(areas)
    )


def test_a_class_without_samples_says_so_and_is_not_averaged_as_zero():
    some = MANY != 3
    values = per_class_auroc(MANY[some], PROBS[some])
    assert isinstance(values[3], Undefined) and "here are 0 and" in values[3].reason
    assert auroc(MANY[some], PROBS[some]) == pytest.approx(np.mean(values[:3]))


def test_one_class_alone_is_undefined_with_its_reason():
    for metric in (auroc, auprc):
        for labels in ([0, 0, 0], [1, 1, 1]):
            value = metric(labels, [0.1, 0.2, 0.3])
            assert np.isnan(value) and "positives and negatives" in value.reason
        assert "every class" in metric([2, 2], [[0.2, 0.3, 0.5]] * 2).reason


@pytest.mark.parametrize("specificity", [0.0, 0.07, 0.5, 0.9, 0.95, 1.0])
def test_the_threshold_is_the_lowest_that_keeps_the_specificity(specificity):
    threshold = threshold_at_specificity(LABELS, SCORES, specificity)
    assert at_threshold(LABELS, SCORES, threshold).specificity >= specificity
    lower = SCORES[SCORES < threshold]  # any lower threshold calls one more value positive
    if len(lower):
        assert at_threshold(LABELS, SCORES, lower.max()).specificity < specificity


def test_exact_shares_are_not_lost_to_rounding():
    scores = np.arange(100.0)  # 0.07 * 100 is 7.000000000000001 in floating point
    assert threshold_at_specificity(np.zeros(100, int), scores, 0.07) == 6


def test_sensitivity_agrees_with_the_roc_curve():
    false_positive, sensitivity, _ = roc_curve(LABELS, SCORES, drop_intermediate=False)
    point = sensitivity_at_specificity(LABELS, SCORES, LABELS, SCORES, 0.9)
    assert point.sensitivity == pytest.approx(sensitivity[false_positive <= 0.1].max())


def test_the_threshold_comes_from_validation_and_never_from_test():
    val_labels, val_scores = np.array([0] * 10 + [1]), np.arange(11) / 10
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.95, 0.1, 0.85, 0.2])
    point = sensitivity_at_specificity(val_labels, val_scores, labels, scores, 0.9)
    assert (point.threshold, point.sensitivity, point.specificity) == (0.8, 0.5, 0.5)


def test_rates_of_an_absent_class_are_undefined():
    assert "no positive" in at_threshold([0, 0], [0.1, 0.9], 0.5).sensitivity.reason
    assert "no negative" in at_threshold([1, 1], [0.1, 0.9], 0.5).specificity.reason
    point = sensitivity_at_specificity([1, 1], [0.1, 0.9], [0, 1], [0.2, 0.3])
    assert all("validation has none" in v.reason for v in (point.threshold, point.sensitivity, point.specificity))
