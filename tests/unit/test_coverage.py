"""Do the 95% intervals keep their promise? Each is asked 1,000 times about data whose truth is known."""

import numpy as np
import pytest

from seminar_utils.evaluation.hierarchy import seeds_and_images_spread, spread
from seminar_utils.evaluation.intervals import bootstrap_interval, seed_interval

TRIALS = 1000


def mean(values):
    return values.mean(axis=-1)


def coverage(draw, truth, trials=TRIALS, **options):
    """Share of trials whose interval for the mean holds the truth; `draw` gives values and cluster ids."""
    options = {"statistic": mean, "vectorized": True, "n_boot": 400} | options
    found = (
        bootstrap_interval(values, clusters=ids, **options) for values, ids in (draw() for _ in range(trials))
    )
    return np.mean([interval.low <= truth <= interval.high for interval in found])


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_mean_of_skewed_data(method):
    rng = np.random.default_rng(0)
    share = coverage(lambda: (rng.exponential(size=400), None), 1.0, method=method)
    assert 0.93 <= share <= 0.97


def test_accuracy_as_the_course_measures_it():
    rng = np.random.default_rng(1)
    share = coverage(lambda: ((rng.random(150) < 0.8).astype(float), None), 0.8)
    assert 0.93 <= share <= 0.97


def test_paired_difference_of_two_accuracies():
    """Two answers to the same images, right together more often than by chance; the gain is 5 points."""
    rng = np.random.default_rng(2)

    def draw():
        luck = rng.random(200)
        return (luck < 0.8).astype(float) - (np.where(rng.random(200) < 0.8, luck, rng.random(200)) < 0.75), None

    assert 0.93 <= coverage(draw, 0.05) <= 0.97


def patients(rng, people=60, images=6):
    """Images of one patient share half of their variance: 360 images, 60 patients, the true mean is zero."""
    values = rng.normal(size=(people, 1)) + rng.normal(size=(people, images))
    return values.ravel(), np.repeat(np.arange(people), images)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_images_of_patients_need_the_clustered_bootstrap(method):
    rng = np.random.default_rng(3)
    assert 0.93 <= coverage(lambda: patients(rng), 0.0, method=method) <= 0.97


def test_images_of_patients_taken_as_independent_are_wrong_in_every_third_interval():
    rng = np.random.default_rng(4)
    assert coverage(lambda: (patients(rng)[0], None), 0.0) < 0.75


def crossed(rng, seeds, of_seeds, of_images, images=80):
    """What each of `seeds` networks scores on the same images: both matter, the true mean is zero."""
    shared = of_images * rng.normal(size=images)
    return shared + of_seeds * rng.normal(size=(seeds, 1)) + 0.5 * rng.normal(size=(seeds, images))  # (S, N)


def covered(rng, seeds, of_seeds, of_images):
    """Three shares: seeds and images together; seeds alone; the first network's images alone."""
    hits = []
    for _ in range(TRIALS):
        scores = crossed(rng, seeds, of_seeds, of_images)
        rows = rng.integers(0, scores.shape[1], (200, scores.shape[1]))
        table = scores[:, rows].mean(-1).T  # (S, n_boot, N) -> (n_boot, S)
        both = spread(table, scores.mean(1), scores.shape[1]).interval(0.95)
        over_seeds = seed_interval(scores.mean(1))
        over_images = np.quantile(table[:, 0], [0.025, 0.975])
        ends = [(both.low, both.high), (over_seeds.low, over_seeds.high), over_images]
        hits.append([low <= 0 <= high for low, high in ends])
    return np.mean(hits, axis=0)


@pytest.mark.parametrize(("seeds", "of_seeds", "of_images"), [(3, 0.05, 1.0), (5, 0.1, 1.0), (10, 0.2, 1.0)])
def test_seeds_and_images_together_cover_where_either_alone_does_not(seeds, of_seeds, of_images):
    both, over_seeds, over_images = covered(np.random.default_rng(seeds), seeds, of_seeds, of_images)
    assert 0.93 <= both <= 0.97
    assert over_seeds < 0.92
    if of_seeds >= 0.1:
        assert over_images < 0.92


def test_the_simulated_spread_is_the_one_that_users_get():
    """The loop above builds the table of resamples by itself: same formula, so about the same error."""
    rng = np.random.default_rng(0)
    scores = crossed(rng, 4, 0.1, 1.0)
    labels = np.zeros(80, int)
    users = seeds_and_images_spread([(labels, row) for row in scores], lambda _, v: v.mean(), n_boot=2000)
    rows = rng.integers(0, 80, (2000, 80))
    ours = spread(scores[:, rows].mean(-1).T, scores.mean(1), 80)
    assert users.estimate == pytest.approx(ours.estimate) and users.error == pytest.approx(ours.error, rel=0.06)
