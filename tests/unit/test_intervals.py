import numpy as np
import pytest
from scipy import stats

from seminar_utils.evaluation.intervals import bootstrap_interval, paired_difference, resample, seed_interval
from seminar_utils.evaluation.metrics import accuracy, balanced_accuracy, expected_calibration_error
from seminar_utils.evaluation.ranking import auroc
from seminar_utils.runtime import SeminarError


def test_bootstrap_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap_interval(values, statistic=np.mean, n_boot=2000)
    error = values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)


def test_bootstrap_resamples_rows_together_and_is_seeded():
    labels = np.arange(50) % 2
    same = bootstrap_interval(labels, labels, statistic=lambda a, b: float((a == b).mean()), n_boot=50)
    assert same.low == same.high == 1
    draws = [bootstrap_interval(labels, statistic=np.mean, n_boot=50, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_seed_interval_is_students_t():
    interval = seed_interval([0.80, 0.84, 0.88])
    assert interval.mean == pytest.approx(0.84)
    assert interval.high - interval.mean == pytest.approx(4.302653 * 0.04 / np.sqrt(3), rel=1e-5)


def test_seed_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(1000, 3))
    covered = [(i := seed_interval(row)).low <= 0 <= i.high for row in draws]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_pairing_finds_a_gain_that_separate_intervals_hide():
    before, after = [0.70, 0.80, 0.90], [0.72, 0.82, 0.921]
    assert seed_interval(before).high > seed_interval(after).low
    assert paired_difference(before, after).excludes_zero()


@pytest.mark.parametrize(
    "call",
    [
        lambda: seed_interval([0.5]),
        lambda: paired_difference([1, 2], [1, 2, 3]),
        lambda: bootstrap_interval(np.ones(1), statistic=np.mean),
        lambda: bootstrap_interval(np.ones(3), np.ones(4), statistic=np.mean),
    ],
)
def test_too_little_to_say_anything_is_an_error(call):
    with pytest.raises(SeminarError):
        call()


def test_bounds_cut_the_interval_of_a_share():
    interval = seed_interval([0.1, 0.9], bounds=(0, 1))
    assert (interval.mean, interval.low, interval.high) == (0.5, 0, 1)


def seeded_answers():
    rng = np.random.default_rng(11)
    labels, probs = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3) * 0.5, 90)
    predictions = probs.argmax(1)
    return labels, probs, predictions, np.where(rng.random(90) < 0.3, labels, predictions)


def test_stored_numbers_of_the_lessons_do_not_move():
    """Values recorded before the bootstrap learnt about clusters and BCa; lessons' outputs were made with them."""
    labels, probs, predictions, other = seeded_answers()

    def gain(y, a, b):
        return accuracy(y, b) - accuracy(y, a)

    one = bootstrap_interval(labels, predictions, statistic=balanced_accuracy, n_boot=200)
    assert (one.mean, one.low, one.high) == (0.4152330153006285, 0.3153644163703833, 0.5101201104592129)
    two = bootstrap_interval(probs, labels, statistic=expected_calibration_error, n_boot=100, seed=5, level=0.9)
    assert (two.mean, two.low, two.high) == (0.31296762719476023, 0.24519333711761077, 0.3978823046434137)
    three = bootstrap_interval(labels, predictions, other, statistic=gain, n_boot=300)
    assert (three.mean, three.low, three.high) == (0.1777777777777778, 0.10000000000000003, 0.2555555555555556)
    four = seed_interval([0.71, 0.82, 0.85, 0.79], bounds=(0, 1))
    assert (four.mean, four.low, four.high) == (0.7925, 0.6966956795574953, 0.8883043204425046)
    five = paired_difference([0.7, 0.8, 0.9], [0.72, 0.85, 0.91])
    assert (five.mean, five.low, five.high) == (0.026666666666666655, -0.02504478345875587, 0.07837811679208918)


def test_bca_is_scipy_s():
    skewed = np.random.default_rng(0).exponential(size=60)
    ours = bootstrap_interval(skewed, statistic=np.mean, n_boot=9000, method="bca")
    theirs = stats.bootstrap((skewed,), np.mean, n_resamples=9000, method="BCa").confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    plain = bootstrap_interval(skewed, statistic=np.mean, n_boot=9000)
    assert ours.low > plain.low + 0.02 and ours.high > plain.high + 0.02  # moved towards the long tail


def test_bca_of_a_paired_difference_and_of_clusters():
    labels, _, before, after = seeded_answers()

    def gain(y, a, b):
        return accuracy(y, b) - accuracy(y, a)

    for clusters in (None, np.arange(90) // 4):
        found = bootstrap_interval(labels, before, after, statistic=gain, method="bca", clusters=clusters)
        assert found.low < found.mean < found.high and found.note == ""


def test_a_vectorized_statistic_gives_the_same():
    values, clusters = np.random.default_rng(3).normal(size=60), np.repeat(np.arange(20), 3)
    for options in ({}, {"clusters": clusters}, {"method": "bca"}, {"clusters": clusters, "method": "bca"}):
        slow = bootstrap_interval(values, statistic=np.mean, n_boot=100, **options)
        fast = bootstrap_interval(values, statistic=lambda v: v.mean(-1), n_boot=100, vectorized=True, **options)
        assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), abs=1e-12)


def test_whole_clusters_are_drawn():
    """Eight clusters of unequal size; every resample holds each cluster's rows a whole number of times."""
    clusters = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 8])[np.random.default_rng(0).permutation(36)]
    seen = []
    resample(
        clusters, statistic=lambda c: seen.append(np.bincount(c, minlength=8)) or 0.0, n_boot=50, clusters=clusters
    )
    counts = np.array(seen)
    assert (counts % np.arange(1, 9) == 0).all() and ((counts / np.arange(1, 9)).sum(1) == 8).all()


def test_clusters_of_one_row_are_the_plain_bootstrap():
    values = np.random.default_rng(3).normal(size=30)
    plain = bootstrap_interval(values, statistic=np.mean)
    assert bootstrap_interval(values, statistic=np.mean, clusters=np.arange(30)) == plain


def test_resamples_without_a_class_are_left_out_and_told():
    labels, scores = np.array([1, 1, 1] + [0] * 40), np.linspace(1, 0, 43)
    few = bootstrap_interval(labels, scores, statistic=auroc, n_boot=400)  # (40/43)^43 is 4%
    assert np.isfinite([few.low, few.high]).all() and "of 400 resamples undefined" in few.note
    one = bootstrap_interval(labels[2:], scores[2:], statistic=auroc, n_boot=400)
    assert np.isnan(one.low) and "resamples undefined" in one.note
    none = bootstrap_interval(labels[:3], scores[:3], statistic=auroc, n_boot=50)
    assert np.isnan([none.mean, none.low, none.high]).all() and none.note


def test_bca_of_what_never_varies_says_so():
    found = bootstrap_interval(np.ones(9), statistic=np.mean, method="bca")
    assert (found.low, found.high) == (1, 1) and "BCa is undefined" in found.note
