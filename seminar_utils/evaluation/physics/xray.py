"""Radiographs: exposure, display curve, noise of quanta and electronics, point spread, uneven sensitivity.

Source of the models: Bushberg et al., The Essential Physics of Medical Imaging, chapters on radiography and
image quality. The first six are those of lessons 02, 03 and 11; their numbers must not change.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import Draws
from .fields import gaussian_blur, grid


def contrast(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Lower contrast about each image's own mean: a badly chosen exposure or display window."""
    keep = (0.70, 0.52, 0.38, 0.26, 0.16)[severity - 1]
    mean = x.mean(dim=(-3, -2, -1), keepdim=True)  # (B, 1, 1, 1)
    return mean + keep * (x - mean)


def gamma(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A detector or a display whose response is curved: x ** g, darkening the mid-tones."""
    exponent = (1.4, 1.8, 2.3, 3.0, 4.0)[severity - 1]
    return x.clamp(0, 1) ** exponent


def gaussian_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Electronic read-out noise: the same standard deviation everywhere."""
    sigma = (0.04, 0.08, 0.13, 0.20, 0.30)[severity - 1]
    return x + sigma * draws.whole_set_normal(x)


def poisson_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Quantum noise of a low dose, in its Gaussian limit: variance = signal / photons per pixel at x = 1."""
    photons = (200.0, 80.0, 35.0, 15.0, 6.0)[severity - 1]
    return x + (x.clamp(0, 1) / photons).sqrt() * draws.whole_set_normal(x)


def blur(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A wider point-spread function: Gaussian, its sigma a share of the image's shorter side."""
    return gaussian_blur(x, (0.015, 0.025, 0.04, 0.06, 0.09)[severity - 1])


def bias_field(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A linear shading, one random direction per image: the heel effect of an X-ray tube's anode."""
    strength = (0.25, 0.45, 0.65, 0.85, 1.0)[severity - 1]
    angle = 2 * math.pi * draws.whole_set_uniform(x)  # (B, 1, 1, 1)
    rows, columns = grid(x)
    slope = (angle.cos() * rows + angle.sin() * columns) / math.sqrt(2)  # (B, 1, H, W), in [-1, 1]
    return x * (1 + strength * slope)


def exposure(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A dose off by some stops: x * 2 ** stops, saturating at the detector's 1.

    70 to 100% of the severity's stops, up or down by chance of the image; an image whose mean is above 0.6 has no
    room above and goes down.
    """
    stops = (0.15, 0.30, 0.50, 0.80, 1.20)[severity - 1]
    bright = x.mean(dim=(-3, -2, -1), keepdim=True) > 0.6  # (B, 1, 1, 1)
    way = torch.where(bright, -1, draws.sign(x)) * draws.uniform(x, 1, 1, 1, low=0.7, high=1.0)
    return x * 2 ** (stops * way)
