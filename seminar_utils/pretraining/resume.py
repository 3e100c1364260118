"""What every training loop needs around its epochs: an exact resume, a bar, a clear end when it diverges.

A run is a function of its settings and of the number of finished epochs: each epoch seeds all random numbers
anew. So a run file, written after each epoch, is enough to end with the same weights as a run never killed.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn
from tqdm.auto import tqdm

from ..runtime import SeminarError

Row = dict[str, float]


def save_run(path: str | Path | None, config: Any, history: Any, **parts: Any) -> None:
    """Write settings, history and the state of every part; the file is complete or it is not there."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items()}
    part_file = path.with_suffix(path.suffix + ".part")
    torch.save({"config": asdict(config), "state": history, **states}, part_file)
    os.replace(part_file, path)


def load_run(path: str | Path | None, config: Any, device: torch.device, **parts: Any) -> Any:
    """Put every part back into the state of a run file and return its history; None when there is no file.

    Raises SeminarError if the file is damaged, or of a run with other settings or another model.
    """
    if path is None or not Path(path).exists():
        return None
    try:
        whole = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise SeminarError(f"{path} is not a complete run file: delete it to start anew") from error
    if whole["config"] != asdict(config):
        raise SeminarError(f"{path} is of a run with {whole['config']}, not {asdict(config)}: delete it or rename")
    try:
        for name, part in parts.items():
            part.load_state_dict(whole[name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise SeminarError(f"{path} is of a run with another model: delete it or rename ({error})") from error
    return whole["state"]


def seed_epoch(seed: int, epoch: int) -> tuple[int, Generator]:
    """Seed torch for this epoch; returns the epoch's seed and a CPU generator for views and masks."""
    number = seed * 100_003 + epoch
    torch.manual_seed(number)  # dropout and drop-path
    return number, torch.Generator().manual_seed(number)


def unlabelled(images: Any, batch_size: int, seed: int, size: int | None, channels: int | None) -> Any:
    """The shuffled loader of an epoch; the incomplete last batch is dropped.

    Raises SeminarError if the set does not fill one batch.
    """
    if len(images) < batch_size:
        raise SeminarError(f"{len(images)} images do not fill one batch of {batch_size}: lower batch_size")
    options = {"size": size, "channels": channels, "seed": seed}
    return images.loader(batch_size, shuffle=True, drop_last=True, **options)


def epoch_bar(epoch: int, epochs: int, steps: int, progress: bool) -> tqdm:
    """The progress bar of one epoch."""
    quiet = {} if progress else {"disable": True}  # left open, TQDM_DISABLE=1 decides
    return tqdm(total=steps, desc=f"epoch {epoch + 1}/{epochs}", leave=False, mininterval=0.5, **quiet)


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA; on a CPU it would be slower, not faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


def check_loss(loss: float, epoch: int, lr: float) -> None:
    """Raise SeminarError when the loss is no longer finite."""
    if not math.isfinite(loss):
        raise SeminarError(f"the loss is {loss} in epoch {epoch + 1}: lower lr (now {lr})")


def mean_rows(rows: Iterator[Row]) -> Row:
    """The mean of every entry over the steps of an epoch."""
    rows = list(rows)
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
