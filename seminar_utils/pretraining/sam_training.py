"""The training and fine-tuning of SAM's family: a plain loop that resumes exactly.

What is trained is what `requires_grad`: everything, the decoder alone (`tune_decoder`, then the images are encoded
only once), or the corrections of `adaptation.lora.add_lora`. Losses and simulated prompts: `sam.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..models.sam import Sam
from ..models.sam_transforms import SamTransform
from ..runtime import SeminarError
from .crops import blur, jitter
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
)
from .sam import MaskLoss, interactive_loss


class Objects(NamedTuple):
    """Images and the M objects to find in each, in the model's own frame; made by `make_objects`."""

    images: Tensor  # (N, C, S, S), what the encoder reads
    targets: Tensor  # (N, M, 4h, 4w), boolean


@dataclass(frozen=True)
class SamConfig:
    """The settings of a run; `lr` is the peak rate, `warmup` counts epochs, `rounds` the prompts in a row.

    by_box: the share of the batches whose first prompt is a box, the others begin with a point; jitter: see
    `sam.jitter_boxes`; intensity: see `vary` (0: images as they are; a frozen encoder always sees them so).
    (SAM: 11 rounds, lr 8e-4, decay 0.1, 256 images a batch, half boxes.)
    """

    epochs: int = 20
    batch_size: int = 16
    lr: float = 8e-4
    min_lr: float = 0.0
    warmup: float = 1.0
    weight_decay: float = 0.1
    rounds: int = 3
    by_box: float = 0.5
    jitter: float = 0.1
    intensity: float = 0.0
    seed: int = 0
    loss: MaskLoss = field(default_factory=MaskLoss)

    def __post_init__(self):
        whole = self.epochs >= 1 and self.batch_size >= 1 and self.rounds >= 1
        shares = 0 <= self.by_box <= 1 and 0 <= self.intensity <= 1
        if not whole or self.lr <= 0 or not shares or self.jitter < 0:
            raise SeminarError(
                "SAM needs epochs, batch_size and rounds >= 1, lr > 0, by_box and intensity in [0, 1] and "
                f"jitter >= 0, got {self}"
            )


def make_objects(model: Sam, images: np.ndarray, masks: np.ndarray | Tensor) -> Objects:
    """Put images (N, H, W, C) and masks of M objects in each (N, M, H, W), nonzero inside, into the model's frame.

    Raises SeminarError if they do not fit together, or if a mask is empty at the size of the model's masks.
    """
    masks = torch.as_tensor(np.asarray(masks)) != 0
    if masks.ndim != 4 or len(images) != len(masks) or images.shape[1:3] != masks.shape[2:]:
        raise SeminarError(
            "expected images (N, H, W, C) and masks (N, M, H, W) of the same N, H and W, "
            f"got {images.shape} and {tuple(masks.shape)}"
        )
    x = torch.stack([model.transform.image(image) for image in images])  # (N, C, S, S)
    side = 4 * x.shape[-1] // model.image_encoder.stride
    targets = target_masks(model.transform, masks, side)
    empty = ~targets.any(dim=(2, 3))
    if empty.any():
        image, place = empty.nonzero()[0].tolist()
        raise SeminarError(f"object {place} of image {image} has no pixel at {side} x {side}: leave it out")
    return Objects(x, targets)


def target_masks(transform: SamTransform, masks: Tensor, side: int) -> Tensor:
    """Masks (N, M, H, W) of the user's images -> (N, M, side, side), as the decoder should draw them."""
    inside = transform.input_size(*masks.shape[2:])
    square = transform.pad(F.interpolate(masks.float(), inside, mode="bilinear", antialias=True))
    return F.interpolate(square, (side, side), mode="area") >= 0.5


def tune_decoder(model: Sam) -> Sam:
    """Freeze everything but the mask decoder, as in MedSAM's cheapest recipe; returns the model."""
    model.requires_grad_(False).mask_decoder.requires_grad_(True)
    return model


def train_what_moves(model: nn.Module) -> None:
    """Train mode where a parameter moves, eval mode elsewhere: a frozen BatchNorm keeps its statistics."""
    for module in model.modules():  # parents first: their children decide for themselves afterwards
        module.train(any(p.requires_grad for p in module.parameters()))


@torch.no_grad()
def embed_all(model: Sam, images: Tensor, batch_size: int = 32) -> Tensor:
    """The embeddings (N, D, h, w) of all images (N, C, S, S)."""
    device = device_of(model)
    return torch.cat([model.encode(part.to(device)).cpu() for part in images.split(batch_size)])


def vary(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Images (B, C, S, S) in [0, 1] as other machines might give them: brightness, contrast, blur, noise."""
    if not strength:
        return x
    x = blur(jitter(x, strength, strength, 0.8, generator), (0.1, 2 * strength), 0.5, generator)
    spread = strength / 4 * torch.rand(len(x), 1, 1, 1, generator=generator)  # of the noise, (B, 1, 1, 1)
    return (x + (spread * torch.randn(x.shape, generator=generator)).to(x)).clamp(0, 1)


def batches(count: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Shuffled indices of an epoch; the last batch may be short."""
    yield from torch.randperm(count, generator=generator).split(batch_size)


def train_epoch(
    model: Sam,
    objects: Objects,
    embeddings: Tensor | None,
    optimizer: torch.optim.Optimizer,
    generator: Generator,
    epoch: int,
    config: SamConfig,
    bar=None,
) -> list[Row]:
    """One pass over the images; with `embeddings` (N, D, h, w) of a frozen encoder it is not run again."""
    train_what_moves(model)
    rows, device, steps = [], device_of(model), -(-len(objects.images) // config.batch_size)
    for step, chosen in enumerate(batches(len(objects.images), config.batch_size, generator)):
        lr = half_cosine(epoch + step / steps, config.lr, config.min_lr, config.warmup, config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = lr
        targets = objects.targets[chosen].to(device)  # (B, M, 4h, 4w)
        index = torch.arange(len(chosen), device=device).repeat_interleave(targets.shape[1])  # (B * M,)
        by_box = torch.rand(1, generator=generator).item() < config.by_box
        options = {"rounds": config.rounds, "by_box": by_box, "generator": generator, "jitter": config.jitter}
        with mixed_precision(device):
            if embeddings is None:
                x = vary(objects.images[chosen].to(device), config.intensity, generator)
                embedded = model.encode(x)  # (B, D, h, w)
            else:
                embedded = embeddings[chosen].to(device)
            loss = interactive_loss(
                model, embedded, index, targets.flatten(0, 1)[:, None].float(), config.loss, **options
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rows.append({"loss": loss.item(), "lr": lr})
        if bar is not None:
            bar.set_postfix(loss=f"{rows[-1]['loss']:.3f}", refresh=False)
            bar.update()
    return rows


def fit_sam(
    model: Sam,
    objects: Objects,
    config: SamConfig,
    *,
    evaluate: Callable[[Sam], Row] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train in place what requires a gradient; returns the history, one row an epoch.

    Args: objects: see `make_objects`; evaluate: called after each epoch, its numbers join the row; checkpoint: a
    file written after each epoch, from which a killed run goes on exactly. A frozen encoder reads every image
    only once. Raises SeminarError when nothing is to be trained, the loss is no longer finite, or the checkpoint
    belongs to other settings.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise SeminarError("every parameter is frozen: there is nothing to train")
    groups = parameter_groups(model, config.weight_decay)
    optimizer, device = torch.optim.AdamW(groups), device_of(model)
    parts = {"model": model, "optimizer": optimizer}
    history = load_run(checkpoint, config, device, **parts) or []
    frozen = not any(p.requires_grad for p in model.image_encoder.parameters())
    embeddings = embed_all(model.eval(), objects.images) if frozen else None
    steps = -(-len(objects.images) // config.batch_size)
    for epoch in range(len(history), config.epochs):
        _, generator = seed_epoch(config.seed, epoch)
        with epoch_bar(epoch, config.epochs, steps, progress) as bar:
            rows = train_epoch(model, objects, embeddings, optimizer, generator, epoch, config, bar)
        row = mean_rows(rows)
        check_loss(row["loss"], epoch, config.lr)
        history.append({"epoch": epoch + 1, **row, **(evaluate(model.eval()) if evaluate else {})})
        save_run(checkpoint, config, history, **parts)
    return history
