"""Fundus photographs: light that falls off, light that is uneven, and media that scatter it.

Source of the three: Shen et al. 2021, "Modeling and enhancing low-quality retinal fundus images", IEEE TMI 40(3),
which models light transmission, blur and artefacts. All act alike on the colours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .fields import gaussian_blur, grid


def _squared_distance(x: Tensor, draws: Draws, reach: float) -> Tensor:
    """Squared distance (B, 1, H, W) from a point that lies within `reach` of the image's centre."""
    rows, columns = grid(x)
    centre = draws.uniform(x, 2, 1, 1, 1, low=-reach, high=reach)  # (B, 2, 1, 1, 1)
    return (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2


def vignette(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Light that falls off from an axis near the centre by the cos^4 law: x * (1 + s r^2) ** -2."""
    strength = (0.12, 0.22, 0.36, 0.56, 0.85)[severity - 1]
    return x * (1 + strength * _squared_distance(x, draws, 0.2)) ** -2


def illumination(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """An uneven flash: brighter about a random spot, darker far from it, x * (1 + s f) with f in [-1, 1]."""
    strength = (0.15, 0.26, 0.4, 0.58, 0.8)[severity - 1]
    spot = torch.exp(-_squared_distance(x, draws, 0.6) / (2 * 0.6**2))  # (B, 1, H, W), in (0, 1]
    return x * (1 + strength * (2 * spot - 1))


def haze(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A cataract: a share of the light is scattered into a veil, (1 - s) x + s veil.

    Source: Peli and Peli 1989, "Restoration of retinal images obtained through cataracts", IEEE TMI 8(4). The
    veil is the image itself, blurred widely and as bright as its brightest part, the same in all channels.
    """
    share = (0.12, 0.2, 0.3, 0.42, 0.56)[severity - 1]
    veil = gaussian_blur(x.mean(dim=1, keepdim=True), 0.2)  # (B, 1, H, W)
    veil = veil / veil.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    return (1 - share) * x + share * veil
