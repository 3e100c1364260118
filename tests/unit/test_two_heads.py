"""Two heads on one encoder, their tasks, and the network that infers labels from neighbours."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import kl_divergence

from seminar_utils.models import create_model
from seminar_utils.models.neighbor_labels import LabelNetwork, class_prototypes, sample
from seminar_utils.models.rotation import all_rotations, random_rotations, rotate, rotation_loss
from seminar_utils.models.simclr import contrastive_loss


def images(count=3, size=16, seed=0, channels=1):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["bn", "gn", "ln"])
@pytest.mark.parametrize(("task", "outputs", "features"), [("rotation", 4, 32), ("simclr", 32, 64)])
def test_shapes_and_what_is_shared(task, outputs, features, norm):
    model = create_model(f"resnet_small_{task}", num_classes=5, in_chans=3, norm=norm).eval()
    x = images(2, channels=3)
    assert model(x).shape == (2, 5)
    assert [part.shape for part in model(x, auxiliary=True)] == [(2, outputs), (2, features)]
    assert torch.equal(model(x), model.backbone.fc(model.embed(x)))
    shared = model.encoder_parameters()
    reached = set()
    for parts in (model(x), model(x, auxiliary=True)[0]):
        model.zero_grad()
        parts.sum().backward()
        reached.add(frozenset(name for name, p in model.named_parameters() if p.grad is not None))
    assert set(shared) == frozenset.intersection(*reached)  # exactly what both tasks use


def test_the_shared_features_are_what_the_classifier_reads_when_all_is_shared():
    model, x = create_model("resnet_small_simclr").eval(), images()
    assert torch.allclose(model(x, auxiliary=True)[1], model.embed(x))


def test_rotations_turn_counter_clockwise_and_carry_their_label():
    x = images(3)
    turned, turns = all_rotations(x)
    assert turned.shape == (12, 1, 16, 16) and turns.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for image, k, original in zip(turned, turns.tolist(), x.repeat(4, 1, 1, 1)):
        assert torch.equal(image, torch.rot90(original, k, (1, 2)))
    assert torch.equal(rotate(rotate(x, torch.ones(3).long()), torch.full((3,), 3)), x)
    once = [random_rotations(images(64), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(once[0][1], once[1][1]) and set(once[0][1].tolist()) == {0, 1, 2, 3}
    assert rotation_loss(torch.zeros(12, 4), turns).item() == pytest.approx(math.log(4))


def test_the_contrastive_loss_is_a_cross_entropy_over_the_other_views():
    torch.manual_seed(0)
    features = torch.randn(4, 2, 8)
    views = F.normalize(torch.cat([features[:, 0], features[:, 1]]), dim=1)
    logits = (views @ views.T / 0.2).fill_diagonal_(float("-inf"))
    expected = F.cross_entropy(logits, torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]))
    assert torch.allclose(contrastive_loss(features, temperature=0.2), expected)
    assert torch.allclose(contrastive_loss(features, torch.arange(4), temperature=0.2), expected)
    alike = features[:, :1].expand(-1, 2, -1)
    assert contrastive_loss(alike, temperature=0.2) < expected
    assert contrastive_loss(features[:1]).item() == pytest.approx(0, abs=1e-6)  # one image: nothing to tell apart


def test_prototypes_are_weighted_means_and_survive_an_empty_class():
    torch.manual_seed(0)
    features, labels = torch.randn(20, 4), torch.arange(20) % 2
    hard = F.one_hot(labels, 3).float()
    prototypes = class_prototypes(features, hard, floor=1e-9)
    assert torch.allclose(prototypes[0], features[labels == 0].mean(0), atol=1e-5)
    assert torch.allclose(class_prototypes(features, hard)[2], features.mean(0), atol=1e-5)  # nobody's class
    assert torch.isfinite(class_prototypes(features[:1], hard[:1])).all()


def test_labels_depend_on_the_neighbours_and_on_the_draw():
    torch.manual_seed(0)
    network, features = LabelNetwork(8, 3), torch.randn(10, 8)
    probs = torch.randn(10, 3).softmax(1)
    prior = network.latent(features, probs)
    assert prior.mean.shape == prior.stddev.shape == (3, 32)
    first, second = (sample(prior, torch.Generator().manual_seed(s)) for s in (0, 1))
    labels = network.labels(features, first)
    assert torch.allclose(labels.exp().sum(1), torch.ones(10))
    assert not torch.allclose(labels, network.labels(features, second))
    other = network.latent(torch.cat([features[:1], torch.randn(9, 8)]), probs)
    same_image = network.labels(features[:1], other.mean), network.labels(features[:1], prior.mean)
    assert not torch.allclose(*same_image)
    assert torch.equal(first, sample(prior, torch.Generator().manual_seed(0)))
    assert kl_divergence(prior, prior).abs().max() == 0


def test_a_draw_of_w_carries_the_gradient_to_phi():
    network = LabelNetwork(8, 3)
    labels = network.labels(torch.randn(5, 8), sample(network.latent(torch.randn(5, 8), torch.rand(5, 3))))
    labels[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
