"""Smooth things several shifts need: coordinates, a Gaussian blur, a random smooth field."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Draws


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates from -1 (top, left) to 1 (bottom, right): rows (1, 1, H, 1) and columns (1, 1, 1, W)."""
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype).view(1, 1, 1, -1)
    return rows, columns


def gaussian_blur(x: Tensor, share: float, across: float | None = None) -> Tensor:
    """Blur each channel with a Gaussian whose sigma is a `share` of the shorter side.

    across: another share for the columns (default: the same). The border is reflected; the kernel reaches
    to three sigma, or as far as the image allows.
    """
    down = _kernel(x, share)
    right = down if across is None else _kernel(x, across)
    flat = x.reshape(-1, 1, *x.shape[-2:])  # (B*C, 1, H, W)
    reach = (len(right) // 2,) * 2 + (len(down) // 2,) * 2
    flat = F.pad(flat, reach, mode="reflect")  # (B*C, 1, H+2r, W+2r)
    flat = F.conv2d(F.conv2d(flat, right.view(1, 1, 1, -1)), down.view(1, 1, -1, 1))  # (B*C, 1, H, W)
    return flat.reshape(x.shape)  # (B, C, H, W)


def _kernel(x: Tensor, share: float) -> Tensor:
    """Weights (k,) of the Gaussian, summing to 1."""
    sigma = share * min(x.shape[-2:])
    radius = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return kernel / kernel.sum()


def smooth_field(x: Tensor, draws: Draws) -> Tensor:
    """A random polynomial of second order for each image, (B, 1, H, W), its largest absolute value 1."""
    rows, columns = grid(x)
    terms = [rows, columns, rows * columns, rows**2 - 1 / 3, columns**2 - 1 / 3]
    weights = draws.normal(x, len(terms), 1, 1, 1)  # (B, 5, 1, 1, 1)
    field = sum(weights[:, k] * term for k, term in enumerate(terms))  # (B, 1, H, W)
    return field / field.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
