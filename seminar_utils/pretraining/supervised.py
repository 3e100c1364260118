"""Supervised training: the plain loop that every checkpoint of this course went through.

AdamW (Loshchilov and Hutter, 2019), linear warm-up then cosine decay, label smoothing, class-balanced
sampling, mixed precision on CUDA, early stopping on the validation set, and a resume that gives the
same weights as a run that was never killed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from ..runtime import SeminarError
from .optim import half_cosine, parameter_groups
from .resume import check_loss, epoch_bar, load_run, save_run, seed_epoch


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run: `lr` is the peak rate, `warmup` and `patience` count epochs.

    `layer_decay` below 1 fine-tunes a ViT gently: every block learns that much slower than the one above it.
    """

    epochs: int = 20
    lr: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.05
    warmup: float = 1.0
    label_smoothing: float = 0.1
    patience: int | None = None
    balanced: bool = True
    seed: int = 0
    layer_decay: float = 1.0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or not 0 <= self.label_smoothing < 1:
            raise SeminarError(
                f"training needs epochs >= 1, batch_size >= 1, lr > 0 and label_smoothing in [0, 1), got {self}"
            )
        if not 0 < self.layer_decay <= 1:
            raise SeminarError(f"training needs layer_decay in (0, 1], got {self.layer_decay}")


@dataclass
class TrainState:
    """Where a run stands: finished epochs, the history so far, and the best weights on validation."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """Linear warm-up, then half a cosine down to zero; `epoch` may be fractional."""
    return half_cosine(epoch, config.lr, 0.0, config.warmup, config.epochs)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: biases, norms, tokens and positions keep their scale."""
    if getattr(config, "layer_decay", 1.0) < 1:
        return torch.optim.AdamW(layer_groups(model, config.weight_decay, config.layer_decay), lr=config.lr)
    groups = parameter_groups(model, config.weight_decay, ("cls_token", "pos_embed"))
    return torch.optim.AdamW(groups, lr=config.lr)


def layer_groups(model: nn.Module, weight_decay: float, layer_decay: float = 0.65) -> list[dict[str, Any]]:
    """Parameter groups of a ViT whose `lr_scale` falls by `layer_decay` from the head down to the patches.

    Embeddings are layer 0, block i is layer i + 1, the head and the last norm are on top and learn at the full
    rate. 0.65 is what MAE fine-tunes ViT-B with (arXiv 2111.06377, table 9; Clark et al., 2020, 2003.10555).
    Raises SeminarError for a model without `blocks`.
    """
    if not isinstance(getattr(model, "blocks", None), nn.ModuleList):
        raise SeminarError(f"layer_decay needs a model with blocks, such as a ViT, got {type(model).__name__}")
    top, groups = len(model.blocks) + 1, {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        block = re.match(r"blocks\.(\d+)\.", name)
        embeds = name.startswith(("cls_token", "pos_embed", "patch_embed"))
        layer = int(block[1]) + 1 if block else 0 if embeds else top
        decay = 0.0 if p.ndim < 2 or name.endswith(("cls_token", "pos_embed")) else weight_decay
        new = {"params": [], "weight_decay": decay, "lr_scale": layer_decay ** (top - layer)}
        groups.setdefault((layer, decay), new)["params"].append(p)
    return list(groups.values())


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The plain objective: the smoothed cross-entropy of a batch, and the logits (B, K)."""
    logits = model(x)
    return F.cross_entropy(logits, y, label_smoothing=config.label_smoothing), logits


def train_epoch(
    model, loader, optimizer, scaler, config, epoch: int, augment, bar, objective=cross_entropy
) -> dict[str, float]:
    """One pass over `loader`; returns mean loss and accuracy of the epoch."""
    device = next(model.parameters()).device
    total_loss, correct, seen = 0.0, 0, 0
    model.train()
    for step, (x, y) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch + step / len(loader)) * group.get("lr_scale", 1.0)
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        x = augment(x) if augment else x  # (B, C, H, W)
        with torch.autocast(device.type, enabled=device.type == "cuda"):  # slower, not faster, on CPU
            loss, logits = objective(model, x, y, config)  # a number, (B, K)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total_loss, seen = total_loss + loss.item() * len(y), seen + len(y)
        correct += count_right(logits, y)
        bar.set_postfix(loss=f"{total_loss / seen:.3f}", accuracy=f"{correct / seen:.3f}", refresh=False)
        bar.update()
    return {"loss": total_loss / seen, "accuracy": correct / seen}


def count_right(logits: Tensor, y: Tensor) -> float:
    """How many labels y (B,) are met; of masks (B, 1, H, W) the sum of each image's share of right pixels."""
    if y.ndim == 1:
        return (logits.argmax(dim=1) == y).sum().item()
    return ((logits > 0) == (y > 0.5)).float().mean(dim=(1, 2, 3)).sum().item()


@torch.inference_mode()
def predict(model: nn.Module, loader) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and labels (N,), or those of every pixel, of all in `loader`, on the CPU, in eval mode."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    pairs = [(model(x.to(device)).float().cpu(), y) for x, y in loader]
    model.train(was_training)
    return torch.cat([logits for logits, _ in pairs]), torch.cat([y for _, y in pairs])


def validate(model: nn.Module, loader) -> dict[str, float]:
    """Cross-entropy and balanced accuracy on the validation set: the only judge of early stopping."""
    logits, labels = predict(model, loader)
    score = balanced_accuracy_score(labels.numpy(), logits.argmax(dim=1).numpy())
    return {"val_loss": F.cross_entropy(logits, labels).item(), "val_balanced_accuracy": float(score)}


def fit(
    model: nn.Module,
    train: Any,
    val: Any,
    config: TrainConfig,
    *,
    size: int | None = None,
    channels: int | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    objective: Callable[..., tuple[Tensor, Tensor]] = cross_entropy,
    judge: Callable[[nn.Module, Any], dict[str, float]] = validate,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place and leave it with its best weights on `val`; returns the history.

    Args: train, val: image sets (anything with `.loader(batch_size, ...)`); size, channels: passed on to
    their loaders; augment: a function of the batch; objective: what is minimised, a function as
    `cross_entropy`; judge: what validation says, the last of its numbers decides which epoch was best; checkpoint:
    a file written after each epoch, from which a killed run goes on exactly. The history has one dict per epoch.
    Raises SeminarError when the loss is no longer finite or the checkpoint belongs to other settings.
    """
    optimizer = build_optimizer(model, config)
    device = next(model.parameters()).device
    scaler = torch.amp.GradScaler(enabled=device.type == "cuda")
    state = TrainState()
    if checkpoint and Path(checkpoint).exists():
        state = load_state(checkpoint, model, optimizer, scaler, config)
    val_loader = val.loader(config.batch_size, size=size, channels=channels)
    while state.epoch < config.epochs and not stopped_early(state, config):
        seed, _ = seed_epoch(config.seed, state.epoch)  # dropout and augmentation: a function of the epoch
        loader = train.loader(
            config.batch_size,
            shuffle=True,
            balanced=config.balanced,
            seed=seed,
            size=size,
            channels=channels,
        )
        with epoch_bar(state.epoch, config.epochs, len(loader), progress) as bar:
            row = train_epoch(model, loader, optimizer, scaler, config, state.epoch, augment, bar, objective)
        check_loss(row["loss"], state.epoch, config.lr)
        record(state, model, {"epoch": state.epoch + 1, **row, **judge(model, val_loader)})
        if checkpoint:
            save_state(checkpoint, state, model, optimizer, scaler, config)
    model.load_state_dict(state.best_weights)
    return state.history


def record(state: TrainState, model: nn.Module, row: dict[str, float]) -> None:
    """Add an epoch to the history and keep its weights if validation, its last number, never was better."""
    state.epoch += 1
    state.history.append(row)
    score = list(row.values())[-1]
    if score > state.best_score:
        state.best_score, state.best_epoch = score, state.epoch
        state.best_weights = copy.deepcopy(model.state_dict())


def stopped_early(state: TrainState, config: TrainConfig) -> bool:
    """True when validation has not improved for `patience` epochs."""
    return config.patience is not None and state.epoch - state.best_epoch >= config.patience


def save_state(path, state: TrainState, model, optimizer, scaler, config: TrainConfig) -> None:
    """Write everything a run needs to go on; the file is complete or it is not there."""
    save_run(path, config, vars(state), model=model, optimizer=optimizer, scaler=scaler)


def load_state(path, model, optimizer, scaler, config: TrainConfig) -> TrainState:
    """Take a run up again; refuses a file of a run with other settings."""
    device = next(model.parameters()).device
    return TrainState(**load_run(path, config, device, model=model, optimizer=optimizer, scaler=scaler))
