"""Bad input to metrics, intervals, differences and the report card: one clear SeminarError, or NaN with reason."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import torch

from seminar_utils.evaluation import calibration, differences, hierarchy, metrics, ranking, report, segmentation
from seminar_utils.evaluation.checks import Undefined, reasons
from seminar_utils.evaluation.intervals import bootstrap_interval, resample
from seminar_utils.evaluation.report_rules import Limits
from seminar_utils.evaluation.results import ResultsStore
from seminar_utils.runtime import SeminarError

Y, P = np.array([0, 1, 1, 0]), np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]])
MASK = np.array([[0, 1], [1, 1]])


def mean(values):
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        # labels and predictions
        (lambda: metrics.accuracy([], []), "N > 0"),
        (lambda: metrics.accuracy([0, 1], [0]), "differ in length: 2 and 1"),
        (lambda: metrics.accuracy([0.0, 1.0], [0, 1]), "integers of shape"),
        (lambda: metrics.accuracy([[0], [1]], [0, 1]), r"\(2, 1\)"),
        (lambda: metrics.accuracy(["a", "b"], [0, 1]), "integers of shape"),
        (lambda: metrics.gain_rate(Y, Y[:2], Y), "differ in length"),
        (lambda: metrics.per_class_recall([0, 5], [0, 1], 2), r"\[0, 2\), got 0 to 5"),
        (lambda: metrics.balanced_accuracy([-1, 0], [0, 0]), "got -1 to 0"),
        (lambda: metrics.worst_group(metrics.accuracy, ["A"], Y, Y), "one group a row"),
        (lambda: metrics.per_group(metrics.accuracy, [], [], []), "one group a row"),
        # probabilities and scores
        (lambda: metrics.summary(P * 2, Y), "sum to 1"),
        (lambda: metrics.summary(np.array([[2.0, -1.0]] * 4), Y), "should not be negative"),
        (lambda: metrics.summary(np.where(P == 0.2, np.nan, P), Y), "finite"),
        (lambda: metrics.summary(P, Y + 1), r"integers in \[0, 2\)"),
        (lambda: calibration.brier_score(P[:3], Y), "labels should be 3 integers"),
        (lambda: calibration.negative_log_likelihood(P[:, 0], Y), r"\(N, K\)"),
        (lambda: calibration.reliability_bins(P, Y, bins=0), "at least one bin, got 0"),
        (lambda: ranking.auroc(Y, [0.1, np.nan, 0.2, 0.3]), "4 finite numbers"),
        (lambda: ranking.auroc(Y, [0.1, 0.2]), "4 finite numbers"),
        (lambda: ranking.auprc([0, 1, 2], [0.1, 0.2, 0.3]), "0 or 1; got 0 to 2"),
        (lambda: ranking.auroc(Y, ["a", "b", "c", "d"]), "finite numbers"),
        (lambda: ranking.threshold_at_specificity(Y, P[:, 1], 1.5), r"\[0, 1\], got 1.5"),
        # masks
        (lambda: segmentation.dice(MASK, MASK[:1]), r"target \(2, 2\), prediction \(1, 2\)"),
        (lambda: segmentation.iou(MASK * 2, MASK), "mask of 0 and 1"),
        (lambda: segmentation.dice(np.array([[0.3, np.nan]]), MASK[:1]), "mask of 0 and 1"),
        (lambda: segmentation.dice(np.zeros((0, 4), bool), np.zeros((0, 4), bool)), "with cells in it"),
        (lambda: segmentation.hd95(MASK, MASK, spacing=(1.0, 1.0, 1.0)), "2 positive numbers"),
        (lambda: segmentation.hd95(MASK, MASK, spacing=(1.0, 0.0)), "positive numbers"),
        (lambda: segmentation.hd95(MASK, MASK, percentile=950), r"\[0, 100\], got 950"),
        (lambda: segmentation.per_class_dice(MASK, MASK * 3, 2), r"prediction should be integers in \[0, 2\)"),
        # intervals
        (lambda: bootstrap_interval(Y, statistic=mean, method="bcas"), "did you mean 'bca'"),
        (lambda: bootstrap_interval(Y, statistic=mean, level=95), "between 0 and 1, got 95"),
        (lambda: bootstrap_interval(Y, statistic=mean, n_boot=0), "n_boot 0"),
        (lambda: bootstrap_interval(Y, statistic=mean, clusters=[1, 1, 2]), "each of the 4 rows"),
        (lambda: bootstrap_interval(Y, statistic=mean, clusters=["p"] * 4), "at least two clusters, all 4 rows"),
        (lambda: resample(Y, statistic=mean, clusters=[1, 2, 2, 2], vectorized=True), "clusters of one size"),
        (lambda: hierarchy.seeds_and_images([(Y, Y)], metrics.accuracy), "at least two runs, got 1"),
        (lambda: hierarchy.seeds_and_images([(Y, Y), (1 - Y, Y)], metrics.accuracy), "labels differ"),
        (lambda: hierarchy.seeds_and_images([(Y, Y), (Y, Y[:2])], metrics.accuracy), "aligned arrays"),
        (lambda: hierarchy.seeds_and_images([(Y, Y)] * 2, metrics.accuracy, method="z"), "unknown method"),
        # differences
        (lambda: differences.is_real([0.1], [0.2]), "at least two values"),
        (lambda: differences.is_real([0.1, 0.2], [0.2]), "equal lengths, got 2 and 1"),
        (lambda: differences.is_real(P, P), "give the labels too"),
        (lambda: differences.is_real([0.1, 0.2], [0.2, 0.3], clusters=[0, 1]), "labels are missing"),
        (lambda: differences.is_real(Y, Y[:3], Y), "aligned arrays"),
        (lambda: differences.is_real([Y, Y], [Y], Y, seeds=True), "as many runs before as after"),
        (lambda: differences.are_real(Y, {}, Y), "at least one method"),
        (lambda: differences.holm([0.2, 1.2]), r"p-values in \[0, 1\]"),
        (lambda: differences.holm([]), "p-values"),
        # the report card
        (lambda: report.report_card(Y, P, P[:3]), "3 integers"),
        (lambda: report.report_card(Y, P, np.full((4, 3), 1 / 3)), "before and after differ in shape"),
        (lambda: report.report_card(Y, P, class_names=("a", "b", "c")), "3 class names"),
        (lambda: report.report_card(Y, P, positive=2), "one of 0 to 1, got 2"),
        (lambda: report.report_card(Y, P, groups=["A"]), "one group a row"),
        (lambda: report.report_card(Y, P, val_labels=[0, 2], val_after=np.full((2, 3), 1 / 3)), "3 classes"),
        (lambda: Limits(auroc=85), r"\[0, 1\], got \{'auroc': 85\}"),
    ],
)
def test_bad_input_is_one_clear_error(call, words):
    with pytest.raises(SeminarError, match=words):
        call()


def every_undefined_metric():
    """name -> a metric asked where its formula divides by nothing."""
    empty = np.zeros((3, 3), bool)
    ones, scores = np.ones(4, int), np.arange(4) / 4
    return {
        "auroc": ranking.auroc(ones, scores),
        "auprc": ranking.auprc(1 - ones, scores),
        "macro auroc": ranking.auroc(ones, np.full((4, 3), 1 / 3)),
        "threshold": ranking.threshold_at_specificity(ones, scores, 0.9),
        "sensitivity": ranking.at_threshold(1 - ones, scores, 0.5).sensitivity,
        "specificity": ranking.at_threshold(ones, scores, 0.5).specificity,
        "dice": segmentation.dice(empty, empty),
        "iou": segmentation.iou(empty, empty),
        "hd95": segmentation.hd95(empty, ~empty),
        "surface": segmentation.mean_surface_distance(~empty, empty),
        "worst group": metrics.worst_group(lambda y: float("nan"), ["A", "B"], [0, 1])[1],
    }


def test_what_is_undefined_is_nan_with_a_reason_and_makes_no_noise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = every_undefined_metric()
    assert all(np.isnan(value) and len(value.reason) > 15 for value in values.values())
    assert set(reasons({**values, "fine": 0.5, "plain nan": float("nan")})) == set(values)


def test_the_reason_survives_copies_and_pickles_and_reads_well():
    value = Undefined("both masks are empty")
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert np.isnan(other) and other.reason == value.reason
    assert str(value) == "nan (both masks are empty)" and f"{value:.2f}" == "nan" and np.isnan(value + 1)


def test_the_results_store_keeps_it_as_null(tmp_path):
    store = ResultsStore(tmp_path / "rows.jsonl")
    store.append("faults", {}, every_undefined_metric())
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert set(json.loads(line)["metrics"].values()) == {None}


def test_a_class_that_is_missing_leaves_every_other_number_alone():
    labels, probs = np.array([0, 0, 1, 1]), np.eye(3)[[0, 1, 1, 1]] * 0.7 + 0.1
    recall = metrics.per_class_recall(labels, probs.argmax(1), 3)
    assert recall[:2].tolist() == [0.5, 1] and np.isnan(recall[2])
    areas = ranking.per_class_auroc(labels, probs)
    assert np.isfinite(areas[:2]).all() and "here are 0 and 4" in areas[2].reason
    assert ranking.auroc(labels, probs) == pytest.approx(np.mean(areas[:2]))


def test_a_difference_of_something_undefined_says_so():
    found = differences.is_real([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [1, 1, 1], statistic=ranking.auroc)
    assert not found.real and found.sentence.startswith("Cannot be judged: auroc is undefined here")
    several = differences.are_real([0.1, 0.2, 0.3], {"a": [0.4, 0.5, 0.6]}, [1, 1, 1], statistic=ranking.auroc)
    assert np.isnan(several["a"].adjusted_p) and not several["a"].real
    seeds = differences.is_real([[0.1, 0.2]] * 2, [[0.3, 0.4]] * 2, [1, 1], seeds=True, statistic=ranking.auroc)
    assert not seeds.real and "Cannot be judged" in seeds.sentence
    numbers = differences.is_real([0.5, np.nan, 0.6], [0.6, 0.7, 0.8])
    assert not numbers.real and "Cannot be judged" in numbers.sentence


def test_a_tensor_that_needs_a_gradient_is_taken():
    probs = torch.tensor(P, requires_grad=True)
    assert metrics.summary(probs, torch.tensor(Y))["accuracy"] == 0.75
    assert segmentation.dice(torch.tensor(MASK), torch.tensor(MASK).float()) == 1
