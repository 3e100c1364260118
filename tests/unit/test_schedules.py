import numpy as np
import pytest
import torch

from seminar_utils.evaluation.schedules import SCHEDULES, domain_stream, severity_ramp, shifted_stream
from seminar_utils.evaluation.shifts import apply_shift
from seminar_utils.evaluation.streams import run_stream

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 20, 13]))
X = torch.rand(63, 1, 8, 8, generator=torch.Generator().manual_seed(0))
RAMP = severity_ramp("gaussian_noise")
NAMES = ["none", *(f"gaussian_noise {s}" for s in range(1, 6))]


def shown_under(name):
    """All images under a condition, as shifted at once."""
    return X if name == "none" else apply_shift(X, name.split()[0], int(name.split()[1]), seed=4)


@pytest.mark.parametrize("whole_set", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_image_is_seen_under_the_condition_the_stream_names(schedule, whole_set):
    s = shifted_stream(X, LABELS, RAMP, 10, schedule, seed=4, whole_set=whole_set)
    assert torch.equal(torch.cat([x for x, _ in s]), s.x) and torch.equal(torch.cat([y for _, y in s]), s.labels)
    np.testing.assert_array_equal(s.labels, LABELS[s.index])
    for name in NAMES:
        places = s.condition == name
        assert torch.equal(s.x[places], shown_under(name)[s.index[places]])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_image_comes_once_or_once_for_each_visit(schedule):
    once = shifted_stream(X, LABELS, RAMP, 10, schedule)
    assert sorted(once.index) == list(range(63))
    assert {count for count in np.unique(once.condition, return_counts=True)[1]} <= {9, 10, 11, 12}
    every = shifted_stream(X, LABELS, RAMP, 10, schedule, rounds=2, whole_set=True)
    visits = 2 if schedule == "recurring" else 1
    for name in NAMES:
        assert sorted(every.index[every.condition == name]) == sorted(list(range(63)) * visits)


def test_a_ramp_goes_up_and_back():
    assert severity_ramp("blur") == [("none", 0), *(("blur", s) for s in range(1, 6))]
    assert [s for _, s in severity_ramp("blur", back=True)] == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
    s = shifted_stream(X, LABELS, severity_ramp("blur", back=True), 5)
    assert [name for name, _ in groups(s.condition)] == [
        "none",
        *(f"blur {k}" for k in (1, 2, 3, 4, 5, 4, 3, 2, 1)),
        "none",
    ]


def groups(condition):
    """Runs of equal names: (name, length)."""
    ends = np.flatnonzero(condition[1:] != condition[:-1]) + 1
    return [(part[0], len(part)) for part in np.split(condition, ends)]


def test_recurring_comes_back_and_mixed_does_not_dwell():
    pair = [("blur", 2), ("gamma", 3)]
    recurring = groups(shifted_stream(X, LABELS, pair, 5, "recurring", rounds=4).condition)
    assert [name for name, _ in recurring] == ["blur 2", "gamma 3"] * 4
    assert {length for _, length in recurring} <= {7, 8}
    for whole_set in (False, True):
        assert len(groups(shifted_stream(X, LABELS, pair, 5, "mixed", whole_set=whole_set).condition)) > 15


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_batches_and_seeds(schedule, batch_size):
    a, b, c = (shifted_stream(X, LABELS, RAMP, batch_size, schedule, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.x, b.x) and not np.array_equal(a.index, c.index)
    sizes = [len(y) for _, y in a]
    assert len(sizes) == len(a) == -(-63 // batch_size)
    assert sum(sizes) == 63 and set(sizes[:-1]) <= {batch_size} and 1 <= sizes[-1] <= batch_size


def test_an_order_with_options_holds_within_a_schedule():
    s = shifted_stream(X, LABELS, RAMP, 7, "mixed", order="class")
    assert (s.labels.diff() >= 0).all()
    few = shifted_stream(X, LABELS, RAMP, 7, "gradual", order="changing_prevalence", label=2, start=0.2, end=0.2)
    assert (few.labels == 2).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_a_result_is_scored_by_condition():
    s = shifted_stream(X, LABELS, RAMP, 10)
    result = run_stream(lambda x: x.flatten(1)[:, :3], s)
    assert len(result.labels) == len(s.condition) and repr(s).startswith("ConditionStream(63 images in 7 batches")
    np.testing.assert_array_equal(result.labels, s.labels)


# --- real domains ----------------------------------------------------------------------------------------

SITES = {"a": (X[:30], LABELS[:30]), "b": (X[30:50], LABELS[30:50]), "c": (X[50:], torch.as_tensor(LABELS[50:]))}
FIRST = {"a": 0, "b": 30, "c": 50}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_domains_show_each_of_their_images_once(schedule):
    s = domain_stream(SITES, 8, schedule, seed=1)
    at = np.array([FIRST[name] for name in s.condition]) + s.index
    assert sorted(at) == list(range(63))
    assert torch.equal(s.x, X[at]) and torch.equal(s.labels, torch.as_tensor(LABELS[at]))
    again, other = domain_stream(SITES, 8, schedule, seed=1), domain_stream(SITES, 8, schedule, seed=2)
    assert np.array_equal(again.index, s.index) and not np.array_equal(other.index, s.index)


def test_domains_come_in_turn():
    assert groups(domain_stream(SITES, 8, "gradual").condition) == [("a", 30), ("b", 20), ("c", 13)]
    visits = groups(domain_stream(SITES, 8, "recurring", rounds=2).condition)
    assert visits == [("a", 15), ("b", 10), ("c", 7), ("a", 15), ("b", 10), ("c", 6)]
    assert len(groups(domain_stream(SITES, 8, "mixed").condition)) > 20
