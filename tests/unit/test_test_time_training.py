"""TTT, TTT++ and neighbour labels: what they do beyond the contract that every method keeps."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.adaptation import TTT, BatchNormAdapt, NeighborLabels, TTTPlusPlus, create_method
from seminar_utils.adaptation.feature_alignment import FeatureQueue, SourceMoments, coral, covariance
from seminar_utils.adaptation.registry import preparation
from seminar_utils.models import create_model
from seminar_utils.models.rotation import all_rotations, rotation_loss
from seminar_utils.pretraining.simclr import TwoViews
from seminar_utils.runtime import SeminarError

VIEWS = TwoViews()


def network(task, norm="bn", **options):
    torch.manual_seed(0)
    model = create_model(f"resnet_small_{task}", num_classes=3, norm=norm, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def batches(count=3, size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 1, 16, 16, generator=generator) for _ in range(count)]


def features(rows=12, dim=3, seed=0, scale=1.0):
    return scale * torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def plus_plus(model=None, **options):
    options = {"lr": 0.01, **options}
    return TTTPlusPlus(model or network("simclr"), VIEWS, **options).fit_source(batches(4, seed=9))


def test_the_registry_says_which_network_a_method_needs():
    for name in ("ttt", "ttt_plus_plus", "neighbor_labels"):
        settings = {"views": VIEWS} if name == "ttt_plus_plus" else {}
        assert create_method(name, network(preparation(name)), **settings).prepared == preparation(name)
    assert preparation("tent") is None
    with pytest.raises(SeminarError, match="did you mean 'ttt"):
        preparation("ttt++")


# --- TTT ---------------------------------------------------------------------------------------------------


def test_practice_lowers_the_rotation_loss_of_a_repeated_batch():
    model, (x,) = network("rotation"), batches(1)
    method = TTT(model, lr=0.05)
    turned, turns = all_rotations(x)

    def loss():
        with torch.no_grad():
            return rotation_loss(method.model(turned, auxiliary=True)[0], turns).item()

    before = loss()
    for _ in range(5):
        method(x)
    assert loss() < before - 1e-3


def test_one_step_of_ttt_is_gradient_descent_on_the_encoder_alone():
    model, (x,) = network("rotation", norm="gn"), batches(1)
    method = TTT(model, lr=0.1)
    logits = method(x)
    turned, turns = all_rotations(x)
    rotation_loss(model(turned, auxiliary=True)[0], turns).backward()
    with torch.no_grad():
        for p in model.encoder_parameters().values():
            p -= 0.1 * p.grad
        assert torch.allclose(logits, model(x), atol=1e-5)
    for name, p in method.model.named_parameters():
        assert torch.allclose(p, model.state_dict()[name], atol=1e-6), name


def test_the_rotation_head_moves_only_if_asked():
    x = batches(1)[0]
    for move in (False, True):
        method = TTT(network("rotation"), lr=0.1, move_head=move)
        before = copy.deepcopy(method.model.head.state_dict())
        method(x)
        assert torch.equal(before["2.weight"], method.model.head[2].weight) != move


def test_plain_ttt_forgets_the_batch_before():
    one, two = batches(2)
    method = TTT(network("rotation"), lr=0.1, steps=2, episodic=True)
    method(one)
    assert torch.equal(method(two), TTT(network("rotation"), lr=0.1, steps=2)(two))


@pytest.mark.parametrize("task", ["rotation", "simclr", "neighbors"])
def test_without_a_rate_only_the_batch_statistics_are_left(task):
    model = network(task)
    builds = {"rotation": lambda: TTT(model, lr=0.0), "neighbors": lambda: NeighborLabels(model, lr=0.0)}
    method = plus_plus(model, lr=0.0) if task == "simclr" else builds[task]()
    control = BatchNormAdapt(model)
    for x in batches():
        assert torch.equal(method(x), control(x))


# --- TTT++: moments and queue ------------------------------------------------------------------------------


def test_moments_against_numpy_and_the_distance_to_oneself():
    parts = [features(seed=s) for s in range(3)]
    moments = SourceMoments.of(parts)
    rows = torch.cat(parts)
    np.testing.assert_allclose(moments.cov.numpy(), np.cov(rows.numpy().T), atol=1e-6)
    assert [d.item() for d in moments.distance(rows)] == pytest.approx([0, 0], abs=1e-9)
    shifted = [d.item() for d in moments.distance(rows + 1)]
    assert shifted[0] == pytest.approx(0, abs=1e-6) and shifted[1] > 1
    stretched = [d.item() for d in moments.distance(rows - rows.mean(0) + moments.mean, weight=2.0)]
    assert stretched == pytest.approx([0, 0], abs=1e-6)


def test_a_distance_of_one_means_as_far_as_a_batch_from_home():
    """The unit does not depend on the scale of the features."""
    for scale in (0.01, 100.0):
        parts = [features(seed=s, scale=scale) for s in range(5)]
        moments = SourceMoments.of(parts, drop_first=True)
        found = coral(covariance(parts[0]), covariance(parts[1])) / moments.mean_coral
        assert 0.1 < found < 10
        assert moments.distance(features(seed=7, scale=scale), mean_factor=1.0)[0] < 10


def test_of_a_single_row_only_the_mean_counts():
    moments, row = SourceMoments.of([features(seed=s) for s in range(3)]), features(1).requires_grad_()
    by_cov, by_mean = moments.distance(row)
    (by_cov + by_mean).backward()
    assert by_cov == 0 and by_mean > 0 and torch.isfinite(row.grad).all() and row.grad.abs().sum() > 0


def test_the_queue_is_first_in_first_out_for_any_batch_sizes():
    queue, seen = FeatureQueue(7, 2), []
    for number, size in enumerate((3, 2, 5, 1, 9, 4)):
        rows = features(size, 2, seed=number).requires_grad_()
        before = queue.snapshot()
        queue.push(rows)
        seen = (seen + rows.tolist())[-7:]
        assert sorted(queue.snapshot().tolist()) == sorted(seen) and len(queue) == len(seen)
        assert not queue.snapshot().requires_grad and queue.full == (len(seen) == 7)
        assert len(before) == min(7, sum((3, 2, 5, 1, 9, 4)[:number]))
    kept = queue.snapshot()
    queue.push(features(7, 2, seed=99))
    assert not torch.equal(kept, queue.snapshot())  # a copy, not the live storage
    queue.clear()
    assert len(queue) == 0 and queue.snapshot().shape == (0, 2) and queue.storage.abs().sum() == 0


def test_no_batch_is_ever_in_the_moments_twice(monkeypatch):
    used = []
    real = SourceMoments.distance

    def watch(self, rows, *rest):
        used.append(rows.detach())
        return real(self, rows, *rest)

    monkeypatch.setattr(SourceMoments, "distance", watch)
    method = plus_plus(queue_length=12, lr=0.0, steps=2)
    for x in batches(4):
        method(x)
    assert [len(rows) for rows in used] == [8, 8, 8, 8, 16, 16, 16, 16, *[20] * 8]
    for rows in used:
        assert len(torch.unique(rows, dim=0)) == len(rows)


def test_the_gradient_goes_through_the_current_batch_only_and_the_queue_is_used_when_asked():
    early, late = plus_plus(), plus_plus(wait_for_queue=True)
    one, two = batches(2)
    assert torch.equal(early(one), late(one))
    assert not torch.equal(early(two), late(two))
    assert len(early.queues["features"]) == 16 and not early.queues["features"].snapshot().requires_grad


def test_alignment_alone_brings_the_features_home():
    model = network("simclr", norm="gn")
    home = batches(6, size=16, seed=3)
    away = [0.3 * x**2 for x in batches(1, size=16, seed=4)] * 12
    method = TTTPlusPlus(model, VIEWS, lr=1e-4, contrast=0.0, align_features=0.2).fit_source(home)

    def distance():
        with torch.no_grad():
            return sum(method.source["features"].distance(method.model(away[0], auxiliary=True)[1])).item()

    before = distance()
    for x in away:
        method(x)
    assert distance() < 0.9 * before
    assert method.passes.forward == 2 and method.passes.backward == 1  # no views were made


def test_moments_can_be_handed_over_instead_of_images():
    model, x = network("simclr"), batches(1)[0]
    first = plus_plus(model)
    second = TTTPlusPlus(model, VIEWS, lr=0.01, source=first.source)
    assert torch.equal(first(x), second(x))


def test_views_are_the_same_after_a_reset_and_others_with_another_seed():
    model, x = network("simclr"), batches(1)[0]
    method = plus_plus(model)
    first, second = method(x), method(x)
    method.reset()
    assert torch.equal(method(x), first) and not torch.equal(first, second)
    assert not torch.equal(plus_plus(model, seed=1)(x), first)


def test_the_whole_set_mode_sees_everything_first_and_keeps_the_order():
    model, x = network("simclr"), torch.cat(batches(3))
    still = plus_plus(model, lr=0.0, policy="source")
    with torch.no_grad():
        expected = model(x)
    assert torch.allclose(still.adapt_whole_set(x, epochs=2, batch_size=7), expected, atol=1e-6)
    assert still.batches_seen == 2 * 4
    moving = plus_plus(model, policy="source")
    logits = moving.adapt_whole_set(x, epochs=1, batch_size=8)
    assert logits.shape == (24, 3) and not torch.allclose(logits, expected, atol=1e-4)
    assert not torch.equal(moving.adapt_whole_set(x, epochs=1, batch_size=8), logits)  # it goes on from there


# --- neighbour labels --------------------------------------------------------------------------------------


def inferred(method, x):
    with torch.no_grad():
        logits, feats = method.model(x, with_features=True)
    return method.infer_labels(feats, logits), logits


@pytest.mark.parametrize("labels", ["sampled", "mean", "hard", "own"])
def test_kinds_of_labels(labels):
    method, x = NeighborLabels(network("neighbors"), labels=labels, samples=3), batches(1)[0]
    soft, logits = inferred(method, x)
    assert soft.shape == (3 if labels in ("sampled", "hard") else 1, 8, 3)
    assert torch.allclose(soft.sum(2), torch.ones(soft.shape[:2]))
    if labels in ("hard", "own"):
        assert set(soft.unique().tolist()) == {0.0, 1.0}
    if labels == "own":
        assert torch.equal(soft[0].argmax(1), logits.argmax(1))
    again, _ = inferred(method, x)
    assert torch.equal(soft, again) == (labels in ("mean", "own"))  # else a new draw of w


def test_neighbours_change_the_labels_of_an_image_and_say_nothing_when_switched_off():
    one, other = batches(2)
    mixed = torch.cat([one[:4], other[4:]])  # the same four images among others
    found = {}
    for neighbors in (True, False):
        method = NeighborLabels(network("neighbors"), labels="mean", neighbors=neighbors, policy="source")
        with torch.no_grad():  # it is untrained: make it look at the prototypes
            method.model.label_network.to_latent[2].weight.mul_(1000)
        found[neighbors] = [inferred(method, x)[0][0, :4] for x in (one, mixed)]
    assert not torch.allclose(*found[True], atol=1e-3)
    assert torch.allclose(found[False][0], torch.full((4, 3), 1 / 3))  # every class has the same prototype


def test_the_step_is_the_one_of_meta_training():
    """theta - lr * gradient of the cross-entropy to fixed labels, from the source weights for each batch."""
    model, (one, two) = network("neighbors", norm="gn"), batches(2)
    method = NeighborLabels(model, lr=0.1, labels="mean")
    method(one)
    labels, _ = inferred(NeighborLabels(model, labels="mean"), two)
    logits = method(two)
    nn.functional.cross_entropy(model(two), labels[0]).backward()
    with torch.no_grad():
        for p in model.backbone.parameters():
            p -= 0.1 * p.grad
        assert torch.allclose(logits, model(two), atol=1e-5)


def test_steps_accumulate_only_if_asked():
    one, two = batches(2)
    answers = []
    for episodic in (True, False):
        method = NeighborLabels(network("neighbors"), lr=0.1, labels="mean", episodic=episodic)
        method(one)
        answers.append(method(two))
    fresh = NeighborLabels(network("neighbors"), lr=0.1, labels="mean")(two)
    assert torch.equal(answers[0], fresh) and not torch.equal(answers[1], fresh)
