"""The rotation task: which way up is this image? Labels for nothing, if the images have an upright.

Gidaris, Singh and Komodakis, Unsupervised representation learning by predicting image rotations, ICLR 2018
(arXiv 1803.07728). An organ that looks the same from all sides has no answer to give: then the task teaches
the position of the bed, or nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..runtime import SeminarError

TURNS = 4


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn image i of x (B, C, S, S) by turns[i] quarter turns (0..3), counter-clockwise.

    Raises SeminarError for images that are not square: a quarter turn would change their shape.
    """
    if x.ndim != 4 or x.shape[-1] != x.shape[-2]:
        raise SeminarError(f"quarter turns need square images (B, C, S, S), got {tuple(x.shape)}")
    turned = torch.stack([torch.rot90(x, k, dims=(2, 3)) for k in range(TURNS)])  # (4, B, C, S, S)
    return turned[turns.to(x.device), torch.arange(len(x), device=x.device)]  # (B, C, S, S)


def all_rotations(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, C, S, S) -> every image in all four positions (4B, C, S, S), and the number of turns (4B,)."""
    turns = torch.arange(TURNS, device=x.device).repeat_interleave(len(x))  # (4B,)
    return rotate(x.repeat(TURNS, 1, 1, 1), turns), turns


def random_rotations(x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """x (B, C, S, S) -> every image in one random position (B, C, S, S), and the number of turns (B,)."""
    turns = torch.randint(TURNS, (len(x),), generator=generator).to(x.device)  # drawn on the CPU
    return rotate(x, turns), turns


def rotation_loss(outputs: Tensor, turns: Tensor) -> Tensor:
    """Mean cross-entropy of the outputs (B, 4) against the turns (B,): ln 4 = 1.386 for a guess."""
    return F.cross_entropy(outputs, turns)
