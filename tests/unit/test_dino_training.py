"""DINO's parts and its loop: views, schedules, teacher, an exact resume, and a collapse that is seen."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from seminar_utils.data import load
from seminar_utils.models import create_model
from seminar_utils.models.layers import DropPath
from seminar_utils.pretraining import dino_training
from seminar_utils.pretraining.crops import MultiCrop, blur, cut, jitter, random_boxes, random_resized_crop
from seminar_utils.pretraining.dino import (
    DINO,
    DINOHead,
    collapse_kind,
    collapse_monitor,
    cosine_schedule,
    cross_view_loss,
    update_teacher,
)
from seminar_utils.pretraining.dino_training import (
    DINOConfig,
    build_optimizer,
    cancel_last_layer,
    clip_each_gradient,
    fit_dino,
    make_schedules,
)
from seminar_utils.pretraining.resume import seed_epoch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- views -----------------------------------------------------------------------------------------------


def ramp(height=24, width=24, count=4):
    """Images whose two channels say where a pixel is: x and y in [0, 1]."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([x, y]).expand(count, 2, height, width).clone()


def test_the_whole_image_is_the_image():
    x = torch.rand(3, 1, 20, 20, generator=generator())
    whole, no = (torch.full((3, 2), 0.5), torch.ones(3, 2)), torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(cut(x, *whole, no, 20), x)
    torch.testing.assert_close(cut(x, *whole, ~no, 20), x.flip(-1))


def test_a_crop_shows_its_box():
    centres, sides = torch.tensor([[0.3, 0.6]]), torch.tensor([[0.4, 0.5]])
    view = cut(ramp(48, 48, 1), centres, sides, torch.tensor([False]), 8)
    inside = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(view[0, 0, 0], 0.1 + 0.4 * inside, atol=1e-5, rtol=0)  # x along the first row
    torch.testing.assert_close(view[0, 1, :, 0], 0.35 + 0.5 * inside, atol=1e-5, rtol=0)


def test_boxes_have_the_area_they_should_and_stay_inside():
    centres, sides = random_boxes(4000, 40, 20, (0.1, 0.3), generator())
    assert (centres - sides / 2).min() >= -1e-6 and (centres + sides / 2).max() <= 1 + 1e-6
    area = sides.prod(dim=1)
    assert 0.0999 < area.min() and area.max() < 0.3001 and abs(area.mean() - 0.2) < 0.005
    ratio = sides[:, 0] * 20 / (sides[:, 1] * 40)
    assert 0.7499 < ratio.min() and ratio.max() < 1.3334
    whole, _ = random_boxes(100, 40, 20, (1.0, 1.0), generator())
    assert whole[:, 0].eq(0.5).all()  # as wide as the image: no room to move


def test_local_crops_are_smaller_pieces():
    views = MultiCrop(24, 12, 8, blur=(0, 0, 0), jitter=0.0)(ramp(count=32), generator())
    big, small = ((v.amax((2, 3)) - v.amin((2, 3))).prod(dim=1).mean().item() for v in views)
    assert 0.5 < big < 0.8 and 0.1 < small < 0.3


@pytest.mark.parametrize("channels", [1, 3])
def test_multi_crop_shapes_order_and_seed(channels):
    x = torch.rand(5, channels, 32, 40, generator=generator())
    crops = MultiCrop(32, 16, 3)
    views = crops(x, generator(7))
    assert [v.shape for v in views] == [(10, channels, 32, 32), (15, channels, 16, 16)]
    assert all(v.min() >= 0 and v.max() <= 1 for v in views)
    again, other = crops(x, generator(7)), crops(x, generator(8))
    assert all(torch.equal(a, b) for a, b in zip(views, again)) and not torch.equal(views[0], other[0])
    assert len(MultiCrop(32, 16, 0)(x, generator())) == 1
    constant = torch.arange(1.0, 6).view(5, 1, 1, 1).expand(5, channels, 32, 32) / 10
    order = MultiCrop(32, 16, 3, jitter=0.0)(constant, generator())[1].mean(dim=(1, 2, 3))
    torch.testing.assert_close(order, (torch.arange(1.0, 6) / 10).repeat(3))  # crop after crop


def test_flips_happen_as_often_as_asked():
    x = ramp(count=400)
    for flip, expected in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        views = random_resized_crop(x, 8, (0.5, 1.0), generator(), flip)
        mirrored = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean().item()
        assert mirrored == pytest.approx(expected, abs=0.08)


def test_jitter_changes_brightness_and_contrast_of_some():
    x = torch.rand(400, 1, 8, 8, generator=generator()) * 0.4 + 0.3
    assert torch.equal(jitter(x, 0.4, 0.4, 0.0, generator()), x)
    seen = jitter(x, 0.2, 0.2, 0.5, generator())
    changed = (seen - x).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 0.4 < changed.float().mean() < 0.6
    contrast = jitter(x, 0.0, 0.3, 1.0, generator())
    torch.testing.assert_close(contrast.mean((1, 2, 3)), x.mean((1, 2, 3)))
    assert ((contrast.std((1, 2, 3)) / x.std((1, 2, 3)) - 1).abs() > 0.01).float().mean() > 0.9


def test_blur_is_a_gaussian_of_its_width():
    dot = torch.zeros(2, 3, 21, 21)
    dot[:, :, 10, 10] = 1
    assert torch.equal(blur(dot, (1.0, 1.5), 0.0, generator()), dot)
    seen = blur(dot, (1.5, 1.5), 1.0, generator())
    several = blur(dot, (0.5, 2.5), 1.0, generator())
    assert torch.equal(several[:, 0], several[:, 1]) and not torch.equal(several[0], several[1])  # one an image
    place = torch.arange(21.0) - 10
    torch.testing.assert_close(seen.sum((2, 3)), torch.ones(2, 3))
    for axis in (2, 3):
        variance = (seen.sum(axis) * place**2).sum(-1)
        torch.testing.assert_close(variance, torch.full((2, 3), 1.5**2), atol=0.1, rtol=0)


# --- schedules, head, teacher ----------------------------------------------------------------------------


def test_warm_up_includes_both_ends_and_the_base_is_repeated():
    values = cosine_schedule(1.0, 0.1, epochs=5, steps=4, warmup_epochs=2, start=0.2)
    assert len(values) == 20 and values[0] == 0.2 and values[7] == values[8] == 1.0
    assert np.diff(values[:8]) == pytest.approx(0.8 / 7)
    assert values[14] == pytest.approx(0.55) and 0.1 < values[-1] < 0.12


def test_schedules_of_a_run():
    config = DINOConfig(epochs=4, batch_size=64, lr=1e-3, warmup=1)
    schedules = make_schedules(config, steps=10)
    assert schedules["lr"][0] == 0 and schedules["lr"].max() == pytest.approx(1e-3 / 4)
    assert schedules["weight_decay"][0] == pytest.approx(0.04) and np.all(np.diff(schedules["weight_decay"]) > 0)
    assert schedules["momentum"][0] == pytest.approx(0.996) and 0.9999 < schedules["momentum"][-1] < 1


def test_the_head_s_scores_are_cosines():
    torch.manual_seed(0)
    head = DINOHead(12, out_dim=30, hidden_dim=20, bottleneck_dim=8)
    scores = head(100 * torch.randn(6, 12))
    prototypes = head.last_layer.weight
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(30))
    assert scores.shape == (6, 30) and scores.abs().max() <= 1 + 1e-6
    assert sum(p.requires_grad for p in head.last_layer.parameters()) == 1


def small_dino(drop_path=0.0, out_dim=64, **loss):
    torch.manual_seed(0)
    size = {"img_size": 16, "dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0, "drop_path": drop_path}
    vit = create_model("vit_tiny", interpolation="dino", **size)
    return DINO(vit, 32, out_dim, {"hidden_dim": 64, "bottleneck_dim": 16}, **loss)


def test_the_teacher_starts_as_a_copy_without_gradients_and_drops_no_paths():
    dino = small_dino(drop_path=0.5).train()
    pairs = list(zip(dino.student.parameters(), dino.teacher.parameters()))
    assert all(torch.equal(s, t) and s is not t and not t.requires_grad for s, t in pairs)
    rates = {name: [m.rate for m in getattr(dino, name).modules() if isinstance(m, DropPath)] for name in NETWORKS}
    assert rates["student"] == [0.0, 0.5] and rates["teacher"] == [0.0, 0.0]
    x = [torch.rand(8, 1, 16, 16)]
    assert torch.equal(dino.teacher(x), dino.teacher(x)) and not torch.equal(dino.student(x), dino.student(x))


NETWORKS = ("student", "teacher")


def test_the_teacher_follows():
    slow, fast = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = [0.9 * s.detach() + 0.1 * f.detach() for s, f in zip(slow.parameters(), fast.parameters())]
    update_teacher(slow, fast, 0.9)
    assert all(torch.allclose(p, e) for p, e in zip(slow.parameters(), expected))


def test_a_view_is_not_its_own_target():
    """Written out pair by pair: teacher crop i against student crop j != i."""
    B, K = 3, 5
    logits, targets = torch.randn(4 * B, K), torch.rand(2 * B, K).softmax(dim=1)
    log_p, terms = logits.log_softmax(dim=1), []
    for i in range(2):
        for j in range(4):
            if i != j:
                terms.append(-(targets[i * B : (i + 1) * B] * log_p[j * B : (j + 1) * B]).sum(dim=1).mean())
    assert len(terms) == 6
    torch.testing.assert_close(cross_view_loss(logits, targets), torch.stack(terms).mean())


# --- gradients -------------------------------------------------------------------------------------------


def test_each_gradient_is_clipped_by_itself():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for factor, p in zip((100.0, 1e-3, 100.0, 0.0), model.parameters()):
        p.grad = factor * torch.ones_like(p)
    clip_each_gradient(model, 2.0)
    norms = [p.grad.norm().item() for p in model.parameters()]
    assert norms == pytest.approx([2.0, 1e-3 * 3**0.5, 2.0, 0.0], rel=1e-4)


def test_frozen_prototypes_do_not_even_decay():
    dino = small_dino()
    optimizer = build_optimizer(dino)
    for group in optimizer.param_groups:
        group.update(lr=0.1, weight_decay=0.5)
    before = dino.student.head.last_layer.weight.detach().clone()
    dino.student([torch.rand(4, 1, 16, 16)]).sum().backward()
    cancel_last_layer(dino.student)
    optimizer.step()
    assert torch.equal(dino.student.head.last_layer.weight, before)
    assert not any("last_layer" in n and p.grad is not None for n, p in dino.student.named_parameters())


# --- collapse --------------------------------------------------------------------------------------------


def test_the_monitor_tells_the_two_collapses_from_health():
    one_hot = torch.eye(8)[torch.zeros(32, dtype=torch.long)]
    healthy = torch.eye(8)[torch.arange(32) % 8]
    uniform = torch.full((32, 8), 1 / 8)
    table = {name: collapse_monitor(q) for name, q in (("o", one_hot), ("h", healthy), ("u", uniform))}
    assert [collapse_kind(table[name]) for name in "ohu"] == ["one-hot", None, "uniform"]
    assert table["h"]["kl"] == pytest.approx(math.log(8)) and table["o"]["kl"] == table["u"]["kl"] == 0
    assert table["u"]["teacher_entropy"] == pytest.approx(math.log(8)) == table["u"]["ln_k"]


@pytest.fixture(scope="module")
def phantoms():
    return load("phantoms", "train", n=256)


SMALL = {"batch_size": 32, "momentum": 0.99, "warmup": 2, "crops": MultiCrop(16, 8, 2)}


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("one-hot", {"center_momentum": 1.0}),  # no centring: one prototype wins everywhere
        ("uniform", {"teacher_temp": 1.0, "warmup_teacher_temp": 1.0}),  # no sharpening: all tie
    ],
)
def test_a_provoked_collapse_is_seen(phantoms, kind, loss):
    config = DINOConfig(epochs=8, lr=1.6e-2, **SMALL)
    history = fit_dino(small_dino(**loss), phantoms, config, size=16, progress=False)
    last = history[-1]
    assert collapse_kind(last) == kind and last["kl"] < 0.01
    limit = 0.0 if kind == "one-hot" else math.log(64)
    assert last["teacher_entropy"] == pytest.approx(limit, abs=0.05)
    assert last["mean_entropy"] == pytest.approx(limit, abs=0.05)


# --- the loop --------------------------------------------------------------------------------------------


def run(images, epochs=4, **options):
    dino = small_dino(drop_path=0.2)
    config = DINOConfig(epochs=epochs, lr=4e-3, seed=3, **SMALL)
    return dino, fit_dino(dino, images, config, size=16, progress=False, **options)


def test_a_killed_run_ends_with_the_same_weights(phantoms, tmp_path, monkeypatch):
    images = phantoms.subset(range(96))
    expected, expected_history = run(images)
    real, calls = dino_training.train_step, []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) == 2 * 3 + 2:  # in the middle of epoch 3
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(dino_training, "train_step", dies_later)
        with pytest.raises(KeyboardInterrupt):
            run(images, checkpoint=tmp_path / "run.pt")
    torch.rand(7)  # whatever else used torch's generator meanwhile
    dino, history = run(images, checkpoint=tmp_path / "run.pt")
    assert history == expected_history and [row["epoch"] for row in history] == [1, 2, 3, 4]
    state, other = dino.state_dict(), expected.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in other)
    assert not list(tmp_path.glob("*.part"))


def test_every_epoch_and_every_seed_has_its_own_views():
    drawn = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        _, views = seed_epoch(seed, epoch)
        drawn.setdefault((torch.rand(1).item(), torch.rand(1, generator=views).item()), []).append((seed, epoch))
    assert sorted(map(len, drawn.values())) == [1, 1, 2]
    assert len({views for _, views in drawn}) == 3 and len({dropped for dropped, _ in drawn}) == 3


def test_mixed_precision_keeps_the_loss_in_float32(phantoms, monkeypatch):
    """What CUDA does, done on the CPU: the networks in bfloat16, everything else as ever."""
    images = phantoms.subset(range(64))
    _, exact = run(images, epochs=2)
    monkeypatch.setattr(dino_training, "mixed_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    dino, history = run(images, epochs=2)
    assert history != exact and history[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05)
    assert {value.dtype for value in dino.state_dict().values()} == {torch.float32}


def test_an_evaluation_joins_the_history_and_changes_nothing(phantoms):
    images = phantoms.subset(range(64))

    def evaluate(backbone):
        backbone.eval()
        return {"noise": torch.rand(()).item(), "width": backbone.num_features}

    plain, history = run(images, epochs=2)
    probed, rows = run(images, epochs=2, evaluate=evaluate)
    assert [row["width"] for row in rows] == [32, 32]
    assert [row["loss"] for row in rows] == [row["loss"] for row in history]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), probed.parameters()))


def test_the_bar_shows_entropy_and_its_limit(phantoms):
    class Bar:
        shown = {}

        def set_postfix(self, **values):
            self.shown.update(values)

        def update(self):
            pass

    dino, config = small_dino(), DINOConfig(**SMALL)
    batches = [[torch.rand(8, 1, 16, 16), torch.rand(8, 1, 8, 8)]]
    schedules = {"lr": [1e-3], "weight_decay": [0.0], "momentum": [0.9]}
    dino_training.train_epoch(dino, batches, build_optimizer(dino), schedules, 0, 1, config, Bar())
    assert Bar.shown["entropy"].endswith("/4.16") and "kl" in Bar.shown


def test_a_resnet_can_be_a_backbone(phantoms):
    torch.manual_seed(0)
    dino = DINO(create_model("resnet_small", num_classes=0), 64, 32, {"hidden_dim": 32, "bottleneck_dim": 8})
    config = DINOConfig(epochs=2, **SMALL)
    history = fit_dino(dino, phantoms.subset(range(32)), config, size=16, progress=False)
    assert math.isfinite(history[0]["loss"])
