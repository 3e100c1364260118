"""Weights: the course's own small checkpoints, and the verified download of the official ones."""

from importlib import import_module

from .course import checkpoint_card, list_checkpoints, load_checkpoint, save_checkpoint
from .registry import fetch_pretrained, list_pretrained, load_vocabulary, pretrained_info

_HOMES = {
    "load_pretrained": "pretrained",
    "pretrained_if_here": "pretrained",
    "pretrained_transform": "preprocess",
}  # need the models, or torch
__all__ = [
    "checkpoint_card",
    "fetch_pretrained",
    "list_checkpoints",
    "list_pretrained",
    "load_checkpoint",
    "load_vocabulary",
    "pretrained_info",
    "save_checkpoint",
    *_HOMES,
]


def __getattr__(name: str):
    """Import the file that holds `name` on first use (PEP 562): the doctor reads the registry without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
