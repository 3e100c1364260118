"""Exercises of lesson 02: from an image to a sequence, and attention over it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Case, Exercise


def num_tokens(image_size: int, patch_size: int) -> int:
    """Length of the sequence for a square image: its patches and one class token."""
    return (image_size // patch_size) ** 2 + 1


def patchify(x: Tensor, p: int) -> Tensor:
    """Cut x (B, C, H, W) into p x p patches, row by row: (B, N, C*p*p), N = (H/p) * (W/p).

    Inside a patch the order is channel, row, column: that of a Conv2d weight (D, C, p, p), so that
    `patchify(x, p) @ conv.weight.flatten(1).T + conv.bias` is a convolution with kernel = stride = p.
    """
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // p, p, width // p, p)  # (B, C, rows, p, columns, p)
    x = x.permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, p, p)
    return x.reshape(batch, -1, channels * p * p)  # (B, N, C*p*p)


def sequence(x_patches: Tensor, cls_token: Tensor, pos_embed: Tensor) -> Tensor:
    """Class token in front, then positions added to all: (B, N, D), (1, 1, D), (1, N+1, D) -> (B, N+1, D).

    Dosovitskiy et al. 2021 (arXiv 2010.11929), equation 1.
    """
    cls = cls_token.expand(len(x_patches), -1, -1)  # (B, 1, D)
    return torch.cat([cls, x_patches], dim=1) + pos_embed  # (B, N+1, D)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q (B, heads, N, d) and k, v (B, heads, M, d): (B, heads, N, d).

    Vaswani et al. 2017 (arXiv 1706.03762), equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, heads, N, M)
    return scores.softmax(dim=-1) @ v  # (B, heads, N, d)


def num_tokens_cases() -> list[Case]:
    """One patch, the course's ViT-tiny, ViT-B/16 and B/32."""
    sizes = [(8, 8), (8, 4), (32, 4), (28, 7), (224, 16), (224, 32)]
    return [Case(lambda s=s: {"image_size": s[0], "patch_size": s[1]}) for s in sizes]


def _counted(shape: tuple[int, ...], p: int) -> Case:
    return Case(lambda: {"x": torch.arange(float(math.prod(shape))).view(shape), "p": p})


def patchify_cases() -> list[Case]:
    """Numbered pixels: a 4 x 4 image, two channels, an image wider than high, a batch."""
    return [
        _counted((1, 1, 4, 4), 2),
        _counted((1, 2, 2, 2), 2),
        _counted((1, 1, 2, 6), 2),
        _counted((1, 2, 4, 6), 2),
        _counted((2, 3, 12, 8), 4),
    ]


def _sequence(batch: int, n: int, dim: int) -> Case:
    def make() -> dict[str, object]:
        patches = torch.arange(float(batch * n * dim)).view(batch, n, dim)
        positions = 100 * torch.arange(1.0, n + 2).view(1, -1, 1).expand(1, n + 1, dim).clone()
        return {"x_patches": patches, "cls_token": -torch.ones(1, 1, dim), "pos_embed": positions}

    return Case(make)


def sequence_cases() -> list[Case]:
    """One patch, then several, then a batch."""
    return [_sequence(1, 1, 1), _sequence(1, 3, 2), _sequence(3, 4, 5)]


def _qkv(batch: int, heads: int, n: int, m: int, d: int, scale: float = 1.0) -> Case:
    def make() -> dict[str, object]:
        q, k = scale * torch.randn(batch, heads, n, d), torch.randn(batch, heads, m, d)
        return {"q": q, "k": k, "v": torch.randn(batch, heads, m, d)}

    return Case(make)


def attention_cases() -> list[Case]:
    """Two tokens; heads; other keys than queries; scores so large that exp overflows."""
    return [_qkv(1, 1, 2, 2, 2), _qkv(1, 2, 3, 3, 4), _qkv(2, 3, 2, 5, 4), _qkv(1, 1, 2, 3, 4, 150.0)]


EXERCISES = (
    Exercise(
        id="vit.num_tokens",
        lesson="02_vision_transformer",
        title="how long the sequence is",
        difficulty=1,
        minutes=3,
        implementation=f"{__name__}:num_tokens",
        cases=num_tokens_cases,
        hints=(
            "Draw the grid of patches on the image: it has two directions. And one token is no patch.",
            "Patches in a row, times patches in a column, plus the class token.",
            "(image_size // patch_size) ** 2 + 1, in whole numbers.",
        ),
    ),
    Exercise(
        id="vit.patchify",
        lesson="02_vision_transformer",
        title="an image as a sequence of patches",
        difficulty=3,
        minutes=12,
        implementation=f"{__name__}:patchify",
        cases=patchify_cases,
        hints=(
            "A reshape never changes the order of the numbers in memory: alone it cuts strips, not squares. "
            "Look at the first patch of the counterexample: which four pixels should it hold?",
            "Split both sides: (B, C, H/p, p, W/p, p). Then bring the two grid axes to the front and keep "
            "channel, row, column at the end.",
            "x.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * p * p)",
        ),
    ),
    Exercise(
        id="vit.sequence",
        lesson="02_vision_transformer",
        title="class token and positions",
        difficulty=1,
        minutes=5,
        implementation=f"{__name__}:sequence",
        cases=sequence_cases,
        gradient_to=("x_patches", "cls_token", "pos_embed"),
        hints=(
            "There are N + 1 positions for N patches: who has the first one? And every image needs its own copy.",
            "Put the class token in front of every image's patches (expand it over the batch, cat along "
            "the axis of tokens), and only then add the positions.",
            "torch.cat([cls_token.expand(B, -1, -1), x_patches], dim=1) + pos_embed",
        ),
    ),
    Exercise(
        id="vit.attention",
        lesson="02_vision_transformer",
        title="attention, written out",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:attention",
        cases=attention_cases,
        gradient_to=("q", "k", "v"),
        hints=(
            "Each query asks: how much do I take from each value? Its weights over the KEYS sum to one. "
            "And what are the scores divided by, so that d does not matter?",
            "scores = q @ k.transpose(-2, -1), of shape (B, heads, N, M), scaled so that their variance "
            "does not grow with d.",
            "(q @ k.transpose(-2, -1) / math.sqrt(d)).softmax(dim=-1) @ v; softmax() subtracts the maximum "
            "for you, exp() / sum() overflows.",
        ),
    ),
)
