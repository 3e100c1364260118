"""Random views of images, for the methods that ask whether an answer survives small changes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_views(
    x: Tensor, generator: torch.Generator, flip: bool = True, tone: float = 1.0, scale: float = 1.0
) -> Tensor:
    """One random view of each image of x (B, C, H, W), of the same shape, seeded by `generator`.

    Each image by itself: brightness and contrast by up to 0.3, gamma 0.7-1.4 (all times `tone`), scale 0.9-1.1
    (times `scale`), rotation by up to 15 degrees, shift by up to 1/16, noise of sd 0.01, and (`flip`) mirrored
    left-right half of the time. A view must not change the answer: switch off the flip where the side matters,
    the tone where the class is in the tone, the scale where it is in the size. What rotates in repeats the edge.
    Tones stay within the range of the batch. CoTTA's augmentations, without those of colour and blur.
    """
    draw = torch.rand(len(x), 8, generator=generator).to(x)  # (B, 8) in [0, 1)
    low, high = x.amin(), x.amax()
    span = (high - low).clamp(min=1e-6)
    y = _warped(x, draw[:, :5], flip, scale)
    y = ((y - low) / span).clamp(0, 1)  # (B, C, H, W) in [0, 1]
    gain, offset, power = (draw[:, i, None, None, None] for i in (5, 6, 7))  # (B, 1, 1, 1) each
    y = y ** (2 ** (tone * (power - 0.5)))
    y = (y - 0.5) * (1 + 0.6 * tone * (gain - 0.5)) + 0.5 + 0.6 * tone * (offset - 0.5)
    y = y + 0.01 * torch.randn(x.shape, generator=generator).to(x)
    return low + span * y.clamp(0, 1)


def _warped(x: Tensor, draw: Tensor, flip: bool, strength: float) -> Tensor:
    """Rotate, scale, shift and mirror x (B, C, H, W) by draw (B, 5) in [0, 1)."""
    angle = math.radians(30) * (draw[:, 0] - 0.5)  # (B,)
    scale = 1 + 0.2 * strength * (draw[:, 1] - 0.5)
    mirror = torch.where((draw[:, 2] < 0.5) & flip, -1.0, 1.0).to(x)
    shift = (draw[:, 3:5] - 0.5) / 4  # (B, 2) in units where the image is 2 wide
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def random_crops(x: Tensor, generator: torch.Generator, area: tuple[float, float] = (0.08, 1.0)) -> Tensor:
    """A random square of each image of x (B, C, H, W), mirrored half of the time, stretched to the image's shape.

    area: of the square, as a share of the image's, drawn uniformly. The sides keep their ratio (the usual crop of
    ImageNet varies it by 3/4 to 4/3). A crop moves and enlarges what it shows: not for classes of place or size.
    """
    draw = torch.rand(len(x), 4, generator=generator).to(x)  # (B, 4) in [0, 1)
    side = (area[0] + (area[1] - area[0]) * draw[:, 0]).sqrt()  # (B,) as a share of the image's
    centre = (2 * draw[:, 1:3] - 1) * (1 - side)[:, None]  # (B, 2) where the image is 2 wide
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(draw[:, 3] < 0.5, -side, side), side
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
