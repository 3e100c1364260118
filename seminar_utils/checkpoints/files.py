"""Read files of weights without running what is in them."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..runtime import SeminarError


def read_weights(path: str | Path) -> Any:
    """What torch.save (or safetensors, by its suffix) put into a file, on the CPU. Nothing in it is executed.

    Large files are mapped, not copied into memory, so use the tensors before the file is changed.
    Raises SeminarError when it is missing, damaged, or holds anything but plain values and tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise SeminarError(f"weights were expected at {path}: No such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Training checkpoints often carry their command line: a bag of values, harmless to make.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SeminarError(f"{path.name} cannot be read as weights: {reason}") from error


def unwrap(content: Any, layers: tuple[str, ...], file: str) -> dict[str, Tensor]:
    """The mapping from names to tensors inside `content`; `layers` are taken off where they are found.

    A layer is a key that holds the weights ("model"), or with a dot at its end a prefix of names ("module.").
    Raises SeminarError, naming what there is instead, when no mapping from names to tensors is left.
    """
    for layer in layers:
        if layer.endswith(".") and isinstance(content, Mapping):
            content = {str(name).removeprefix(layer): value for name, value in content.items()}
        elif isinstance(content, Mapping) and isinstance(content.get(layer), Mapping):
            content = content[layer]
    if not isinstance(content, Mapping):
        raise SeminarError(f"{file} holds no mapping from names to tensors, but {type(content).__name__}")
    other = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        held = ", ".join(other[:6]) or "nothing"
        raise SeminarError(f"{file} holds no mapping from names to tensors: beside or instead of them {held}")
    return dict(content)


def as_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision is how the files are stored, not how the course computes."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
