import numpy as np
import pytest
from scipy import stats

from seminar_utils.evaluation.differences import are_real, bootstrap_p, correct, holm, is_real
from seminar_utils.evaluation.hierarchy import Spread, seeds_and_images
from seminar_utils.evaluation.intervals import bootstrap_interval, paired_difference, resample
from seminar_utils.evaluation.metrics import accuracy
from seminar_utils.evaluation.ranking import auroc

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 300)


def answers(skill, rng=RNG):
    return np.where(rng.random(300) < skill, LABELS, rng.integers(0, 3, 300))


BEFORE, BETTER, SAME = answers(0.5), answers(0.8), answers(0.5)


def test_a_clear_gain_over_images_is_real_and_in_words():
    found = is_real(BEFORE, BETTER, LABELS, statistic=accuracy)
    assert found.real and found.interval.mean == pytest.approx(accuracy(LABELS, BETTER) - accuracy(LABELS, BEFORE))
    assert found.sentence.startswith("Yes, it is real and better: accuracy +0.")
    assert "300 images taken as independent" in found.sentence and "p < 0.001" in str(found)
    worse = is_real(BETTER, BEFORE, LABELS)
    assert worse.real and "WORSE" in worse.sentence and worse.interval.high < 0


def test_lower_may_be_better():
    assert "real and better" in is_real(BETTER, BEFORE, LABELS, higher_is_better=False).sentence


def test_no_difference_is_not_shown_and_says_what_else_fits():
    found = is_real(BEFORE, SAME, LABELS)
    assert not found.real and found.p > 0.05
    assert found.sentence.startswith("Not shown: balanced accuracy") and "fit the data as well" in found.sentence
    nothing = is_real(BEFORE, BEFORE, LABELS)
    assert not nothing.real and nothing.p == 1


def test_the_interval_is_the_paired_bootstrap_s():
    def gain(y, a, b):
        return accuracy(y, b) - accuracy(y, a)

    for options in ({}, {"method": "bca"}, {"clusters": np.arange(300) // 5}):
        theirs = bootstrap_interval(LABELS, BEFORE, BETTER, statistic=gain, n_boot=300, **options)
        assert is_real(BEFORE, BETTER, LABELS, statistic=accuracy, n_boot=300, **options).interval == theirs


def test_p_and_interval_agree():
    """The p of the bootstrap is below 0.05 where its 95% interval excludes zero, up to one resample."""
    for shift in np.linspace(0, 0.3, 31):
        draws = resample(np.random.default_rng(1).normal(shift, 1, 100), statistic=np.mean, n_boot=999)
        low, high = np.quantile(draws.values, [0.025, 0.975])
        p = bootstrap_p(draws)
        assert abs(p - 0.05) < 0.003 or (p < 0.05) == (low > 0 or high < 0)


def test_false_alarms_of_the_bootstrap_are_as_rare_as_promised():
    rng = np.random.default_rng(5)
    draws = (
        resample(rng.normal(size=80), statistic=lambda v: v.mean(-1), n_boot=300, vectorized=True)
        for _ in range(500)
    )
    assert 0.03 <= np.mean([bootstrap_p(one) < 0.05 for one in draws]) <= 0.075


def test_clusters_make_the_answer_more_careful():
    """Thirty patients with ten images each, all of a patient alike: ten copies are no tenfold evidence."""
    labels, patient = np.repeat(RNG.integers(0, 2, 30), 10), np.repeat(np.arange(30), 10)
    before = np.repeat(RNG.integers(0, 2, 30), 10)
    after = np.where(patient < 7, labels, before)
    images, people = (
        is_real(before, after, labels, statistic=accuracy, clusters=c, unit="patients") for c in (None, patient)
    )
    assert people.interval.high - people.interval.low > 2 * (images.interval.high - images.interval.low)
    assert "30 patients" in people.sentence


def test_probabilities_serve_as_answers():
    noisy, clear = (RNG.dirichlet(np.ones(3), 300) * (1 - s) + s * np.eye(3)[LABELS] for s in (0.1, 0.5))
    found = is_real(noisy, clear, LABELS, statistic=auroc, n_boot=200)
    assert found.real and found.metric == "auroc"


def test_numbers_per_seed_are_students_paired_t():
    before, after = [0.70, 0.80, 0.90], [0.72, 0.82, 0.921]
    assert "better: the metric +0.0" in is_real(before, after).sentence  # numbers alone have no name
    found = is_real(before, after, metric="balanced accuracy")
    assert found.interval == paired_difference(before, after)
    assert found.p == pytest.approx(stats.ttest_rel(after, before).pvalue) and "3 training seeds" in found.sentence
    # the same step for every seed leaves no spread to judge by: the sign test's p, and Student's would be 0
    assert is_real([0.5, 0.6], [0.6, 0.7 + 1e-17]).p == 0.5
    assert is_real([0.5, 0.6, 0.9], [0.4, 0.5, 0.8]).p == 0.25
    assert is_real([0.5, 0.6], [0.5, 0.6]).p == 1
    assert is_real([0.5, 0.6], [0.5, 0.6]).p == 1


def test_seeds_and_images_in_one_answer():
    runs = [answers(0.5) for _ in range(3)], [answers(0.8) for _ in range(3)]
    found = is_real(*runs, LABELS, seeds=True, statistic=accuracy, n_boot=300)
    assert found.real and "3 training seeds and 300 images" in found.sentence

    def gain(y, a, b):
        return accuracy(y, b) - accuracy(y, a)

    joined = [(LABELS, a, b) for a, b in zip(*runs)]
    assert found.interval == seeds_and_images(joined, gain, n_boot=300)
    clustered = is_real(*runs, LABELS, seeds=True, clusters=np.arange(300) // 10, n_boot=100)
    assert "3 training seeds and 30 clusters" in clustered.sentence


def test_p_over_seeds_and_images_is_where_the_interval_touches_zero():
    for spread in (
        Spread(0.04, 0.01, 0.02, 3, 200),
        Spread(-0.1, 0.03, 0.0, 4, 50),
        Spread(0.001, 0.0, 0.02, 2, 90),
    ):
        found = spread.interval(1 - spread.p_value())
        assert min(abs(found.low), abs(found.high)) == pytest.approx(0, abs=1e-9)
    seeds_alone = Spread(0.05, 0.02, 0.0, 4, 100)
    assert seeds_alone.p_value() == pytest.approx(2 * stats.t.sf(2.5, 3))
    assert Spread(0.0, 0.1, 0.1, 3, 9).p_value() == 1 and Spread(0.1, 0.0, 0.0, 3, 9).p_value() == 0
    assert Spread(9.0, 1e-9, 1e-9, 30, 90).p_value() <= 1e-12


def test_one_lucky_seed_is_no_proof():
    """Each seed alone 'proves' its difference over the images; the seeds disagree, so nothing is shown."""
    good, bad = answers(0.9), answers(0.2)
    found = is_real([BEFORE] * 3, [good, bad, BEFORE], LABELS, seeds=True, n_boot=200)
    assert is_real(BEFORE, good, LABELS).real and is_real(BEFORE, bad, LABELS).real and not found.real


def test_the_two_level_percentile_bootstrap_warns_of_few_seeds():
    runs = [(LABELS, answers(0.7)) for _ in range(3)]
    found = seeds_and_images(runs, accuracy, method="percentile", n_boot=100, bounds=(0, 1))
    assert "3 seeds" in found.note and found.low < found.mean < found.high


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    np.testing.assert_allclose(holm([0.02]), [0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.03, np.nan, 0.04])


def test_holm_keeps_the_family_wise_error():
    p = np.random.default_rng(0).random((2000, 8))  # eight comparisons without any true difference
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.035 < alarms < 0.065 and np.mean((p < 0.05).any(1)) > 0.3


def test_many_comparisons_are_corrected_together():
    methods = {"better": BETTER, **{f"same {i}": answers(0.5) for i in range(5)}}
    found = are_real(BEFORE, methods, LABELS, statistic=accuracy)
    assert found["better"].real and "Holm's correction for 6 comparisons" in found["better"].sentence
    assert not any(difference.real for name, difference in found.items() if name != "better")
    alone = {name: is_real(BEFORE, after, LABELS, statistic=accuracy) for name, after in methods.items()}
    assert correct(alone)["better"].adjusted_p == pytest.approx(min(1, 6 * alone["better"].p))


def test_a_chance_find_among_many_is_called_so():
    lucky = {"lucky": is_real([0.5, 0.6, 0.7, 0.8], [0.53, 0.62, 0.74, 0.81])}
    assert lucky["lucky"].real
    rest = {str(i): is_real([0.5, 0.6, 0.7], [0.6, 0.5, 0.7 + i / 100]) for i in range(9)}
    assert "among 10 comparisons such a one comes up by chance" in correct(lucky | rest)["lucky"].sentence


def test_a_difference_may_be_too_small_to_matter():
    before = np.zeros(20)
    tiny = is_real(before, before + 0.001 + 1e-5 * np.arange(20), smallest=0.01)
    assert tiny.real and not tiny.matters and "smaller than the 0.01 that matters" in tiny.sentence
    none = is_real(before, 1e-4 * (np.arange(20) - 9.5), smallest=0.01)
    assert none.sentence.startswith("No difference that matters")
