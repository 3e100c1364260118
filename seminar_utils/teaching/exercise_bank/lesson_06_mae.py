"""Exercises of lesson 06: how many patches stay, which, the way back, and the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Exercise

PIXEL_EPS = 1e-6  # the paper's code adds it to a patch's variance


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many patches the encoder sees: the whole number below num_patches * (1 - mask_ratio)."""
    return int(num_patches * (1 - mask_ratio))


def unshuffle(visible: Tensor, mask_token: Tensor, ids_restore: Tensor) -> Tensor:
    """Mask tokens for the hidden patches, then all in the image's order: (B, N, D).

    visible (B, keep, D) in the order of `random_masking`, mask_token (1, 1, D), ids_restore (B, N): the place of
    every patch in the list "visible ones first, then hidden ones". He et al. 2021 (arXiv 2111.06377, section 3).
    """
    batch, keep, dim = visible.shape
    hidden = mask_token.expand(batch, ids_restore.shape[1] - keep, dim)  # (B, N - keep, D)
    listed = torch.cat([visible, hidden], dim=1)  # (B, N, D)
    return listed.gather(1, ids_restore[:, :, None].expand(-1, -1, dim))  # (B, N, D)


def patch_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the hidden patches of the whole batch against normalised targets, one number.

    pred, target (B, N, P); mask (B, N), 1 = hidden. Every target patch is normalised by its own mean and its own
    unbiased variance, to which 1e-6 is added before the root (arXiv 2111.06377, "Reconstruction target").
    """
    mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)  # (B, N, 1)
    error = (pred - (target - mean) / (variance + PIXEL_EPS).sqrt()).square().mean(dim=-1)  # (B, N)
    return (error * mask).sum() / mask.sum()


def num_visible_cases() -> list[Case]:
    """Even divisions first, then fractions, then the paper's own size."""
    pairs = [(4, 0.5), (16, 0.25), (64, 0.75), (49, 0.75), (64, 0.9), (7, 0.5), (196, 0.75)]
    pairs += [(49, 0.25), (196, 0.9)]  # where rounding, of what stays or of what is hidden, gives one more
    return [Case(lambda p=p: {"num_patches": p[0], "mask_ratio": p[1]}) for p in pairs]


def _masking(batch: int, n: int, dim: int, ratio: float, dtype: torch.dtype = torch.float32) -> Case:
    def make() -> dict[str, object]:
        tokens = torch.arange(float(batch * n * dim), dtype=dtype).view(batch, n, dim)
        return {"tokens": tokens, "mask_ratio": ratio, "noise": torch.rand(batch, n)}

    return Case(make)


def random_masking_cases() -> list[Case]:
    """Four patches with a noise that can be read, more, batches whose images differ; 3.5 of 7, in float64."""
    noise = [[0.3, 0.9, 0.1, 0.5]]
    read = Case(
        lambda: {
            "tokens": torch.arange(4.0).view(1, 4, 1),
            "mask_ratio": 0.5,
            "noise": torch.tensor(noise),
        }
    )
    return [
        read,
        _masking(1, 8, 1, 0.75),
        _masking(3, 5, 2, 0.5),
        _masking(2, 16, 4, 0.25),
        _masking(2, 49, 3, 0.75),
        _masking(2, 7, 2, 0.5, torch.float64),
    ]


def _restore(batch: int, n: int, dim: int, keep: int) -> Case:
    def make() -> dict[str, object]:
        ids_restore = torch.rand(batch, n).argsort(dim=1)
        visible = 1 + torch.arange(float(batch * keep * dim)).view(batch, keep, dim)
        return {"visible": visible, "mask_token": -torch.ones(1, 1, dim), "ids_restore": ids_restore}

    return Case(make)


def unshuffle_cases() -> list[Case]:
    """Four patches whose order is no inverse of itself; then batches, one visible patch, all but one."""
    read = Case(
        lambda: {
            "visible": torch.tensor([[[10.0], [20.0]]]),
            "mask_token": torch.tensor([[[-1.0]]]),
            "ids_restore": torch.tensor([[1, 2, 3, 0]]),
        }
    )
    return [read, _restore(1, 9, 2, 3), _restore(3, 16, 4, 4), _restore(2, 6, 3, 1), _restore(2, 6, 3, 5)]


def _patches(batch: int, n: int, pixels: int, flat: bool = False, scale: float = 1.0) -> Case:
    def make() -> dict[str, object]:
        target = scale * torch.rand(batch, n, pixels)
        if flat:
            target[:, 0] = 0.25  # a patch of background: no variance at all
        mask = torch.zeros(batch, n)
        for row in mask:  # as many hidden in every image, elsewhere
            row[torch.randperm(n)[: max(1, 3 * n // 4)]] = 1
        if flat:
            mask[:, 0] = 1
        return {"pred": torch.randn(batch, n, pixels), "target": target, "mask": mask}

    return Case(make)


def patch_loss_cases() -> list[Case]:
    """Two patches, one hidden; more; dim and flat patches; a nearly flat one; images that hide one and three."""
    read = Case(
        lambda: {
            "pred": torch.tensor([[[5.0, 5.0], [0.0, 1.0]]]),
            "target": torch.tensor([[[0.0, 1.0], [0.2, 0.6]]]),
            "mask": torch.tensor([[0.0, 1.0]]),
        }
    )
    nearly_flat = Case(
        lambda: {
            "pred": torch.tensor([[[0.0, 1.0]]]),
            "target": torch.tensor([[[0.5, 0.501]]]),
            "mask": torch.ones(1, 1),
        }
    )
    unequal = Case(
        lambda: {
            "pred": torch.arange(16.0).view(2, 4, 2) / 8,
            "target": torch.tensor([0.0, 1.0, 1.0, 0.0, 0.2, 0.6, 0.5, 0.1]).view(1, 4, 2).expand(2, 4, 2),
            "mask": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]),
        }
    )
    more = [_patches(1, 4, 4), _patches(3, 16, 16), _patches(2, 8, 9, scale=0.01), _patches(2, 8, 16, True)]
    return [read, nearly_flat, unequal, *more]


EXERCISES = (
    Exercise(
        id="mae.num_visible",
        lesson="06_mae",
        title="how many patches the encoder sees",
        difficulty=1,
        minutes=3,
        implementation=f"{__name__}:num_visible",
        cases=num_visible_cases,
        hints=(
            "The ratio says what is hidden; asked is what stays.",
            "49 patches at 0.75 leave 12.25: the authors' code cuts the fraction off, it does not round.",
            "int(num_patches * (1 - mask_ratio))",
        ),
    ),
    Exercise(
        id="mae.random_masking",
        lesson="06_mae",
        title="hide patches at random, and remember the way back",
        difficulty=3,
        minutes=12,
        implementation="seminar_utils.models.mae:random_masking",
        cases=random_masking_cases,
        gradient_to=("tokens",),
        hints=(
            "Each image gets its own mask: sort its own row of noise; the patches with the smallest numbers stay.",
            "order = noise.argsort(dim=1) lists the patches from the smallest noise up; ids_restore says for "
            "every patch at which place of that list it is: sort the order once more.",
            "kept = tokens.gather(1, order[:, :keep, None].expand(-1, -1, D)); mask = (ids_restore >= keep) as "
            "tokens.dtype, with ids_restore = order.argsort(dim=1).",
        ),
    ),
    Exercise(
        id="mae.unshuffle",
        lesson="06_mae",
        title="put visible and hidden patches back in their places",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:unshuffle",
        cases=unshuffle_cases,
        gradient_to=("visible", "mask_token"),
        hints=(
            "First make the list of all N: visible tokens, then as many copies of the mask token as are missing.",
            "Patch n of the image is entry ids_restore[n] of that list: a reading (gather), no writing (scatter).",
            "torch.cat([visible, mask_token.expand(B, N - keep, D)], 1).gather(1, ids_restore[:, :, None].expand("
            "-1, -1, D))",
        ),
    ),
    Exercise(
        id="mae.patch_loss",
        lesson="06_mae",
        title="the loss: hidden patches, normalised",
        difficulty=2,
        minutes=8,
        implementation=f"{__name__}:patch_loss",
        cases=patch_loss_cases,
        gradient_to=("pred",),
        hints=(
            "Three steps: normalise every TARGET patch by its own statistics; the mean error of every patch; the "
            "mean over the hidden patches only.",
            "The variance is the unbiased one (divide by P - 1, torch's default), and 1e-6 is added to the "
            "variance, not to its root. How many patches does the mean divide by?",
            "error = (pred - (target - mean) / (var + 1e-6).sqrt()).square().mean(-1); (error * mask).sum() / "
            "mask.sum()",
        ),
    ),
)
