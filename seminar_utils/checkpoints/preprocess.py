"""The preparation of images that belongs to a checkpoint: `pretrained_transform("clip_vit_b_32")(images)`.

Another size, interpolation or mean than in training costs accuracy without any error message, so the numbers
stand in the registry, beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import SeminarError
from .registry import pretrained_info

STATS = {  # mean and standard deviation of R, G, B
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclass(frozen=True)
class Preprocess:
    """Shorter side to `resize` pixels (with antialias), the middle `crop` x `crop`, then (x - mean) / std."""

    resize: int
    crop: int
    interpolation: str
    stats: str

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, H, W) as uint8, or floats in [0, 1] -> floats (B, 3, crop, crop).

        Raises SeminarError for other shapes, types or values: 16-bit or CT images need a window first.
        """
        x = as_rgb(images)
        x = F.interpolate(x, size=self.new_size(*x.shape[-2:]), mode=self.interpolation, antialias=True)
        x = x.clamp(0, 1)  # cubic curves overshoot at edges; Pillow, which the authors used, cuts there too
        top, left = (round((side - self.crop) / 2) for side in x.shape[-2:])
        x = x[..., top : top + self.crop, left : left + self.crop]
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in STATS[self.stats])
        return (x - mean) / std

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the shorter side became `resize`."""
        short = min(height, width)
        return tuple(self.resize if side == short else int(self.resize * side / short) for side in (height, width))


def as_rgb(images: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W), uint8 or floats in [0, 1] -> floats (B, 3, H, W); SeminarError for others."""
    wanted = "images (B, 3, H, W), or (B, 1, H, W) for grey ones, as uint8 or floats in [0, 1]"
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        came = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise SeminarError(f"expected {wanted}, got {came}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if not images.is_floating_point():
        raise SeminarError(f"expected {wanted}, got {images.dtype}")
    low, high = images.min().item(), images.max().item()
    if not (0 <= low and high <= 1):
        raise SeminarError(f"expected {wanted}, got values from {low:.3g} to {high:.3g}: already normalised?")
    return images.expand(-1, 3, -1, -1)


def pretrained_transform(name: str) -> Preprocess:
    """How images must be prepared for an official checkpoint.

    Raises SeminarError for SAM's family, whose pipelines also carry boxes and points: each model has its own.
    """
    transform = pretrained_info(name).transform
    if isinstance(transform, str):
        raise SeminarError(
            f"{name} prepares images, boxes and points together ({transform}): use the model's own `transform`, "
            "or models.predictor.SamPredictor"
        )
    return Preprocess(**transform)
