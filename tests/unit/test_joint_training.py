"""Joint and meta-training: both tasks are learnt, a killed run ends the same, gradients go where they should."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils import recipes
from seminar_utils.checkpoints import load_checkpoint
from seminar_utils.data import load
from seminar_utils.models.neighbor_labels import sample, with_label_network
from seminar_utils.models.resnet import BasicBlock, ResNet
from seminar_utils.models.two_heads import with_projection_head, with_rotation_head
from seminar_utils.pretraining import neighbor_labels, supervised
from seminar_utils.pretraining.joint import (
    JointConfig,
    fit_joint,
    joint_loss,
    keep_running_statistics,
    rotation_accuracy,
)
from seminar_utils.pretraining.neighbor_labels import (
    MetaConfig,
    build_optimizer,
    fit_neighbor_labels,
    meta_step,
    meta_target_loss,
    refresh_statistics,
)
from seminar_utils.pretraining.simclr import TwoViews
from seminar_utils.recipes.base import Recipe

CONFIG = JointConfig(epochs=3, lr=5e-3, batch_size=16, seed=3, label_smoothing=0.0)
META = MetaConfig(epochs=3, steps=2, batch_size=8, seed=3)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def backbone():
    torch.manual_seed(0)
    return ResNet(BasicBlock, (1, 1), (4, 8), 6, 1, small_stem=True)


def tiny(task):
    """A network with two small stages: the loops are tested, not the model."""
    net = backbone()
    if task == "neighbors":
        return with_label_network(net, dim=4)
    return with_rotation_head(net) if task == "rotation" else with_projection_head(net, 4)


@pytest.fixture(scope="module")
def sets():
    return {split: load("phantoms", split, n=48, scanner="AB") for split in ("train", "val")}


def run(task, sets, **options):
    model = tiny(task)
    options = {"size": 16, "progress": False, **options}
    if task == "neighbors":
        return model, fit_neighbor_labels(model, sets["train"], sets["val"], META, **options)
    return model, fit_joint(model, sets["train"], sets["val"], CONFIG, **options)


def state(model):
    return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])


@pytest.mark.parametrize(
    ("task", "room", "unit"),
    [
        ("rotation", supervised, "train_epoch"),
        ("simclr", supervised, "train_epoch"),
        ("neighbors", neighbor_labels, "meta_step"),
    ],
)
def test_a_killed_run_ends_with_the_same_weights(task, room, unit, sets, tmp_path, monkeypatch):
    expected, history = run(task, sets)
    real, calls = getattr(room, unit), []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) == (2 if unit == "train_epoch" else 4):
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(room, unit, dies_later)
        with pytest.raises(KeyboardInterrupt):
            run(task, sets, checkpoint=tmp_path / "run.pt")
    torch.rand(7)  # what others drew in between must not matter
    model, again = run(task, sets, checkpoint=tmp_path / "run.pt")
    assert torch.equal(state(model), state(expected)) and again == history


def test_the_rotation_task_is_learnt_where_images_have_an_upright():
    torch.manual_seed(0)
    x = 0.1 * torch.rand(32, 1, 16, 16)
    x[:, :, :6] += 0.8  # bright at the top
    model = tiny("rotation").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss, _ = joint_loss(model, x, torch.arange(32) % 6, CONFIG)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # the turned images' statistics, as adaptation uses the batch's
        assert rotation_accuracy(model.eval().requires_grad_(False), x) > 0.9


@pytest.mark.parametrize("task", ["rotation", "simclr"])
def test_the_second_task_reaches_its_head_and_leaves_the_running_statistics_alone(task):
    x, y = torch.rand(8, 1, 16, 16), torch.arange(8) % 6
    losses, statistics = {}, {}
    for weight in (0.0, 1.0):
        torch.manual_seed(1)
        model = tiny(task).train()
        loss, logits = joint_loss(model, x, y, replace(CONFIG, auxiliary_weight=weight))
        loss.backward()
        losses[weight], statistics[weight] = loss.item(), model.backbone.bn1.running_mean.clone()
        moved = max(p.grad.abs().max().item() for p in model.head.parameters() if p.grad is not None)
        assert (moved > 0) == (weight > 0) and logits.shape == (8, 6)
    assert losses[1.0] > losses[0.0] and torch.equal(statistics[0.0], statistics[1.0])


def test_running_statistics_rest_inside_and_move_again_outside():
    layer, x = nn.BatchNorm2d(1), torch.rand(4, 1, 3, 3)
    with pytest.raises(KeyError), keep_running_statistics(layer):
        layer(x)
        raise KeyError
    assert layer.running_mean.item() == 0
    layer(x)
    assert layer.running_mean.item() == pytest.approx(0.1 * x.mean().item())


def test_two_views_differ_keep_the_size_and_come_from_the_generator():
    x, views = torch.rand(5, 1, 16, 16), TwoViews()
    shown = views(x, seeded())
    assert shown.shape == (10, 1, 16, 16) and torch.equal(shown, views(x, seeded()))
    first, second = shown.chunk(2)
    assert (first - second).abs().amax(dim=(1, 2, 3)).min() > 0.01


# --- meta-training -----------------------------------------------------------------------------------------


def batch(seed=0, count=8):
    x = torch.rand(count, 1, 16, 16, generator=seeded(seed))
    return x, torch.arange(count) % 6


def meta_gradients(**options):
    """Gradients of the outer loss alone with respect to phi, by name."""
    model = tiny("neighbors").train()
    outer, _, _ = meta_target_loss(model, *batch(), replace(META, inner_lr=0.5, **options), seeded())
    phi = dict(model.label_network.named_parameters())
    found = torch.autograd.grad(outer, phi.values(), allow_unused=True)
    return {name: 0.0 if g is None else g.abs().sum().item() for name, g in zip(phi, found)}


def test_the_outer_loss_teaches_the_label_network_through_the_inner_step():
    assert min(meta_gradients().values()) > 0
    assert max(meta_gradients(first_order=True).values()) == 0  # as the docstring warns


def test_the_drawn_labels_learn_to_be_right_and_the_prior_follows():
    model, config = tiny("neighbors"), replace(META, label_lr=3e-2, lr=1e-6, kl=0.3)
    optimizer, (x, y) = build_optimizer(model, config), batch(1)
    x = x + y.view(-1, 1, 1, 1) / 3  # brightness tells the class
    rows = [meta_step(model, (x, y), (x, y), optimizer, config, seeded(i)) for i in range(60)]
    assert rows[-1]["labels"] < 0.5 * rows[0]["labels"]
    without = tiny("neighbors")
    before = model.label_network.to_query.weight.detach().clone()
    paper = replace(config, reconstruction=0.0, inner_lr=0.0, kl=0.0)
    meta_step(without, (x, y), (x, y), build_optimizer(without, paper), paper, seeded())
    assert before.shape == without.label_network.to_query.weight.shape
    assert without.label_network.to_query.weight.grad.abs().max() == 0  # nothing is left that reaches phi


def test_without_an_inner_step_the_outer_loss_is_plain_cross_entropy():
    model = tiny("neighbors").eval()
    x, y = batch()
    outer, _, _ = meta_target_loss(model, x, y, replace(META, inner_lr=0.0), seeded())
    assert torch.allclose(outer, nn.functional.cross_entropy(model(x), y))


def test_the_inner_step_is_one_step_of_gradient_descent_on_the_drawn_labels():
    model = tiny("neighbors").eval()
    x, y = batch()
    outer, _, _ = meta_target_loss(model, x, y, replace(META, inner_lr=0.1), seeded())
    logits, features = model(x, with_features=True)
    truth = nn.functional.one_hot(y, 6).float()
    w = sample(model.label_network.latent(features, truth), seeded())
    labels = model.label_network.labels(features, w).exp().detach()
    moved = copy.deepcopy(model)
    optimizer = torch.optim.SGD(moved.backbone.parameters(), lr=0.1)
    nn.functional.cross_entropy(moved(x), labels).backward()
    optimizer.step()
    assert torch.allclose(outer, nn.functional.cross_entropy(moved(x), y), atol=1e-5)


def test_a_meta_step_moves_theta_and_phi_and_the_divergence_falls_when_it_alone_counts():
    model = tiny("neighbors")
    config = replace(META, kl=100.0, label_lr=1e-2, lr=1e-4)
    optimizer = build_optimizer(model, config)
    before = copy.deepcopy(model.state_dict())
    rows = [meta_step(model, batch(1), batch(2), optimizer, config, seeded()) for _ in range(15)]
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert not still and rows[-1]["kl"] < 0.5 * rows[0]["kl"]


def test_each_step_sees_two_different_scanners(sets, monkeypatch):
    seen, marked = [], copy.deepcopy(sets["train"])
    marked.images[marked.domains == "B"] = 255
    marked.images[marked.domains == "A"] = 0
    monkeypatch.setattr(
        neighbor_labels,
        "meta_step",
        lambda m, s, t, *rest: seen.append((s[0].mean(), t[0].mean())) or {"loss": 0.0},
    )
    fit_neighbor_labels(tiny("neighbors"), marked, sets["val"], META, size=16, progress=False)
    assert {(s.item(), t.item()) for s, t in seen} == {(0.0, 1.0), (1.0, 0.0)}


def test_refreshed_statistics_are_the_mean_over_the_batches():
    layer = nn.BatchNorm2d(1)
    model = nn.Sequential(layer)
    model.weight = layer.weight
    data = [(torch.rand(4, 1, 3, 3), None) for _ in range(3)]
    refresh_statistics(model, data)
    assert layer.running_mean.item() == pytest.approx(np.mean([x.mean().item() for x, _ in data]), rel=1e-5)
    assert layer.momentum == 0.1


@pytest.mark.parametrize("task", ["rotation", "neighbors"])
def test_the_recipe_runs_and_its_weights_come_back(task, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMINAR_PROFILE", "smoke")
    monkeypatch.setenv("SEMINAR_RESULTS", str(tmp_path / "results.jsonl"))
    few = {split: load("phantoms", split, n=96, scanner="AB") for split in ("train", "val", "test")}
    monkeypatch.setattr(Recipe, "make_sets", lambda recipe: few)
    name = f"resnet_small_{task}-phantoms-s7"
    card = recipes.pretrain(name, folder=tmp_path, progress=False)
    assert ("rotation_accuracy" in card["metrics"]) == (task == "rotation")
    assert ("erm_config" in card) == (task == "neighbors")
    assert load_checkpoint(name, folder=tmp_path)(torch.rand(2, 1, 32, 32)).shape == (2, 6)
    assert sorted(path.suffix for path in tmp_path.glob(f"{name}*")) == [".json", ".safetensors"]
