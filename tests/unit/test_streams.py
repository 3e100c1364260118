from pathlib import Path

import numpy as np
import pytest
import torch

from seminar_utils.evaluation.orders import changing_prevalence_order, dirichlet_order
from seminar_utils.evaluation.streams import ORDERS, order_of, run_stream, stream

REFERENCE = np.load(Path(__file__).with_name("shifts_reference.npz"))  # made before the orders were moved
LABELS = np.repeat([0, 1, 2], [30, 20, 13])
X = torch.arange(63.0).view(63, 1, 1, 1)


def seen(batch_size, order="iid", seed=0):
    return list(stream(X, LABELS, batch_size, order, seed))


@pytest.mark.parametrize("order", ORDERS)
def test_images_keep_their_labels_and_none_comes_twice(order):
    x, y = (torch.cat(parts) for parts in zip(*seen(8, order)))
    index = x.flatten().long().numpy()
    assert len(set(index)) == len(index)
    np.testing.assert_array_equal(LABELS[index], y)


@pytest.mark.parametrize("order", ORDERS)
def test_a_seed_fixes_the_order(order):
    def flat(seed):
        return torch.cat([x for x, _ in seen(8, order, seed)]).flatten().tolist()

    assert flat(1) == flat(1) != flat(2)


@pytest.mark.parametrize("key", [key for key in REFERENCE.files if key.startswith("order")])
def test_the_first_three_orders_are_what_they_were(key):
    _, order, seed = key.split(":")
    np.testing.assert_array_equal(order_of(REFERENCE["labels"], order, int(seed)), REFERENCE[key])


@pytest.mark.parametrize("order", ["iid", "class", "dirichlet"])
def test_these_streams_hold_every_image_and_a_short_last_batch(order):
    sizes = [len(y) for _, y in seen(8, order)]
    assert sizes == [8] * 7 + [7]
    assert [len(y) for _, y in seen(1, order)] == [1] * 63


def test_class_order_is_sorted_and_prevalence_is_ninety_to_ten():
    assert torch.equal(torch.cat([y for _, y in seen(8, "class")]), torch.as_tensor(LABELS))
    labels = torch.cat([y for _, y in seen(64, "prevalence")]).numpy()
    assert np.bincount(labels).max() / len(labels) == pytest.approx(0.9, abs=0.03)


def neighbours_alike(order):
    labels = np.arange(2000) % 4
    shown = labels[order(labels)]
    return (shown[1:] == shown[:-1]).mean()


def test_a_smaller_delta_makes_a_more_correlated_stream():
    alike = [
        neighbours_alike(lambda labels, delta=delta: dirichlet_order(labels, 0, delta))
        for delta in (0.001, 0.1, 1.0, 1e6)
    ]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 0.9 and alike[1] > 0.5 and alike[-1] == pytest.approx(0.25, abs=0.04)


def test_the_correlation_is_that_of_dirichlet_shares():
    """In a stretch with shares p_k two neighbours are alike with probability sum p_k^2 / (sum p_k)^2."""
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(20, 0.3), size=(500, 4))  # (trials, classes, stretches)
    expected = ((shares**2).sum(1) / shares.sum(1)).sum(1).mean() / 4
    found = [neighbours_alike(lambda labels, s=s: dirichlet_order(labels, s, 0.3, slots=20)) for s in range(60)]
    assert np.mean(found) == pytest.approx(expected, abs=0.02)


def test_a_changing_prevalence_follows_its_line():
    labels = np.repeat([0, 1], [600, 400])
    order = changing_prevalence_order(labels, 3, 0.1, 0.7, label=1)
    quarters = [labels[part].mean() for part in np.array_split(order, 4)]
    assert quarters == pytest.approx([0.175, 0.325, 0.475, 0.625], abs=0.01)
    assert 998 <= len(order) <= 1000  # 0.4 on average: nobody is left out
    assert 660 <= len(changing_prevalence_order(labels, 3, 0.0, 0.2, label=1)) <= 667  # the 600 others run out
    first, last = labels[changing_prevalence_order(labels, 0, 0.0, 1.0, label=1)][[0, -1]]
    assert (first, last) == (0, 1)


def test_options_of_an_order_reach_it():
    plain, correlated = (
        torch.cat([y for _, y in stream(X, LABELS, 8, "dirichlet", 0, delta=delta)]) for delta in (1e6, 0.001)
    )
    assert (correlated.diff() == 0).float().mean() > (plain.diff() == 0).float().mean()


def test_run_stream_never_shows_labels_and_keeps_the_order():
    calls = []

    def method(x):
        calls.append(x)
        return torch.eye(3)[(x.flatten() % 3).long()]

    result = run_stream(method, stream(X, LABELS, 10, "iid", 4))
    assert result.logits.shape == (63, 3) and len(calls) == 7
    np.testing.assert_array_equal(result.predictions, torch.cat(calls).flatten().numpy() % 3)
    np.testing.assert_array_equal(np.bincount(result.batch), [10] * 6 + [3])
    assert result.metrics()["accuracy"] == pytest.approx((result.predictions == result.labels).mean())
