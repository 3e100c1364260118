import numpy as np
import pytest
import torch

from seminar_utils.evaluation.streams import ORDERS, run_stream, stream
from seminar_utils.runtime import SeminarError

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


def test_iid_and_class_streams_hold_every_image_and_a_short_last_batch():
    for order in ("iid", "class"):
        sizes = [len(y) for _, y in seen(8, order)]
        assert sizes == [8] * 7 + [7]
    assert len(seen(1)) == 63


def test_class_order_is_sorted_and_prevalence_is_ninety_to_ten():
    assert torch.equal(torch.cat([y for _, y in seen(8, "class")]), torch.as_tensor(LABELS))
    labels = torch.cat([y for _, y in seen(64, "prevalence")]).numpy()
    assert np.bincount(labels).max() / len(labels) == pytest.approx(0.9, abs=0.03)


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


@pytest.mark.parametrize(
    "arguments", [(X, LABELS, 0), (X, LABELS[:5], 4), (X[:0], LABELS[:0], 4), (X, LABELS, 4, "idd")]
)
def test_bad_input_is_named(arguments):
    with pytest.raises(SeminarError):
        list(stream(*arguments))
