"""CLIP's training: every image must find its caption among all captions of the batch, and the other way round.

Radford et al., 2021 (arXiv 2103.00020, figure 3): a symmetric cross-entropy over the similarities of a batch
(InfoNCE) with a learnt temperature. Batch size, schedule and AdamW as in open_clip, at the size of a laptop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..data.dataset import ImageSet, to_float
from ..models.clip import CLIP
from ..runtime import SeminarError
from .captions import drop_words, hard_negative_batches
from .supervised import TrainState, build_optimizer, learning_rate, load_state, save_state

MAX_LOGIT_SCALE = math.log(100)


def clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of a batch: mean of the cross-entropies of rows and columns, pairs on the diagonal.

    Args: features (B, D) of length 1; logit_scale: the LOGARITHM of the factor, as the model learns it.
    Raises SeminarError if the two do not have the same shape.
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2:
        raise SeminarError(
            f"image and text features are both (B, D), got {tuple(image_features.shape)} and "
            f"{tuple(text_features.shape)}"
        )
    logits = logit_scale.exp() * image_features @ text_features.T  # (B, B)
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


class GatherFeatures(torch.autograd.Function):
    """The rows of all processes, one below the other; gradients go back to the process a row came from."""

    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        """(B, D) here -> (processes * B, D), in the order of the ranks."""
        parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Add up what all processes ask of each row, keep our rows."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def joint_clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """`clip_loss` of the joined batch of all processes, each holding the same number of pairs.

    With one process it is `clip_loss`. All processes get the same loss; each asks for the whole gradient, so
    `GatherFeatures` adds up as many copies as there are processes, and the mean of the parameters' gradients
    over the processes (`average_gradients`, DistributedDataParallel) is that of one process with the joined batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return clip_loss(image_features, text_features, logit_scale)
    gathered = GatherFeatures.apply(torch.stack([image_features, text_features], dim=1))  # (all, 2, D)
    return clip_loss(*gathered.unbind(dim=1), logit_scale)


@torch.no_grad()
def average_gradients(model: torch.nn.Module) -> None:
    """Mean of every gradient over the processes, as DistributedDataParallel takes it; nothing with one process."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


@torch.no_grad()
def clamp_logit_scale(model: CLIP) -> None:
    """Keep exp(logit_scale) between 1 and 100; called AFTER the optimiser's step (section 2.5)."""
    model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


@dataclass(frozen=True)
class ClipTrainConfig:
    """The settings of a run: `lr` is the peak rate, `warmup` counts epochs.

    caption_dropout: share of the words left out of the captions, anew in each batch, so that short prompts
    are understood too. hard_share: share of the batches whose captions differ in one factor only, from epoch
    `hard_after` on (what is easy is learnt faster without them); `vary` names the factors (all, if empty).
    """

    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 64
    weight_decay: float = 0.2
    warmup: float = 1.0
    caption_dropout: float = 0.0
    hard_share: float = 0.5
    hard_after: int = 0
    vary: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 2 or self.lr <= 0:
            raise SeminarError(f"training needs epochs >= 1, batch_size >= 2 and lr > 0, got {self}")
        if not 0 <= self.caption_dropout < 1 or not 0 <= self.hard_share <= 1:
            raise SeminarError(f"caption_dropout lies in [0, 1) and hard_share in [0, 1], got {self}")


@dataclass
class Run:
    """What stays the same during a run: the set, its captions as ids, and what is done to each batch."""

    train: ImageSet
    ids: Tensor
    size: int | None
    channels: int | None
    augment: Callable[[Tensor], Tensor] | None

    def pairs(self, rows: np.ndarray, caption_dropout: float) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and ids (B, L) of these rows; with several processes, this one's share."""
        x = to_float(self.train.images[rows], self.size, self.channels)  # (B, C, H, W)
        x, ids = self.augment(x) if self.augment else x, drop_words(self.ids[rows], caption_dropout)
        if not (dist.is_available() and dist.is_initialized()):
            return x, ids
        rank, processes = dist.get_rank(), dist.get_world_size()
        share = slice(rank, len(rows) // processes * processes, processes)  # the same number for each
        return x[share], ids[share]


def train_clip_epoch(model, run: Run, batches, optimizer, scaler, config, epoch: int, bar) -> dict[str, float]:
    """One pass over `batches` of rows; returns mean loss and accuracy: how often an image finds its caption."""
    device = model.logit_scale.device
    total_loss, correct, seen = 0.0, 0, 0
    model.train()
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch + step / len(batches))
        x, ids = (part.to(device, non_blocking=True) for part in run.pairs(rows, config.caption_dropout))
        with torch.autocast(device.type, enabled=device.type == "cuda"):  # slower, not faster, on CPU
            image, text = model.encode_image(x, normalize=True), model.encode_text(ids, normalize=True)
        loss = joint_clip_loss(image.float(), text.float(), model.logit_scale)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        average_gradients(model)
        scaler.step(optimizer)
        scaler.update()
        clamp_logit_scale(model)
        total_loss, seen = total_loss + loss.item() * len(x), seen + len(x)
        correct += ((image @ text.T).argmax(dim=1).cpu() == torch.arange(len(x))).sum().item()
        bar.set_postfix(loss=f"{total_loss / seen:.3f}", accuracy=f"{correct / seen:.3f}", refresh=False)
        bar.update()
    return {"loss": total_loss / seen, "accuracy": correct / seen, "logit_scale": model.logit_scale.exp().item()}


def fit_clip(
    model: CLIP,
    tokenizer: Callable[[Any], Tensor],
    train: ImageSet,
    config: ClipTrainConfig,
    *,
    size: int | None = None,
    channels: int | None = None,
    factors: Mapping[str, np.ndarray] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    evaluate: Callable[[CLIP], dict[str, float]] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place on the images and captions of `train`; returns the history, one dict per epoch.

    Args: size, channels: of the images the model reads; factors: what the captions say, name -> (N,)
    integers, for `hard_share` of the batches (without it all are drawn at random); augment: a function of
    the batch; evaluate: a function of the model, in eval mode, whose numbers join the history; checkpoint: a
    file written after each epoch, from which a killed run goes on exactly.
    Raises SeminarError for a set without captions, a loss that is not finite, or another run's checkpoint.
    """
    if train.captions is None:
        raise SeminarError(f"CLIP learns from captions, the data set {train.name!r} has none")
    run = Run(train, tokenizer(train.captions), size, channels, augment)
    optimizer = build_optimizer(model, config)
    for group in optimizer.param_groups:
        group.update(betas=(0.9, 0.98), eps=1e-6)  # open_clip's for a ViT
    scaler = torch.amp.GradScaler(enabled=model.logit_scale.device.type == "cuda")
    state = TrainState()
    if checkpoint and Path(checkpoint).exists():
        state = load_state(checkpoint, model, optimizer, scaler, config)
    while state.epoch < config.epochs:
        torch.manual_seed(config.seed * 100_003 + state.epoch)  # words dropped: a function of the epoch
        batches = list(epoch_batches(len(train), config, state.epoch, factors))
        title = f"epoch {state.epoch + 1}/{config.epochs}"
        quiet = {} if progress else {"disable": True}  # left open, TQDM_DISABLE=1 decides
        with tqdm(total=len(batches), desc=title, leave=False, mininterval=0.5, **quiet) as bar:
            row = train_clip_epoch(model, run, batches, optimizer, scaler, config, state.epoch, bar)
        if not math.isfinite(row["loss"]):
            raise SeminarError(f"the loss is {row['loss']} in epoch {state.epoch + 1}: lower lr (now {config.lr})")
        state.epoch += 1
        state.history.append({"epoch": state.epoch, **row, **(evaluate(model.eval()) if evaluate else {})})
        if checkpoint and not (dist.is_available() and dist.is_initialized() and dist.get_rank()):
            save_state(checkpoint, state, model, optimizer, scaler, config)
    model.eval()
    return state.history


def epoch_batches(
    count: int, config: ClipTrainConfig, epoch: int, factors: Mapping[str, np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Rows (B,) of each batch of an epoch: a shuffled pass in which hard batches take the place of some."""
    if count < config.batch_size:
        raise SeminarError(f"{count} captioned images do not fill one batch of {config.batch_size}")
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(count)[: count // config.batch_size * config.batch_size]
    share = config.hard_share if factors and epoch >= config.hard_after else 0.0
    hard = hard_negative_batches(factors, config.batch_size, rng, config.vary) if share else None
    for rows in order.reshape(-1, config.batch_size):
        yield next(hard) if hard and rng.random() < share else rows
