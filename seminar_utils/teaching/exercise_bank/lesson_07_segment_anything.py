"""Exercises of lesson 07: a box from a mask, a place as waves, cross-attention, Dice loss, the trusted mask."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Case, Exercise


def box_from_mask(mask: Tensor) -> Tensor:
    """The tight box around a mask (H, W): (4,) as x0, y0, x1, y1, first and last column and row of the mask."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return torch.stack([columns.min(), rows.min(), columns.max(), rows.max()]).float()


def fourier_features(places: Tensor, matrix: Tensor) -> Tensor:
    """Places (..., 2) in [0, 1] as sines, then cosines, of random mixtures: (..., 2 * F). matrix: (2, F).

    Tancik et al. 2020 (arXiv 2006.10739), as SAM uses it: the places are first stretched to [-1, 1].
    """
    angles = 2 * math.pi * ((2 * places - 1) @ matrix)  # (..., F)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def cross_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for each head, d = D / num_heads: (P, N, D), (P, M, D), (P, M, D) -> (P, N, D).

    Vaswani et al. 2017 (arXiv 1706.03762, eq. 1). Head h owns the channels h * d up to (h + 1) * d.
    """
    q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (P, heads, N or M, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) with p = sigmoid(logits), for every mask: (P, K).

    logits (P, K, h, w); target (P, 1, h, w) of 0 and 1. Milletari et al. 2016 (arXiv 1606.04797), with the p of
    the denominator not squared, as in SAM.
    """
    p = logits.sigmoid()
    both = (p * target).sum(dim=(-2, -1))
    return 1 - (2 * both + 1) / (p.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)


def trusted_mask(logits: Tensor, iou: Tensor) -> Tensor:
    """Of K masks (P, K, h, w) the one with the largest guessed IoU (P, K), for each prompt: boolean (P, h, w)."""
    best = iou.argmax(dim=1)  # (P,)
    return logits[torch.arange(len(best)), best] > 0


def box_from_mask_cases() -> list[Case]:
    """A block that can be read, one pixel, two pieces, the image's border, then a blob of anything."""

    def block(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Case:
        def make() -> dict[str, object]:
            mask = torch.zeros(height, width, dtype=torch.bool)
            for x0, y0, x1, y1 in boxes:
                mask[y0 : y1 + 1, x0 : x1 + 1] = True
            return {"mask": mask}

        return Case(make)

    return [
        block(4, 6, (1, 2, 4, 2)),
        block(5, 5, (3, 1, 3, 1)),
        block(8, 10, (1, 1, 2, 3), (6, 5, 8, 6)),
        block(6, 7, (0, 0, 6, 5)),
        Case(lambda: {"mask": torch.rand(16, 24) > 0.98}),
    ]


def fourier_features_cases() -> list[Case]:
    """The centre and a corner with mixtures that can be read; then points of many prompts, and a grid."""
    read = Case(lambda: {"places": torch.tensor([[0.5, 0.5]]), "matrix": torch.tensor([[1.0], [0.0]])})
    corner = Case(
        lambda: {"places": torch.tensor([[0.0, 0.75]]), "matrix": torch.tensor([[0.3, 0.0], [0.0, 0.4]])}
    )
    many = Case(lambda: {"places": torch.rand(3, 2, 2), "matrix": torch.randn(2, 4)})
    grid = Case(lambda: {"places": torch.rand(2, 5, 5, 2), "matrix": torch.randn(2, 8)})
    return [read, corner, many, grid]


def _attention(prompts: int, tokens: int, pixels: int, dim: int, heads: int) -> Case:
    def make() -> dict[str, object]:
        q = torch.randn(prompts, tokens, dim)
        k, v = torch.randn(prompts, pixels, dim), torch.randn(prompts, pixels, dim)
        return {"q": q, "k": k, "v": v, "num_heads": heads}

    return Case(make)


def cross_attention_cases() -> list[Case]:
    """One head, then two; as many tokens as pixels; a wide one whose scores would overflow in a plain exp."""

    def large() -> dict[str, object]:
        q, k = 30 * torch.randn(1, 2, 16), 30 * torch.randn(1, 5, 16)
        return {"q": q, "k": k, "v": torch.randn(1, 5, 16), "num_heads": 4}

    return [
        _attention(1, 1, 3, 2, 1),
        _attention(1, 2, 4, 4, 2),
        _attention(2, 3, 3, 8, 2),
        _attention(3, 5, 9, 12, 3),
        Case(large),
    ]


def _masks(prompts: int, count: int, side: int, scale: float = 2.0, share: float = 0.4) -> Case:
    def make() -> dict[str, object]:
        logits = scale * torch.randn(prompts, count, side, side)
        return {"logits": logits, "target": (torch.rand(prompts, 1, side, side) < share).float()}

    return Case(make)


def dice_loss_cases() -> list[Case]:
    """Two pixels that can be read, one mask, three for each prompt, an empty target, a sure and wrong answer."""
    read = Case(lambda: {"logits": torch.tensor([[[[2.0, -1.0]]]]), "target": torch.tensor([[[[1.0, 0.0]]]])})
    return [read, _masks(1, 1, 3), _masks(3, 2, 4), _masks(2, 3, 8, share=0.05), _masks(1, 1, 4, share=0.0)]


def _trusted(prompts: int, count: int, side: int) -> Case:
    def make() -> dict[str, object]:
        return {"logits": torch.randn(prompts, count, side, side), "iou": torch.rand(prompts, count)}

    return Case(make)


def trusted_mask_cases() -> list[Case]:
    """One prompt, then several that trust different masks, one mask only, and guesses beyond 0..1."""

    def beyond() -> dict[str, object]:
        return {"logits": torch.randn(3, 3, 4, 4), "iou": 3 * torch.randn(3, 3)}

    return [_trusted(1, 3, 2), _trusted(4, 3, 3), _trusted(2, 1, 3), Case(beyond), _trusted(7, 4, 5)]


EXERCISES = (
    Exercise(
        id="sam.box_from_mask",
        lesson="07_segment_anything",
        title="the box around a mask",
        difficulty=1,
        minutes=5,
        implementation=f"{__name__}:box_from_mask",
        cases=box_from_mask_cases,
        hints=(
            "Where is the mask true? Each such pixel has a row (y) and a column (x).",
            "x comes first in a box, but rows come first in a tensor. The last column belongs to the box: no + 1.",
            "rows, columns = torch.nonzero(mask, as_tuple=True); stack columns.min(), rows.min(), columns.max(), "
            "rows.max() and make floats of them.",
        ),
    ),
    Exercise(
        id="sam.fourier_features",
        lesson="07_segment_anything",
        title="a place as waves",
        difficulty=1,
        minutes=6,
        implementation=f"{__name__}:fourier_features",
        cases=fourier_features_cases,
        hints=(
            "Three steps: stretch [0, 1] to [-1, 1]; mix x and y by the matrix; waves of 2 pi times that.",
            "places (..., 2) @ matrix (2, F) works for any number of axes. Sines first, cosines behind them.",
            "angles = 2 * math.pi * ((2 * places - 1) @ matrix); torch.cat([angles.sin(), angles.cos()], dim=-1)",
        ),
    ),
    Exercise(
        id="sam.cross_attention",
        lesson="07_segment_anything",
        title="tokens read an image",
        difficulty=2,
        minutes=10,
        implementation=f"{__name__}:cross_attention",
        cases=cross_attention_cases,
        gradient_to=("q", "k", "v"),
        hints=(
            "The self-attention of lesson 02, but the questions (q) and what is asked (k, v) differ in number.",
            "Split the LAST axis into (heads, d), then move heads in front of the tokens. Scale by 1/sqrt(d), the "
            "width of one head. The softmax runs over the M keys.",
            "q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v)); then softmax, @ v, "
            "and the way back: .transpose(1, 2).flatten(2)",
        ),
    ),
    Exercise(
        id="sam.dice_loss",
        lesson="07_segment_anything",
        title="the Dice loss of every mask",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:dice_loss",
        cases=dice_loss_cases,
        gradient_to=("logits",),
        hints=(
            "Dice counts pixels of A, of B, and of both. With p = sigmoid(logits) for pixels, counts become sums.",
            "Sum over the last two axes only: every prompt and every mask has its own loss. 1 is added above and "
            "below, so that an empty target is no division by zero. Nothing is thresholded.",
            "p = logits.sigmoid(); 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + "
            "target.sum((-2, -1)) + 1)",
        ),
    ),
    Exercise(
        id="sam.trusted_mask",
        lesson="07_segment_anything",
        title="the mask that the model trusts",
        difficulty=1,
        minutes=4,
        implementation=f"{__name__}:trusted_mask",
        cases=trusted_mask_cases,
        hints=(
            "Every prompt has its own favourite: which of its K guesses is the largest?",
            "iou.argmax(dim=1) gives one number for each prompt; index prompts and masks at once. A logit above 0 "
            "is a probability above one half.",
            "logits[torch.arange(len(iou)), iou.argmax(dim=1)] > 0",
        ),
    ),
)
