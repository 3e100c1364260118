"""DINO's loss, head, schedules and three epochs of training against the official code (golden cases 9 and 9b).

SEMINAR_GOLDEN=<folder> runs the same tests on other files of the same layout.
"""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seminar_utils.models.vit import interpolate_positions
from seminar_utils.pretraining.dino import DINO, DINOHead, DINOLoss, cosine_schedule
from seminar_utils.pretraining.dino_training import DINOConfig, build_optimizer, train_epoch
from seminar_utils.pretraining.optim import parameter_groups
from seminar_utils.teaching.golden import golden

WORST = {}
SCHEDULES = {"lr": "lr", "weight_decay": "wd", "momentum": "momentum"}  # ours, official


@pytest.fixture(scope="module", autouse=True)
def print_the_worst():
    yield
    print("\n" + "; ".join(f"{name}: max |difference| {value:.1e}" for name, value in WORST.items()))


def close(name, got, expected, atol=1e-8):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == np.shape(expected)
    WORST[name] = max(WORST.get(name, 0.0), float(np.abs(got - expected).max()))
    np.testing.assert_allclose(got, expected, atol=atol, rtol=0)


def tensors(data, prefix):
    return {key[len(prefix) :]: torch.from_numpy(value) for key, value in data.items() if key.startswith(prefix)}


def variants(data, pattern):
    return sorted({match[1] for key in data if (match := re.match(pattern, key))})


# --- the loss --------------------------------------------------------------------------------------------


def make_loss(data, out_dim):
    names = ("teacher_temp", "warmup_teacher_temp", "student_temp", "center_momentum")
    settings = {name: float(data[f"hp:{name}"]) for name in names}
    epochs = int(data["hp:warmup_teacher_temp_epochs"])
    return DINOLoss(out_dim, warmup_teacher_temp_epochs=epochs, **settings).double()


def test_loss_gradient_and_centre_of_consecutive_calls():
    data = golden("dino_loss")
    calls = len(data["in:epochs"])
    criterion = make_loss(data, data["in:call0:student"].shape[1])
    for call in range(calls):
        student = torch.from_numpy(data[f"in:call{call}:student"]).requires_grad_(True)
        teacher = torch.from_numpy(data[f"in:call{call}:teacher"])
        assert len(student) == len(teacher) // 2 * (2 + int(data["hp:n_local"]))
        close("centre", criterion.center, data[f"out:call{call}:center_before"])
        loss = criterion(student, teacher, int(data["in:epochs"][call]))
        loss.backward()
        close("loss", loss, data[f"out:call{call}:loss"])
        close("loss gradient", student.grad, data[f"out:call{call}:grad_student"])
        close("centre", criterion.center, data[f"out:call{call}:center_after"])


def test_teacher_temperatures():
    data = golden("dino_loss")
    criterion = make_loss(data, 4)
    got = [criterion.temperature(epoch) for epoch in range(int(data["hp:nepochs"]))]
    close("temperature", got, data["out:teacher_temp_schedule"], atol=1e-12)


@pytest.mark.parametrize("name", variants(golden("dino_loss"), r"out:schedule:(\w+)"))
def test_schedules(name):
    data = golden("dino_loss")
    hp = {key: data.get(f"hp:schedule:{name}:{key}", 0) for key in ("warmup_epochs", "start_warmup_value")}
    base, final = (float(data[f"hp:schedule:{name}:{key}_value"]) for key in ("base", "final"))
    epochs, steps = (int(data[f"hp:schedule:{name}:{key}"]) for key in ("epochs", "niter_per_ep"))
    warmup, start = int(hp["warmup_epochs"]), float(hp["start_warmup_value"])
    got = cosine_schedule(base, final, epochs, steps, warmup, start)
    close("schedules", got, data[f"out:schedule:{name}"], atol=1e-12)


# --- the head --------------------------------------------------------------------------------------------


def make_head(data, layers, **options):
    sizes = {key: int(data[f"hp:head:{key}"]) for key in ("in_dim", "out_dim", "hidden_dim", "bottleneck_dim")}
    return DINOHead(**sizes, num_layers=layers, **options).double()


@pytest.mark.parametrize("head", variants(golden("dino_loss"), r"w:(head\d+):"))
def test_head_with_the_official_weight_names(head):
    data = golden("dino_loss")
    ours = make_head(data, int(head[4:]))
    ours.load_state_dict(tensors(data, f"w:{head}:"), strict=True)
    close("head", ours(torch.from_numpy(data[f"in:{head}:x"])), data[f"out:{head}:y"])
    lengths = ours.last_layer.parametrizations.weight.original0
    assert lengths.requires_grad == bool(data[f"out:{head}:weight_g_requires_grad"])
    free = make_head(data, int(head[4:]), norm_last_layer=False)
    key = f"out:{head}_norm_last_layer_False:weight_g_requires_grad"
    assert free.last_layer.parametrizations.weight.original0.requires_grad == bool(data.get(key, True))


@pytest.mark.parametrize("head", variants(golden("dino_loss"), r"in:(head\d+)_g:weight_g"))
def test_head_with_other_lengths_of_the_prototypes(head):
    data = golden("dino_loss")
    ours = make_head(data, int(head[4:]))
    lengths = {"last_layer.weight_g": torch.from_numpy(data[f"in:{head}_g:weight_g"])}
    ours.load_state_dict({**tensors(data, f"w:{head}:"), **lengths}, strict=True)
    close("head", ours(torch.from_numpy(data[f"in:{head}:x"])), data[f"out:{head}_g:y"])


def test_positions_for_other_image_sizes():
    data = golden("dino_loss")
    if "in:pos_embed" not in data:
        pytest.skip("this golden file has no position embeddings")
    pos = torch.from_numpy(data["in:pos_embed"])
    for side in variants(data, r"out:pos_embed_for_(\d+)px"):
        got = interpolate_positions(pos, (int(side) // 8,) * 2, "dino")
        close("positions", got, data[f"out:pos_embed_for_{side}px"])


# --- three epochs of training ----------------------------------------------------------------------------


class Backbone(nn.Module):
    """The golden case's stand-in for a ViT: pool to 4 x 4, flatten, linear, tanh, LayerNorm."""

    def __init__(self, in_dim, dim, channels):
        super().__init__()
        self.proj, self.ln = nn.Linear(in_dim, dim), nn.LayerNorm(dim)
        self.side = round((in_dim / channels) ** 0.5)

    def forward(self, x):
        return self.ln(torch.tanh(self.proj(F.adaptive_avg_pool2d(x, self.side).flatten(1))))


def official_names(module):
    new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    names = {}
    for name, value in module.named_parameters():
        for ours, theirs in new.items():
            name = name.replace(ours, theirs)
        names[name] = value
    return names


def make_dino(data):
    dim, in_dim = data["w:backbone.proj.weight"].shape
    layers = max(len(variants(data, r"w:head\.mlp\.(\d+)\.weight")), 1)
    first = "w:head.mlp.0.weight" if layers > 1 else "w:head.mlp.weight"
    out_dim, bottleneck = data["w:head.last_layer.weight_v"].shape
    head = {"num_layers": layers, "hidden_dim": len(data[first]), "bottleneck_dim": bottleneck}
    head["norm_last_layer"] = "head.last_layer.weight_g" not in data["out:regularized_names"].tolist()
    names = ("teacher_temp", "warmup_teacher_temp", "student_temp", "center_momentum")
    loss = {name: float(data[f"hp:{name}"]) for name in names}
    loss["warmup_teacher_temp_epochs"] = int(data["hp:warmup_teacher_temp_epochs"])
    channels = data["in:epoch0:global"].shape[3]  # [iteration, crop, B, C, H, W]
    dino = DINO(Backbone(in_dim, dim, channels), dim, out_dim, head, **loss).double()
    dino.student.load_state_dict(tensors(data, "w:"), strict=True)
    dino.teacher.load_state_dict(tensors(data, "w:"), strict=True)
    return dino


def test_parameter_groups():
    data = golden("dino_train")
    dino = make_dino(data)
    names = {id(p): name for name, p in official_names(dino.student).items()}
    matrices, plain = ([names[id(p)] for p in group["params"]] for group in parameter_groups(dino.student))
    assert matrices == data["out:regularized_names"].tolist()
    assert plain == data["out:not_regularized_names"].tolist()


def test_training_takes_the_official_path():
    data = golden("dino_train")
    dino, steps = make_dino(data), int(data["hp:niter_per_ep"])
    schedules = {name: data[f"hp:{key}_schedule"] for name, key in SCHEDULES.items()}
    clip, freeze = float(data["hp:clip_grad"]), int(data["hp:freeze_last_layer"])
    config = DINOConfig(epochs=int(data["hp:epochs"]), clip=clip, freeze_last_layer=freeze)
    optimizer = build_optimizer(dino)
    assert optimizer.defaults["betas"] == tuple(data["hp:adamw_betas"])
    assert optimizer.defaults["eps"] == float(data["hp:adamw_eps"])
    losses = []
    for epoch in range(config.epochs):
        views = [torch.from_numpy(data[f"in:epoch{epoch}:{kind}"]) for kind in ("global", "local")]
        batches = [
            [view[step].flatten(0, 1) for view in views if view.shape[1]] for step in range(steps)
        ]  # crop after crop
        losses += [row["loss"] for row in train_epoch(dino, batches, optimizer, schedules, epoch, steps, config)]
        for who in ("student", "teacher"):
            for name, p in official_names(getattr(dino, who)).items():
                close(who, p, data[f"out:epoch{epoch}:{who}:{name}"])
        close("centre in training", dino.criterion.center, data[f"out:epoch{epoch}:center"])
    close("losses", losses, data["out:losses"])
