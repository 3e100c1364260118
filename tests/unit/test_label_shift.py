import numpy as np
import pytest

from seminar_utils.data.dataset import Card, ImageSet
from seminar_utils.evaluation.label_shift import resample_prevalence


def images(counts=(60, 40)):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)  # (N, 2, 2, 1)
    names = tuple("abcdef"[: len(counts)])
    card = Card("toy", "Toy", "here", "MIT", "noise", {"test": len(labels)})
    return ImageSet("toy", "test", pixels, labels, names, card, factors={"number": np.arange(len(labels))})


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.0, 1.0, 1 / 3])
def test_two_classes_at_a_share_with_as_many_images_as_there_can_be(share):
    found = resample_prevalence(images(), share)
    counts = np.bincount(found.labels, minlength=2)
    assert abs(counts[1] - share * len(found)) <= 0.5 and (counts <= [60, 40]).all()
    limit = min(60 / (1 - share) if share < 1 else np.inf, 40 / share if share else np.inf)
    assert limit - 3 <= len(found) <= limit + 2
    assert len(set(found.factors["number"])) == len(found)  # none twice


def test_shares_by_name_or_place_and_the_images_keep_their_labels():
    source = images((30, 20, 10))
    by_name = resample_prevalence(source, {"c": 0.5, "a": 0.25, "b": 0.25}, n=16, seed=3)
    by_place = resample_prevalence(source, [0.25, 0.25, 0.5], n=16, seed=3)
    assert np.bincount(by_name.labels).tolist() == [4, 4, 8]
    assert np.array_equal(by_name.images, by_place.images)
    assert np.array_equal(source.labels[by_name.factors["number"]], by_name.labels)


def test_a_seed_fixes_the_draw_and_the_order_is_mixed():
    a, b, c = (resample_prevalence(images(), 0.5, n=40, seed=seed).factors["number"] for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert (np.diff(resample_prevalence(images(), 0.5, n=40).labels) != 0).sum() > 5


def test_rounding_never_asks_for_an_image_that_is_not_there():
    for counts in [(3, 2), (1, 1), (7, 1), (5, 100)]:
        for share in np.linspace(0, 1, 41):
            found = resample_prevalence(images(counts), float(share))
            assert (np.bincount(found.labels, minlength=2) <= counts).all() and len(found) >= 1
