"""Supervised segmentation: the plain loop of `supervised.fit`, with a mask in the place of the label.

The objective is the cross-entropy of each pixel plus 1 - Dice (Milletari et al., 2016, arXiv 1606.04797): pixels
alone would let a small lesion drown in its background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..data.dataset import ImageSet, to_float
from ..runtime import SeminarError
from .sam import bce_loss, dice_loss
from .supervised import TrainConfig, predict


def mask_tensor(inside: np.ndarray, size: int) -> Tensor:
    """Boolean masks (N, H, W) -> (N, 1, size, size) of 0 and 1: a pixel is inside if half of it is."""
    masks = torch.as_tensor(inside, dtype=torch.float32)[:, None]  # (N, 1, H, W)
    return (F.interpolate(masks, (size, size), mode="area") >= 0.5).float()


@dataclass(frozen=True)
class MaskSet:
    """Images with the mask of one thing, for `supervised.fit`; `inside` says of a label map (N, H, W) where it is.

    turn: training batches are mirrored and turned, image and mask alike (nuclei have no upper side).
    Raises SeminarError when the images have no masks.
    """

    images: ImageSet
    inside: Callable[[np.ndarray], np.ndarray]
    turn: bool = False

    def __post_init__(self):
        if self.images.masks is None:
            raise SeminarError(f"segmentation needs masks, {self.images!r} has none")

    def __len__(self) -> int:
        return len(self.images)

    def torch(self, size: int) -> tuple[Tensor, Tensor]:
        """All images in grey (N, 1, size, size) in [0, 1], and their masks (N, 1, size, size)."""
        return to_float(self.images.images, size, channels=1), mask_tensor(self.inside(self.images.masks), size)

    def loader(self, batch_size: int, shuffle: bool = False, seed: int = 0, size: int = 64, **_) -> _Batches:
        """Batches of (images, masks); with `shuffle` in an order, and turned in a way, that `seed` fixes."""
        return _Batches(*self.torch(size), batch_size, seed if shuffle else None, self.turn)


@dataclass(frozen=True)
class _Batches:
    """One pass over tensors; seed None: as they lie."""

    x: Tensor
    masks: Tensor
    batch_size: int
    seed: int | None
    turn: bool

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.seed is None:
            yield from zip(self.x.split(self.batch_size), self.masks.split(self.batch_size))
            return
        generator = Generator().manual_seed(self.seed)
        for chosen in torch.randperm(len(self.x), generator=generator).split(self.batch_size):
            x, masks = self.x[chosen], self.masks[chosen]
            yield turned(x, masks, generator) if self.turn else (x, masks)


def turned(x: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Square images and their masks, (B, C, H, H) each: the whole batch mirrored or not, turned by quarters."""
    turns, mirrored = torch.randint(0, 4, (1,), generator=generator).item(), torch.rand(1, generator=generator)
    return tuple(torch.rot90(one.flip(3) if mirrored < 0.5 else one, turns, (2, 3)) for one in (x, masks))


def mask_loss(model: nn.Module, x: Tensor, masks: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Objective of x (B, C, H, W) with masks (B, 1, H, W): cross-entropy + 1 - Dice, and logits (B, 1, H, W)."""
    logits = model(x)
    return _loss(logits, masks), logits


def _loss(logits: Tensor, masks: Tensor) -> Tensor:
    return (bce_loss(logits, masks) + dice_loss(logits, masks)).mean()


def dice_of_each(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice of the masks logits > 0 with the true ones, (N, 1, H, W) each -> (N,); NaN where both are empty."""
    found, true = logits > 0, masks > 0.5
    both = (found & true).sum(dim=(1, 2, 3))
    return 2 * both / (found.sum(dim=(1, 2, 3)) + true.sum(dim=(1, 2, 3)))


def judge_masks(model: nn.Module, loader) -> dict[str, float]:
    """Loss and mean Dice on the validation set, the only judge of which epoch is kept."""
    logits, masks = predict(model, loader)
    return {"val_loss": _loss(logits, masks).item(), "val_dice": dice_of_each(logits, masks).nanmean().item()}
