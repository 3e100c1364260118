"""The course's own small checkpoints: safetensors files with a card, made by `seminar pretrain NAME`.

A card (JSON, same name) says how the weights were made and what they reach: recipe command, model and
its arguments, data, seed, settings, metrics with intervals, versions, commit, and the file's sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..runtime import SeminarError, place_model, shipped_dir, unknown_name

# families with a recipe whose weights are not in data/checkpoints, and why
UNSHIPPED = {"resnet_small-wbc": "the images of d1 are under GPL-3.0"}


def checkpoint_dir() -> Path:
    """The folder the course's checkpoints lie in."""
    return shipped_dir() / "checkpoints"


def list_checkpoints() -> list[str]:
    """Names of the checkpoints that ship with the course."""
    return sorted(path.stem for path in checkpoint_dir().glob("*.safetensors"))


def checkpoint_card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The card of a checkpoint: how it was made, on what, and what it reaches."""
    path = (folder or checkpoint_dir()) / f"{name}.json"
    if not path.is_file():
        raise unknown_name("checkpoint", name, list_checkpoints())
    return json.loads(path.read_text(encoding="utf-8"))


def compress(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Halve the matrices' storage (float16); vectors and statistics keep float32."""
    return {
        name: (value.half() if value.is_floating_point() and value.ndim >= 2 else value).contiguous().cpu()
        for name, value in state.items()
    }


def save_checkpoint(model: nn.Module, name: str, card: dict[str, Any], folder: Path | None = None) -> Path:
    """Write weights and card; the card gets the sha256 of the file. Returns the path of the weights."""
    folder = folder or checkpoint_dir()
    folder.mkdir(parents=True, exist_ok=True)
    content = save(compress(model.state_dict()))
    write_atomically(folder / f"{name}.safetensors", content)
    card = {**card, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_atomically(folder / f"{name}.json", (json.dumps(card, indent=1) + "\n").encode())
    return folder / f"{name}.safetensors"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def load_weights_file(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint file as float32, after its hash was checked.

    Raises SeminarError when the file is missing, cut short, or not the one the card describes.
    """
    if not path.is_file():
        raise SeminarError(f"the weights {path.name} are missing beside their card: seminar pretrain {path.stem}")
    content = path.read_bytes()
    came = hashlib.sha256(content).hexdigest()
    if came != sha256:
        raise SeminarError(f"{path.name} is damaged: sha256 {came[:12]}..., its card says {sha256[:12]}...")
    try:
        state = load(content)
    except SafetensorError as error:
        raise SeminarError(f"{path.name} can't be read as safetensors: {error}") from error
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in state.items()}


def load_checkpoint(name: str, device: str | torch.device | None = None, folder: Path | None = None) -> nn.Module:
    """A model of the course with its trained weights, in eval mode, on the CPU unless `device` is given.

    Args: name: one of `list_checkpoints()`, e.g. "resnet_small-phantoms-s0". Input of these models:
    floats in [0, 1] of the size their card states. Raises SeminarError for an unknown or damaged file.
    """
    from ..models import create_model

    card = checkpoint_card(name, folder)
    state = load_weights_file((folder or checkpoint_dir()) / f"{name}.safetensors", card["sha256"])
    model = create_model(card["model"], **card["model_args"])
    model.load_state_dict(state, strict=True)
    return place_model(model, device or "cpu").eval()
