"""Computed tomography: which grey window is shown, and which kernel reconstructed the slice.

Sources: Bushberg et al., The Essential Physics of Medical Imaging, chapter on CT; kernels and their noise:
Solomon and Samei 2012, "Quantum noise properties of CT images with anatomical textured backgrounds across
reconstruction algorithms", Medical Physics.
"""

from __future__ import annotations

from torch import Tensor

from .draws import Draws
from .fields import gaussian_blur


def ct_window(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Another display window: narrower, its level moved by chance of the image.

    x in [0, 1] shows the old window. The new one has the relative width w and closes in on the image's own grey
    value c, drawn from 0.35 to 0.65: (x - c) / w + c. What lies outside of it saturates.
    """
    width = (0.9, 0.8, 0.69, 0.57, 0.44)[severity - 1]
    centre = draws.uniform(x, 1, 1, 1, low=0.35, high=0.65)  # (B, 1, 1, 1)
    return centre + (x - centre) / width


def ct_kernel(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A sharper reconstruction kernel: it lifts fine detail, and with it the noise of fine grain.

    x + s * (high pass of x + high pass of noise), the high pass being what a Gaussian of 2% of the side takes
    away. For the opposite, a softer kernel, use "blur".
    """
    strength = (0.5, 0.9, 1.5, 2.3, 3.4)[severity - 1]
    noise = 0.03 * draws.normal(x, 1, *x.shape[-2:])  # (B, 1, H, W): the same in all channels
    fine = (x - gaussian_blur(x, 0.02)) + (noise - gaussian_blur(noise, 0.02))  # (B, C, H, W)
    return x + strength * fine
