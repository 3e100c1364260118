"""Exercises of lesson 03: windows, what they cost, who may see whom, where the other stands, merging."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .base import Case, Exercise, WrongAnswer


def cost_of_windows(height: int, width: int, dim: int, window: int) -> int:
    """Multiplications of windowed self-attention on a map of height x width tokens (an int).

    Liu et al. 2021 (arXiv 2103.14030), equation 2: 4 h w C^2 + 2 M^2 h w C, with C = dim.
    """
    tokens = height * width
    return 4 * tokens * dim**2 + 2 * window**2 * tokens * dim


def four_neighbours(x: Tensor) -> Tensor:
    """The four tokens of every 2 x 2 square side by side: (B, H, W, D) -> (B, H/2, W/2, 4D).

    In the official order: down the first column, then down the second.
    """
    four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return torch.cat(four, dim=-1)  # (B, H/2, W/2, 4D)


def _counted(shape: tuple[int, ...], **others: int) -> Case:
    return Case(lambda: {"x": torch.arange(float(math.prod(shape))).view(shape), **others})


def window_partition_cases() -> list[Case]:
    """Numbered tokens: four windows, a map wider than high, channels, a batch."""
    return [
        _counted((1, 4, 4, 1), window=2),
        _counted((1, 2, 6, 1), window=2),
        _counted((1, 6, 3, 2), window=3),
        _counted((3, 4, 8, 5), window=4),
    ]


def cost_cases() -> list[Case]:
    """One token, the course's Swin-tiny, the four stages of Swin-T, a map that is not square."""
    sizes = [(1, 1, 1, 1), (2, 3, 1, 1), (2, 2, 3, 2), (16, 16, 32, 4), (56, 56, 96, 7), (7, 7, 768, 7)]
    return [Case(lambda s=s: dict(zip(("height", "width", "dim", "window"), s))) for s in sizes]


def relative_index_cases() -> list[Case]:
    """Windows of 1, 2, 3 and 7."""
    return [Case(lambda w=w: {"window": w}) for w in (1, 2, 3, 7)]


def shift_mask_cases() -> list[Case]:
    """Two windows and a shift to the right; both directions; a shift along one side only; an uneven shift."""
    sizes = [(2, 4, 2, (0, 1)), (4, 4, 2, (1, 1)), (4, 8, 4, (0, 2)), (6, 9, 3, (1, 1)), (8, 12, 4, (1, 3))]
    return [Case(lambda s=s: dict(zip(("height", "width", "window", "shift"), s))) for s in sizes]


def window_by_window(mask: Tensor, arguments: dict[str, Any]) -> Any:
    """The mask in pieces small enough to be printed, so that a counterexample shows where it differs."""
    height, width, window, _ = arguments.values()
    tokens = window**2
    shape = (height * width // tokens, tokens, tokens)
    if not isinstance(mask, Tensor):
        return mask
    if tuple(mask.shape) != shape or mask.dtype != torch.float32:
        kind = str(mask.dtype).removeprefix("torch.")
        raise WrongAnswer(f"expected a float32 tensor of shape {shape}, got {kind} {tuple(mask.shape)}")
    if window == 2:
        return {f"window {i}": pairs for i, pairs in enumerate(mask)}
    return {f"window {i}, token i = {j}": row for i, pairs in enumerate(mask) for j, row in enumerate(pairs)}


def patch_merging_cases() -> list[Case]:
    """One square of four numbered tokens, several squares, channels, a batch."""
    return [_counted((1, 2, 2, 1)), _counted((1, 2, 4, 1)), _counted((1, 4, 2, 3)), _counted((2, 6, 4, 5))]


EXERCISES = (
    Exercise(
        id="swin.window_partition",
        lesson="03_swin",
        title="a map cut into windows",
        difficulty=2,
        minutes=8,
        implementation="seminar_utils.models.windows:window_partition",
        cases=window_partition_cases,
        gradient_to=("x",),
        hints=(
            "A reshape alone cuts strips, not squares. Write down which four tokens of a 4 x 4 map belong to the "
            "first window of 2 x 2.",
            "Split both sides: (B, H/M, M, W/M, M, D). Then the two axes that count windows must come before "
            "the two that count tokens inside a window.",
            "x.reshape(B, H // M, M, W // M, M, D).transpose(2, 3).reshape(-1, M * M, D)",
        ),
    ),
    Exercise(
        id="swin.cost",
        lesson="03_swin",
        title="what attention in windows costs",
        difficulty=1,
        minutes=4,
        implementation=f"{__name__}:cost_of_windows",
        cases=cost_cases,
        hints=(
            "Two terms. The linear layers do not know of windows: 4 H W D^2 stays. In the second term every token "
            "meets a whole window, M tokens wide AND M high, where it met all H W.",
            "Scores and weighted sum each cost D for every pair, hence the 2. There are H W tokens, each in "
            "M^2 pairs: not M, and not M^4. The answer is a whole number, an int.",
            "4 * height * width * dim**2 + 2 * window**2 * height * width * dim",
        ),
    ),
    Exercise(
        id="swin.relative_index",
        lesson="03_swin",
        title="where the other token stands",
        difficulty=2,
        minutes=10,
        implementation="seminar_utils.models.windows:relative_positions",
        cases=relative_index_cases,
        hints=(
            "Give every token of the window its (row, column). The offset of a pair is place of i minus place of "
            "j, and runs from 1 - M to M - 1: how many values are that?",
            "Add M - 1, so that offsets start at 0; then number the pairs (rows, columns) as the places of a "
            "square with sides 2M - 1, row by row.",
            "(row_i - row_j + M - 1) * (2 * M - 1) + (column_i - column_j + M - 1), whole numbers (M^2, M^2).",
        ),
    ),
    Exercise(
        id="swin.shift_mask",
        lesson="03_swin",
        title="who may see whom after a shift",
        difficulty=3,
        minutes=15,
        implementation="seminar_utils.models.windows:shift_mask",
        cases=shift_mask_cases,
        observe=window_by_window,
        hints=(
            "Number the rolled map: rows and columns that rolling brought round belong to another region than "
            "the rest. With a shift in both directions there are four regions.",
            "Rolling by s puts the first s rows behind the last ones: in the rolled map they are the rows from "
            "height - s on. Cut the map of region numbers into windows, as you cut tokens.",
            "region (num_windows, M^2) from window_partition; the mask is -100 where "
            "region[:, :, None] != region[:, None, :], else 0, as float.",
        ),
    ),
    Exercise(
        id="swin.patch_merging",
        lesson="03_swin",
        title="four neighbours side by side",
        difficulty=2,
        minutes=6,
        implementation=f"{__name__}:four_neighbours",
        cases=patch_merging_cases,
        gradient_to=("x",),
        hints=(
            "x[:, 0::2, 0::2] holds the upper left token of every square of four.",
            "The order is that of the official files, and not that of reading: from the upper left token go DOWN "
            "first, then to the right.",
            "torch.cat of x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2], dim=-1",
        ),
    ),
)
