"""The training of MAE: a plain loop that resumes exactly.

He et al., 2021 (arXiv 2111.06377, appendix A.1, table 8). The model: `models/mae.py`, the views: `crops.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ..models.mae import MaskedAutoencoder
from ..runtime import SeminarError
from .crops import random_resized_crop
from .optim import half_cosine, parameter_groups
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
class MAEConfig:
    """The settings of a run, by default the paper's; `lr` is the peak rate for 256 images, scaled with the batch.

    `warmup` counts epochs; `scale` is the range of the crops' share of the image's area.
    """

    epochs: int = 800
    batch_size: int = 64
    lr: float = 1.5e-4
    min_lr: float = 0.0
    warmup: float = 40
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    scale: tuple[float, float] = (0.2, 1.0)
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise SeminarError(
                f"MAE needs epochs >= 1, batch_size >= 1, lr > 0 and a scale inside (0, 1], got {self}"
            )
        if not 0 < self.mask_ratio < 1:
            raise SeminarError(f"the mask ratio lies inside (0, 1), got {self.mask_ratio}")


def learning_rate(config: MAEConfig, epoch: float) -> float:
    """The rate at a fractional epoch of this run."""
    peak = config.lr * config.batch_size / 256
    return half_cosine(epoch, peak, config.min_lr, config.warmup, config.epochs)


def build_optimizer(model: MaskedAutoencoder, config: MAEConfig) -> torch.optim.AdamW:
    """AdamW with a short memory of squares (beta 0.95); all that is 1-D does not decay."""
    return torch.optim.AdamW(parameter_groups(model, config.weight_decay), betas=(0.9, 0.95))


def train_epoch(
    model: MaskedAutoencoder,
    batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    generator: Generator,
    epoch: int,
    steps: int,
    config: MAEConfig,
    bar=None,
) -> list[Row]:
    """One pass over `batches` of images (B, C, H, W); returns a row with loss and rate for every step."""
    model.train()
    rows = []
    for step, x in enumerate(batches):
        lr = learning_rate(config, epoch + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        noise = torch.rand(len(x), model.grid**2, generator=generator)  # (B, N), the same on every device
        with mixed_precision(x.device):
            loss, _, _ = model(x, config.mask_ratio, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rows.append({"loss": loss.item(), "lr": lr})
        if bar is not None:
            bar.set_postfix(loss=f"{rows[-1]['loss']:.4f}", refresh=False)
            bar.update()
    return rows


def fit_mae(
    model: MaskedAutoencoder,
    train: Any,
    config: MAEConfig,
    *,
    channels: int | None = None,
    evaluate: Callable[[MaskedAutoencoder], Row] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train in place on the images of `train` (labels unused); returns the history, one row an epoch.

    Images are resized to the model's size. Args: channels: passed on to the set's loader; evaluate: called
    after each epoch, its numbers join the row; checkpoint: a file written after each epoch, from which a
    killed run goes on exactly. Raises SeminarError when the loss is no longer finite, the set does not fill
    a batch, the model has no decoder, or the checkpoint belongs to other settings.
    """
    if not model.has_decoder:
        raise SeminarError("this MAE has no decoder (an encoder-only file was loaded): it cannot be trained on")
    optimizer, device = build_optimizer(model, config), device_of(model)
    parts = {"model": model, "optimizer": optimizer}
    history = load_run(checkpoint, config, device, **parts) or []
    size = model.img_size
    steps = len(unlabelled(train, config.batch_size, 0, size, channels))
    for epoch in range(len(history), config.epochs):
        seed, generator = seed_epoch(config.seed, epoch)
        loader = unlabelled(train, config.batch_size, seed, size, channels)
        views = (random_resized_crop(x.to(device), size, config.scale, generator, config.flip) for x, _ in loader)
        with epoch_bar(epoch, config.epochs, steps, progress) as bar:
            rows = train_epoch(model, views, optimizer, generator, epoch, steps, config, bar)
        row = mean_rows(rows)
        check_loss(row["loss"], epoch, config.lr)
        history.append({"epoch": epoch + 1, **row, **(evaluate(model) if evaluate else {})})
        save_run(checkpoint, config, history, **parts)
    return history
