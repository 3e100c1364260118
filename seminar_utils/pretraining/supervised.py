"""Supervised training: the plain loop that every checkpoint of this course went through.

AdamW (Loshchilov and Hutter, 2019), linear warm-up then cosine decay, label smoothing, class-balanced
sampling, mixed precision on CUDA, early stopping on the validation set, and a resume that gives the
same weights as a run that was never killed.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..runtime import SeminarError


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run: `lr` is the peak rate, `warmup` and `patience` count epochs."""

    epochs: int = 20
    lr: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.05
    warmup: float = 1.0
    label_smoothing: float = 0.1
    patience: int | None = None
    balanced: bool = True
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or not 0 <= self.label_smoothing < 1:
            raise SeminarError(
                f"training needs epochs >= 1, batch_size >= 1, lr > 0 and label_smoothing in [0, 1), got {self}"
            )


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
    if epoch < config.warmup:
        return config.lr * epoch / config.warmup
    progress = (epoch - config.warmup) / max(config.epochs - config.warmup, 1e-9)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: biases, norms, tokens and positions keep their scale."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or name.endswith(("cls_token", "pos_embed"))]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith(("cls_token", "pos_embed"))]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr)


def train_epoch(model, loader, optimizer, scaler, config, epoch: int, augment, bar) -> dict[str, float]:
    """One pass over `loader`; returns mean loss and accuracy of the epoch."""
    device = next(model.parameters()).device
    total_loss, correct, seen = 0.0, 0, 0
    model.train()
    for step, (x, y) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch + step / len(loader))
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        x = augment(x) if augment else x  # (B, C, H, W)
        with torch.autocast(device.type, enabled=device.type == "cuda"):  # slower, not faster, on CPU
            logits = model(x)  # (B, K)
            loss = F.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total_loss, seen = total_loss + loss.item() * len(y), seen + len(y)
        correct += (logits.argmax(dim=1) == y).sum().item()
        bar.set_postfix(loss=f"{total_loss / seen:.3f}", accuracy=f"{correct / seen:.3f}", refresh=False)
        bar.update()
    return {"loss": total_loss / seen, "accuracy": correct / seen}


@torch.inference_mode()
def predict(model: nn.Module, loader) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and labels (N,) of everything in `loader`, on the CPU, in eval mode."""
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
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place and leave it with its best weights on `val`; returns the history.

    Args: train, val: image sets (anything with `.loader(batch_size, ...)`); size, channels: passed on to
    their loaders; augment: a function of the batch; checkpoint: a file written after each epoch, from
    which a killed run goes on exactly. The history has one dict per epoch.
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
        torch.manual_seed(config.seed * 100_003 + state.epoch)  # dropout and augmentation: a function of the epoch
        loader = train.loader(
            config.batch_size,
            shuffle=True,
            balanced=config.balanced,
            seed=config.seed * 100_003 + state.epoch,
            size=size,
            channels=channels,
        )
        title = f"epoch {state.epoch + 1}/{config.epochs}"
        quiet = {} if progress else {"disable": True}  # left open, TQDM_DISABLE=1 decides
        with tqdm(total=len(loader), desc=title, leave=False, mininterval=0.5, **quiet) as bar:
            row = train_epoch(model, loader, optimizer, scaler, config, state.epoch, augment, bar)
        if not math.isfinite(row["loss"]):
            raise SeminarError(f"the loss is {row['loss']} in epoch {state.epoch + 1}: lower lr (now {config.lr})")
        record(state, model, {"epoch": state.epoch + 1, **row, **validate(model, val_loader)})
        if checkpoint:
            save_state(checkpoint, state, model, optimizer, scaler, config)
    model.load_state_dict(state.best_weights)
    return state.history


def record(state: TrainState, model: nn.Module, row: dict[str, float]) -> None:
    """Add an epoch to the history and keep its weights if validation never was better."""
    state.epoch += 1
    state.history.append(row)
    if row["val_balanced_accuracy"] > state.best_score:
        state.best_score, state.best_epoch = row["val_balanced_accuracy"], state.epoch
        state.best_weights = copy.deepcopy(model.state_dict())


def stopped_early(state: TrainState, config: TrainConfig) -> bool:
    """True when validation has not improved for `patience` epochs."""
    return config.patience is not None and state.epoch - state.best_epoch >= config.patience


def save_state(path, state: TrainState, model, optimizer, scaler, config: TrainConfig) -> None:
    """Write everything a run needs to go on; the file is complete or it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        "config": asdict(config),
        "state": vars(state),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    part = path.with_suffix(path.suffix + ".part")
    torch.save(whole, part)
    os.replace(part, path)


def load_state(path, model, optimizer, scaler, config: TrainConfig) -> TrainState:
    """Take a run up again; refuses a file of a run with other settings."""
    device = next(model.parameters()).device
    whole = torch.load(path, map_location=device, weights_only=True)
    if whole["config"] != asdict(config):
        raise SeminarError(f"{path} is of a run with {whole['config']}, not {asdict(config)}: delete it or rename")
    model.load_state_dict(whole["model"])
    optimizer.load_state_dict(whole["optimizer"])
    scaler.load_state_dict(whole["scaler"])
    return TrainState(**whole["state"])
