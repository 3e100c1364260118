"""Magnetic resonance: receive-coil sensitivity, periodic motion, noise of a magnitude image.

Noise and shading act alike on all channels: an MR image stored as RGB stays grey.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .fields import smooth_field


def mr_bias_field(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Smooth receive sensitivity, x * exp(s * field): additive in the logarithm, as N4 assumes it.

    Source: Tustison et al. 2010, "N4ITK: improved N3 bias correction", IEEE TMI 29(6). The field is a random
    polynomial of second order within [-1, 1].
    """
    strength = (0.2, 0.35, 0.55, 0.8, 1.1)[severity - 1]
    return x * torch.exp(strength * smooth_field(x, draws))


def ghosting(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Copies along the phase-encoding axis (here: the rows) that breathing or pulsation leaves.

    Source: Axel et al. 1986, "Respiratory effects in two-dimensional Fourier transform MR imaging", Radiology
    160. When every n-th line of k-space is weighted by 1 + a cos(2 pi k / n), the image gets two copies,
    shifted by +-H / n around the border. n is 2, 3 or 4 by chance of the image; the mean brightness is kept.
    """
    share = (0.12, 0.2, 0.3, 0.42, 0.56)[severity - 1]
    height = x.shape[-2]
    period = 2 + (3 * draws.uniform(x, 1)).long()  # (B, 1): 2, 3 or 4
    shift = torch.round(height / period).long()  # (B, 1), in rows
    rows, images = torch.arange(height, device=x.device), torch.arange(len(x), device=x.device)[:, None]
    lines = x.movedim(-2, 1)  # (B, H, C, W)
    copies = lines[images, (rows + shift) % height] + lines[images, (rows - shift) % height]  # (B, H, C, W)
    return (1 - share) * x + share / 2 * copies.movedim(1, -2)


def rician_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Noise of a magnitude image: |x + sigma (n1 + i n2)|. Where there is no signal it lifts the background.

    Source: Gudbjartsson and Patz 1995, "The Rician distribution of noisy MRI data", MRM 34(6), equation 1.
    """
    sigma = (0.04, 0.07, 0.11, 0.17, 0.26)[severity - 1]
    noise = draws.normal(x, 2, 1, *x.shape[-2:])  # (B, 2, 1, H, W): real and imaginary
    return torch.hypot(x + sigma * noise[:, 0], sigma * noise[:, 1])
