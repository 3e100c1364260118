"""SimCLR's two views, and its loss as the second task of a classifier.

Chen et al., 2020 (arXiv 2002.05709, section 3 and appendix A). The loss and the projection head:
`models/simclr.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..models.simclr import contrastive_loss
from ..models.two_heads import TwoHeads
from ..runtime import SeminarError
from .crops import blur, jitter, random_resized_crop


@dataclass(frozen=True)
class TwoViews:
    """How an image is shown twice: a crop, perhaps mirrored, of other brightness, contrast and sharpness.

    The paper's strongest pair is crop with colour; grey medical images leave brightness and contrast. `scale` is
    the range of the crops' share of the area (the paper: .08 to 1, for photographs with the object in the middle),
    `probability` how often brightness and contrast change, `blur` how often, `sigma` how wide in pixels. The views
    decide what the features forget: with strong jitter, the very shift that a scanner makes.
    """

    scale: tuple[float, float] = (0.4, 1.0)
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    probability: float = 0.8
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 1.0)

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.sigma[0] <= self.sigma[1]:
            raise SeminarError(f"views need 0 < scale low <= high <= 1 and 0 < sigma low <= high, got {self}")

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Square images (B, C, S, S) in [0, 1] -> two views of each, (2B, C, S, S): first view 0 of all images."""
        return torch.cat([self.view(x, generator) for _ in range(2)])

    def view(self, x: Tensor, generator: Generator) -> Tensor:
        """One random view of every image, of the same size."""
        x = random_resized_crop(x, min(x.shape[-2:]), self.scale, generator, self.flip)
        x = jitter(x, self.brightness, self.contrast, self.probability, generator)
        return blur(x, self.sigma, self.blur, generator)


def simclr_loss(model: TwoHeads, views: Tensor, temperature: float = 0.5) -> Tensor:
    """The contrastive loss of the views (2B, C, S, S) behind the projection head."""
    projected, _ = model(views, auxiliary=True)  # (2B, d)
    return contrastive_loss(torch.stack(projected.chunk(2), dim=1), temperature=temperature)  # of (B, 2, d)
