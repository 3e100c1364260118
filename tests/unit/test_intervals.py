import numpy as np
import pytest

from seminar_utils.evaluation.intervals import bootstrap_interval, paired_difference, seed_interval
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
