"""Test-time training without what it needs, or with what does not fit: one clear SeminarError each."""

from dataclasses import replace

import pytest
import torch

from seminar_utils.adaptation import TTT, NeighborLabels, TTTPlusPlus, create_method
from seminar_utils.adaptation.feature_alignment import FeatureQueue, SourceMoments, covariance
from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.neighbor_labels import LabelNetwork, NeighborLabelNet
from seminar_utils.models.resnet import resnet_small
from seminar_utils.models.rotation import rotate
from seminar_utils.models.simclr import contrastive_loss
from seminar_utils.pretraining.joint import JointConfig, fit_joint, rotation_accuracy
from seminar_utils.pretraining.neighbor_labels import MetaConfig, fit_neighbor_labels
from seminar_utils.pretraining.simclr import TwoViews
from seminar_utils.runtime import SeminarError

VIEWS = TwoViews()
x = torch.rand(4, 1, 16, 16)


def made(name, **options):
    return create_model(f"resnet_small_{name}" if name else "resnet_small", **options)


def moments(width):
    return SourceMoments.of([torch.randn(6, width) for _ in range(2)])


def meta(train, config=None, **options):
    config = config or MetaConfig(epochs=1, steps=1, batch_size=8)
    return fit_neighbor_labels(made("neighbors"), train, train, config, progress=False, **options)


def unlike(classes, width):
    return NeighborLabelNet(resnet_small(6), LabelNetwork(width, classes))


PREPARATION = {
    "ttt, plain classifier": (lambda: TTT(made("")), "trained with a rotation head .*got ResNet"),
    "ttt, other head": (lambda: TTT(made("simclr")), "rotation head .*got a network with the task simclr"),
    "ttt++, other head": (lambda: TTTPlusPlus(made("rotation"), VIEWS), "simclr head"),
    "ttt++, no moments": (lambda: TTTPlusPlus(made("simclr"), VIEWS)(x), r"source images first: fit_source"),
    "ttt++, one space": (
        lambda: TTTPlusPlus(made("simclr"), VIEWS, source={"features": moments(64)}),
        "source moments of projections: make them with fit_source",
    ),
    "ttt++, wrong width": (
        lambda: TTTPlusPlus(made("simclr"), VIEWS, source={"features": moments(9), "projections": moments(32)}),
        "'features': 9.*'features': 64",
    ),
    "ttt++, one batch": (
        lambda: TTTPlusPlus(made("simclr"), VIEWS).fit_source([x]),
        r"at least two batches of at least two rows, got \[4\]",
    ),
    "ttt++, no views": (lambda: create_method("ttt_plus_plus", made("simclr")), "views"),
    "neighbors, plain classifier": (
        lambda: NeighborLabels(made("")),
        "meta-trained with a label network.*got ResNet",
    ),
    "neighbors, K": (lambda: NeighborLabels(unlike(4, 64)), "for 4 classes and 64 features, .* has 6 and 64"),
    "neighbors, width": (lambda: NeighborLabels(unlike(6, 32)), "for 6 classes and 32 features, .* has 6 and 64"),
    "neighbors, K in a call": (
        lambda: LabelNetwork(8, 3).latent(torch.rand(5, 8), torch.rand(5, 2)),
        r"3 classes, got features \(5, 8\) and probabilities \(5, 2\)",
    ),
}


@pytest.mark.parametrize("fault", PREPARATION)
def test_missing_or_unfitting_preparation(fault):
    build, words = PREPARATION[fault]
    with pytest.raises(SeminarError, match=words):
        build()


SETTINGS = {
    "ttt, steps": (lambda: TTT(made("rotation"), steps=0), "steps >= 1"),
    "ttt, rate": (lambda: TTT(made("rotation"), lr=-1.0), "lr >= 0"),
    "ttt, policy": (lambda: TTT(made("rotation"), policy="bacth"), "did you mean 'batch'"),
    "ttt, not square": (
        lambda: TTT(made("rotation"))(torch.rand(2, 1, 16, 20)),
        "square images",
    ),
    "ttt++, steps": (lambda: TTTPlusPlus(made("simclr"), VIEWS, steps=0), "steps >= 1"),
    "ttt++, queue": (lambda: TTTPlusPlus(made("simclr"), VIEWS, queue_length=0), "length >= 1"),
    "ttt++, temperature": (
        lambda: TTTPlusPlus(made("simclr"), VIEWS, temperature=0.0).fit_source([x, x + 0.1 * x**2])(x),
        "temperatures are positive",
    ),
    "ttt++, epochs": (lambda: TTTPlusPlus(made("simclr"), VIEWS).adapt_whole_set(x, 0), "at least 1, got 0"),
    "neighbors, labels": (lambda: NeighborLabels(made("neighbors"), labels="sample"), "did you mean 'sampled'"),
    "neighbors, samples": (lambda: NeighborLabels(made("neighbors"), samples=0), "samples >= 1"),
    "queue, width": (lambda: FeatureQueue(4, 3).push(torch.rand(2, 5)), r"rows of 3 numbers, got \(2, 5\)"),
    "queue, empty": (lambda: covariance(FeatureQueue(4, 3).snapshot()), r"n >= 2, got \(0, 3\)"),
    "moments, all alike": (lambda: SourceMoments.of([torch.ones(4, 3)] * 2), "do not differ"),
    "contrast, one view": (lambda: contrastive_loss(torch.rand(4, 1, 8)), r"V >= 2 views, got \(4, 1, 8\)"),
    "contrast, labels": (
        lambda: contrastive_loss(torch.rand(4, 2, 8), torch.arange(3)),
        r"expected \(4,\), got \(3,\)",
    ),
    "rotation, not square": (lambda: rotate(torch.rand(2, 1, 4, 6), torch.zeros(2).long()), "square"),
    "rotation, other task": (lambda: rotation_accuracy(made("simclr"), x), "second task is simclr"),
    "views, scale": (lambda: TwoViews(scale=(0.0, 1.0)), "0 < scale low"),
    "joint, weight": (lambda: JointConfig(auxiliary_weight=-1.0), "auxiliary_weight >= 0"),
    "joint, one head": (
        lambda: fit_joint(made(""), None, None, JointConfig()),
        "network with a second head.*got ResNet",
    ),
    "meta, batch": (lambda: MetaConfig(batch_size=1), "batch_size >= 2"),
    "meta, kl": (lambda: MetaConfig(kl=-1.0), "not negative"),
}


@pytest.mark.parametrize("fault", SETTINGS)
def test_bad_settings(fault):
    build, words = SETTINGS[fault]
    with pytest.raises(SeminarError, match=words):
        build()


def test_meta_training_needs_two_labelled_scanners():
    with pytest.raises(SeminarError, match=r"at least two labelled domains .*got \['A'\]"):
        meta(load("phantoms", "train", n=24, scanner="A"))
    both = load("phantoms", "train", n=24, scanner="AB")
    with pytest.raises(SeminarError, match="got none"):
        meta(replace(both, domains=None))
    with pytest.raises(SeminarError, match=r"do not fill one batch of 20: lower batch_size"):
        meta(both, MetaConfig(epochs=1, steps=1, batch_size=20))


def test_a_diverging_meta_training_is_named_and_other_settings_are_refused(tmp_path):
    both = load("phantoms", "train", n=32, scanner="AB")
    small = MetaConfig(epochs=1, steps=1, batch_size=8)
    with pytest.raises(SeminarError, match="lower lr"):
        meta(both, replace(small, inner_lr=1e38), size=16)
    meta(both, small, size=16, checkpoint=tmp_path / "run.pt")
    with pytest.raises(SeminarError, match="is of a run with"):
        meta(both, replace(small, kl=0.5), size=16, checkpoint=tmp_path / "run.pt")
