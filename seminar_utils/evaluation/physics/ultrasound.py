"""Ultrasound: speckle of coherent echoes, and a depth gain set wrongly."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .fields import gaussian_blur, grid


def speckle(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Multiplicative speckle, x * (1 + s (r - 1)): r is Rayleigh with mean 1, s = 1 is fully developed speckle.

    Source: Burckhardt 1978, "Speckle in ultrasound B-mode scans", IEEE Trans. Sonics and Ultrasonics 25(1). The
    echoes add up to a complex Gaussian; its grain is the point spread, wider across the beam than along it. r
    acts on the grey levels as shown; no log compression is modelled.
    """
    strength = (0.15, 0.27, 0.43, 0.65, 1.0)[severity - 1]
    parts = draws.normal(x, 2, *x.shape[-2:])  # (B, 2, H, W): real and imaginary
    parts = gaussian_blur(parts, 0.008, across=0.016)  # (B, 2, H, W)
    envelope = torch.hypot(parts[:, :1], parts[:, 1:])  # (B, 1, H, W)
    rayleigh = envelope / envelope.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    return x * (1 + strength * (rayleigh - 1))


def depth_gain(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Attenuation that the time-gain compensation does not make up for: x * exp(-s * depth), depth from 0 to 1.

    Source: Beer's law along the beam, as in Szabo, Diagnostic Ultrasound Imaging, chapter on attenuation. The
    probe is at the top.
    """
    strength = (0.4, 0.7, 1.1, 1.7, 2.6)[severity - 1]
    rows, _ = grid(x)
    return x * torch.exp(-strength * (rows + 1) / 2)
