"""The training of DINO: algorithm 1 of the paper as `train_step`, and a plain loop that resumes exactly.

Caron et al., 2021 (arXiv 2104.14294, section 3.2 and appendix). Parts are in `dino.py`, views in `crops.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime import SeminarError
from .crops import MultiCrop
from .dino import DINO, cosine_schedule, update_teacher
from .optim import parameter_groups
from .resume import (
    Row,
    check_loss,
    device_of,
    epoch_bar,
    load_run,
    mean_rows,
    mixed_precision,
    save_run,
    seed_epoch,
    unlabelled,
)


@dataclass(frozen=True)
class DINOConfig:
    """The settings of a run, by default the paper's; `lr` is the peak rate for 256 images, scaled with the batch.

    clip: largest norm of ONE parameter's gradient (0: no clipping); freeze_last_layer: epochs in which the
    prototypes stand still. Small batches want a slower teacher: 0.9995 at 256 (section 5.5).
    """

    epochs: int = 100
    batch_size: int = 64
    lr: float = 5e-4
    min_lr: float = 1e-6
    warmup: int = 10
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    momentum: float = 0.996
    clip: float = 3.0
    freeze_last_layer: int = 1
    seed: int = 0
    crops: MultiCrop = field(default_factory=MultiCrop)

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or not 0 <= self.momentum <= 1 or self.clip < 0:
            raise SeminarError(
                f"DINO needs epochs >= 1, batch_size >= 1, lr > 0, momentum in [0, 1] and clip >= 0, got {self}"
            )


Schedules = dict[str, np.ndarray]


def make_schedules(config: DINOConfig, steps: int) -> Schedules:
    """Learning rate, weight decay and teacher momentum for every iteration of the run."""
    lr = config.lr * config.batch_size / 256
    return {
        "lr": cosine_schedule(lr, config.min_lr, config.epochs, steps, config.warmup),
        "weight_decay": cosine_schedule(config.weight_decay, config.final_weight_decay, config.epochs, steps),
        "momentum": cosine_schedule(config.momentum, 1.0, config.epochs, steps),
    }


@torch.no_grad()
def clip_each_gradient(model: nn.Module, max_norm: float) -> None:
    """Shorten every parameter's gradient to `max_norm` by itself: not the usual norm over all of them."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.mul_((max_norm / (p.grad.norm() + 1e-6)).clamp(max=1))


def cancel_last_layer(student: nn.Module) -> None:
    """Drop the prototypes' gradients, so that AdamW passes them over: no step, no decay, no moments."""
    for name, p in student.named_parameters():
        if "last_layer" in name:
            p.grad = None


def train_step(
    dino: DINO, crops: Sequence[Tensor], optimizer: torch.optim.Optimizer, now: Row, epoch: int, config: DINOConfig
) -> float:
    """Algorithm 1: both look, the student learns, the teacher follows. Returns the loss.

    Args: crops: [globals (2B, C, g, g), locals (n * B, C, l, l)], crop after crop; now: this iteration's lr,
    weight_decay and momentum.
    """
    for group in optimizer.param_groups:
        group["lr"] = now["lr"]
    optimizer.param_groups[0]["weight_decay"] = now["weight_decay"]
    with mixed_precision(crops[0].device):
        student = dino.student(crops)  # ((2 + n) * B, K)
        with torch.no_grad():
            teacher = dino.teacher(crops[:1])  # (2B, K): the global crops only
    loss = dino.criterion(student, teacher, epoch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip:
        clip_each_gradient(dino.student, config.clip)
    if epoch < config.freeze_last_layer:
        cancel_last_layer(dino.student)
    optimizer.step()
    update_teacher(dino.teacher, dino.student, now["momentum"])
    return loss.item()


def train_epoch(
    dino: DINO,
    batches: Iterable[Sequence[Tensor]],
    optimizer: torch.optim.Optimizer,
    schedules: Schedules,
    epoch: int,
    steps: int,
    config: DINOConfig,
    bar=None,
) -> list[Row]:
    """One pass over `batches` of crops; returns a row of loss and monitor for every step."""
    dino.train()
    rows = []
    for step, crops in enumerate(batches):
        now = {name: float(values[epoch * steps + step]) for name, values in schedules.items()}
        loss = train_step(dino, crops, optimizer, now, epoch, config)
        rows.append({"loss": loss, **dino.criterion.monitor})
        if bar is not None:
            seen = rows[-1]
            entropy = f"{seen['teacher_entropy']:.2f}/{seen['ln_k']:.2f}"
            bar.set_postfix(loss=f"{loss:.3f}", entropy=entropy, kl=f"{seen['kl']:.3f}", refresh=False)
            bar.update()
    return rows


def build_optimizer(dino: DINO) -> torch.optim.AdamW:
    """AdamW over the student; every step sets its rate and its decay."""
    return torch.optim.AdamW(parameter_groups(dino.student))


def fit_dino(
    dino: DINO,
    train: Any,
    config: DINOConfig,
    *,
    size: int | None = None,
    channels: int | None = None,
    evaluate: Callable[[nn.Module], Row] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train in place on the images of `train` (labels unused); returns the history, one row an epoch.

    Args: size, channels: passed on to the set's loader; evaluate: called with the teacher's backbone after
    each epoch, its numbers join the row (for example kNN over time); checkpoint: a file written after each
    epoch, from which a killed run goes on exactly. Each row has the loss and the collapse monitor; the bar
    shows the teacher's entropy over ln K. Raises SeminarError when the loss is no longer finite, the set does
    not fill a batch, a crop is larger than the images, or the checkpoint belongs to other settings.
    """
    optimizer, device = build_optimizer(dino), device_of(dino)
    parts = {"dino": dino, "optimizer": optimizer}
    history = load_run(checkpoint, config, device, **parts) or []
    steps = len(unlabelled(train, config.batch_size, 0, size, channels))
    schedules = make_schedules(config, steps)
    for epoch in range(len(history), config.epochs):
        seed, generator = seed_epoch(config.seed, epoch)
        loader = unlabelled(train, config.batch_size, seed, size, channels)
        batches = (config.crops(x.to(device), generator) for x, _ in loader)
        with epoch_bar(epoch, config.epochs, steps, progress) as bar:
            row = mean_rows(train_epoch(dino, batches, optimizer, schedules, epoch, steps, config, bar))
        check_loss(row["loss"], epoch, config.lr)
        row = {"epoch": epoch + 1, **row, **(evaluate(dino.teacher.backbone) if evaluate else {})}
        history.append(row)
        save_run(checkpoint, config, history, **parts)
    return history
