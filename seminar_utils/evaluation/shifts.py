"""A first set of acquisition shifts, from the physics, with one dial: severity 1 (mild) to 5 (severe).

These are ours. They are not the published corruption suite for MedMNIST, whose severities and kinds
differ; never compare numbers across the two. Every shift is seeded, works on a batch of any size and
device, and moves an image further away as the severity grows (a test holds it to that).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import SeminarError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)


def _noise_like(x: Tensor, seed: int) -> Tensor:
    """Standard normal noise of x's shape, drawn on the CPU so that every device sees the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.device, x.dtype)


def contrast(x: Tensor, severity: int, seed: int) -> Tensor:
    """Lower contrast about each image's own mean: a badly chosen exposure or display window."""
    keep = (0.70, 0.52, 0.38, 0.26, 0.16)[severity - 1]
    mean = x.mean(dim=(-3, -2, -1), keepdim=True)  # (B, 1, 1, 1)
    return mean + keep * (x - mean)


def gamma(x: Tensor, severity: int, seed: int) -> Tensor:
    """A detector whose response is curved: x ** g, darkening the mid-tones."""
    exponent = (1.4, 1.8, 2.3, 3.0, 4.0)[severity - 1]
    return x.clamp(0, 1) ** exponent


def gaussian_noise(x: Tensor, severity: int, seed: int) -> Tensor:
    """Electronic read-out noise: the same standard deviation everywhere."""
    sigma = (0.04, 0.08, 0.13, 0.20, 0.30)[severity - 1]
    return x + sigma * _noise_like(x, seed)


def poisson_noise(x: Tensor, severity: int, seed: int) -> Tensor:
    """Quantum noise of a low dose, in its Gaussian limit: variance = signal / photons per pixel at x = 1."""
    photons = (200.0, 80.0, 35.0, 15.0, 6.0)[severity - 1]
    return x + (x.clamp(0, 1) / photons).sqrt() * _noise_like(x, seed)


def blur(x: Tensor, severity: int, seed: int) -> Tensor:
    """A wider point-spread function: Gaussian, its sigma a share of the image's shorter side."""
    sigma = (0.015, 0.025, 0.04, 0.06, 0.09)[severity - 1] * min(x.shape[-2:])
    radius = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()  # (k,)
    flat = x.reshape(-1, 1, *x.shape[-2:])  # (B*C, 1, H, W)
    flat = F.pad(flat, (radius,) * 4, mode="reflect")  # (B*C, 1, H+2r, W+2r)
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))  # (B*C, 1, H, W)
    return flat.reshape(x.shape)  # (B, C, H, W)


def bias_field(x: Tensor, severity: int, seed: int) -> Tensor:
    """A smooth multiplicative shading, one random direction per image: coil sensitivity, the heel effect."""
    strength = (0.25, 0.45, 0.65, 0.85, 1.0)[severity - 1]
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device, x.dtype)  # (B, 1, 1, 1)
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype).view(1, 1, 1, -1)
    slope = (angle.cos() * rows + angle.sin() * columns) / math.sqrt(2)  # (B, 1, H, W), in [-1, 1]
    return x * (1 + strength * slope)


SHIFTS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    function.__name__: function for function in (contrast, gamma, gaussian_noise, poisson_noise, blur, bias_field)
}


def apply_shift(x: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Shift a batch x (B, C, H, W) of floats in [0, 1]; returns the same shape, clipped to [0, 1].

    Args: name: one of `SHIFTS`; severity: 1 to 5; seed: fixes noise and directions.
    Raises SeminarError for an unknown name, a severity outside 1-5, or pixels that are not floats in [0, 1].
    """
    if name not in SHIFTS:
        raise unknown_name("shift", name, SHIFTS)
    if severity not in SEVERITIES:
        raise SeminarError(f"severity is one of {SEVERITIES}, got {severity!r}")
    if x.ndim != 4 or not x.is_floating_point():
        raise SeminarError(f"a shift takes float images (B, C, H, W), got {x.dtype} {tuple(x.shape)}")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):  # also catches NaN
        raise SeminarError(f"pixels should lie in [0, 1], got [{x.min():.3g}, {x.max():.3g}]")
    return SHIFTS[name](x, severity, seed).clamp(0, 1)
