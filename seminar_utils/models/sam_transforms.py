"""What goes into a model of SAM's family, and what its masks become: each checkpoint has its own pipeline.

SAM (arXiv 2304.02643): longest side to 1024, ImageNet's mean and deviation, THEN zeros at the right and the
bottom. MedSAM (arXiv 2304.12306): squashed to 1024 x 1024 by cubic splines, stretched to [0, 1]; probabilities
are resized. LiteMedSAM (the same authors, 2024): longest side to 256 by areas, stretched to [0, 1], then zeros.
Weights are only worth something behind their own pipeline, so a model carries it: `model.transform`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import SeminarError
from .intensity import Window, read_image

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, in the range 0..255


def resize_bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size) bilinearly, smoothed when shrinking, as Pillow does; uint8 stays uint8."""
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def resize_area(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size): every new pixel is the mean of the area it covers, as OpenCV's INTER_AREA."""
    down, across = (area_weights(old, new) for old, new in zip(image.shape[1:], size))
    mean = down @ image.double() @ across.T  # (C, *size)
    return mean.round().to(image.dtype) if image.dtype == torch.uint8 else mean.to(image.dtype)


def area_weights(old: int, new: int) -> Tensor:
    """Which share of each new pixel lies in each old one, along one side: (new, old), rows sum to 1."""
    edges = torch.arange(new + 1, dtype=torch.float64) * (old / new)
    starts = torch.arange(old, dtype=torch.float64)
    overlap = edges[1:, None].minimum(starts + 1) - edges[:-1, None].maximum(starts)  # (new, old)
    return overlap.clamp(min=0) * (new / old)


def resize_cubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size) by cubic splines, smoothed when shrinking, in scikit-image's default way."""
    from skimage.transform import resize  # takes 0.3 s to import: only for MedSAM

    pixels = image.permute(1, 2, 0).numpy()
    new = resize(pixels, size, order=3, preserve_range=True, anti_aliasing=True)  # (*size, C) in float64
    return torch.from_numpy(new.astype(pixels.dtype)).permute(2, 0, 1)  # uint8 by cutting off, as MedSAM does


def masks_to_image(logits: Tensor, side: int, inside: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits (P, K, h, w) up to the square, cropped to `inside`, then to `size`: bilinear both times."""
    square = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    return F.interpolate(square[..., : inside[0], : inside[1]], size, mode="bilinear", align_corners=False)


def min_max(x: Tensor) -> Tensor:
    """Stretch each image (..., C, H, W) to [0, 1] over its channels and pixels; a constant image becomes 0."""
    x = x.float()
    low, high = x.amin(dim=(-3, -2, -1), keepdim=True), x.amax(dim=(-3, -2, -1), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-8)


@dataclass(frozen=True)
class SamTransform:
    """SAM's own pipeline, and what the others share.

    image_size: side of the square the encoder reads; in_chans: 3, or 1 for grey images.
    """

    image_size: int = 1024
    in_chans: int = 3
    threshold: ClassVar[float] = 0.0  # above it a pixel of `soft_masks` is in the mask

    def __post_init__(self):
        if self.image_size < 1 or self.in_chans not in (1, 3):
            raise SeminarError(
                f"in_chans is 1 or 3, the side at least 1, got {self.in_chans} and {self.image_size}"
            )

    def image(self, image: np.ndarray | Tensor, window: Window = None) -> Tensor:
        """One image as the user has it -> what the encoder reads, (in_chans, S, S) in float32.

        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of 8 or 16 bits, or floats in [0, 1]; alpha is dropped.
        window: (level, width) for CT, "percentiles" or "range", see `intensity.to_uint8`. Raises SeminarError for
        other shapes and for a range that could mean two things.
        """
        pixels = np.ascontiguousarray(read_image(image, self.in_chans, window))  # (H, W, C)
        pixels = torch.tensor(pixels).permute(2, 0, 1)  # (C, H, W)
        return self.pad(self.normalize(self.resize(pixels, self.input_size(*pixels.shape[1:]))))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image inside the square: the longest side fills it."""
        scale = self.image_size / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def resize(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """uint8 pixels (C, H, W) -> (C, *size)."""
        return resize_bilinear(pixels, size)

    def normalize(self, x: Tensor) -> Tensor:
        """Pixels (..., C, H, W) in 0..255 -> what the encoder was trained on, in float32."""
        mean, std = (torch.tensor(value, device=x.device).view(-1, 1, 1) for value in (MEAN, STD))
        if self.in_chans == 1:
            mean, std = mean.mean(), std.mean()
        return (x.float() - mean) / std

    def pad(self, x: Tensor) -> Tensor:
        """Zeros at the right and the bottom of (..., h, w), up to the square."""
        return F.pad(x, (0, self.image_size - x.shape[-1], 0, self.image_size - x.shape[-2]))

    def points(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Points (..., 2) as (x, y) in an image of `size` (height, width) -> in the encoder's image.

        Each axis has its own factor, because the sides are rounded to whole pixels.
        """
        new = self.input_size(*size)
        return points * points.new_tensor([new[1] / size[1], new[0] / size[0]])

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (..., 4) as (x0, y0, x1, y1), likewise."""
        return self.points(boxes.unflatten(-1, (2, 2)), size).flatten(-2)

    def soft_masks(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """The decoder's logits (P, K, h, w) -> logits on the original image (P, K, *size)."""
        return masks_to_image(logits, self.image_size, self.input_size(*size), size)

    def masks(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """The decoder's logits (P, K, h, w) -> boolean masks on the original image (P, K, *size)."""
        return self.soft_masks(logits, size) > self.threshold


@dataclass(frozen=True)
class MedSamTransform(SamTransform):
    """MedSAM's: the image squashed to a square, [0, 1], no padding; its soft masks are probabilities."""

    threshold: ClassVar[float] = 0.5

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Always the whole square."""
        return self.image_size, self.image_size

    def resize(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """uint8 pixels (C, H, W) -> (C, *size)."""
        return resize_cubic(pixels, size)

    def normalize(self, x: Tensor) -> Tensor:
        """Pixels (..., C, H, W) of any range -> [0, 1], each image by its own lowest and highest value."""
        return min_max(x)

    def soft_masks(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """The decoder's logits (P, K, h, w) -> probabilities on the original image (P, K, *size)."""
        return F.interpolate(logits.sigmoid(), size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class LiteMedSamTransform(SamTransform):
    """LiteMedSAM's: longest side 256 by areas, [0, 1], then zeros at the right and the bottom.

    The authors' script cuts box coordinates down to whole pixels of the resized image; here they stay exact.
    """

    image_size: int = 256

    def resize(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """uint8 pixels (C, H, W) -> (C, *size)."""
        return resize_area(pixels, size)

    def normalize(self, x: Tensor) -> Tensor:
        """Pixels (..., C, H, W) of any range -> [0, 1], each image by its own lowest and highest value."""
        return min_max(x)
