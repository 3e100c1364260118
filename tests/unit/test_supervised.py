"""The training loop: it learns, it resumes exactly after a kill, and it refuses nonsense."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.data import load
from seminar_utils.pretraining import supervised
from seminar_utils.pretraining.supervised import TrainConfig, build_optimizer, fit, learning_rate, predict
from seminar_utils.runtime import SeminarError


def tiny_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(8 * 36, 2)
    )


@pytest.fixture(scope="module")
def sets():
    return {split: load("phantoms", split, n=96, task="tone") for split in ("train", "val")}


CONFIG = TrainConfig(epochs=4, lr=1e-2, batch_size=16, seed=3)


def run(sets, config=CONFIG, **options):
    model = tiny_model()
    history = fit(model, sets["train"], sets["val"], config, size=28, progress=False, **options)
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns_and_keeps_the_best_epoch(sets):
    model, history = run(sets, TrainConfig(epochs=12, lr=1e-2, batch_size=16))
    scores = [row["val_balanced_accuracy"] for row in history]
    assert history[-1]["loss"] < history[0]["loss"] and max(scores) > 0.7
    logits, labels = predict(model, sets["val"].loader(16, size=28))
    recalls = [(logits.argmax(1)[labels == k] == k).float().mean().item() for k in (0, 1)]
    assert np.mean(recalls) == pytest.approx(max(scores))


def test_a_seed_fixes_the_run(sets):
    assert torch.equal(weights(run(sets)[0]), weights(run(sets)[0]))


@pytest.mark.parametrize("killed_in_epoch", [1, 3])
def test_a_killed_run_ends_with_the_same_weights(sets, tmp_path, monkeypatch, killed_in_epoch):
    expected, expected_history = run(sets)
    real, calls = supervised.train_epoch, []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) == killed_in_epoch + 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "train_epoch", dies_later)
        with pytest.raises(KeyboardInterrupt):
            run(sets, checkpoint=tmp_path / "run.pt")
    model, history = run(sets, checkpoint=tmp_path / "run.pt")
    assert torch.equal(weights(model), weights(expected)) and history == expected_history


def test_a_checkpoint_of_other_settings_is_refused(sets, tmp_path):
    run(sets, checkpoint=tmp_path / "run.pt")
    with pytest.raises(SeminarError, match="other|not"):
        run(sets, TrainConfig(epochs=9), checkpoint=tmp_path / "run.pt")


def test_it_stops_early_when_validation_no_longer_improves(sets):
    _, history = run(sets, TrainConfig(epochs=50, lr=1e-9, warmup=0, patience=2, batch_size=16))
    assert len(history) == 3


def test_a_diverging_loss_is_named(sets):
    model = tiny_model()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(SeminarError, match="lower lr"):
        fit(model, sets["train"], sets["val"], CONFIG, size=28, progress=False)


def test_the_schedule_warms_up_then_falls_to_zero():
    config = TrainConfig(epochs=10, lr=1.0, warmup=2)
    assert learning_rate(config, 0) == 0 and learning_rate(config, 1) == 0.5 and learning_rate(config, 2) == 1
    assert learning_rate(config, 6) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert learning_rate(config, 10) == pytest.approx(0, abs=1e-12)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decayed, plain = build_optimizer(model, TrainConfig()).param_groups
    assert [p.ndim for p in decayed["params"]] == [4] and [p.ndim for p in plain["params"]] == [1, 1, 1]
    assert plain["weight_decay"] == 0 < decayed["weight_decay"]


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"label_smoothing": 1.0}])
def test_bad_settings_are_named(bad):
    with pytest.raises(SeminarError, match="training needs"):
        TrainConfig(**bad)
