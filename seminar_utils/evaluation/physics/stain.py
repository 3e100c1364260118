"""H&E-stained sections: amounts and colours of the two dyes differ from laboratory to laboratory.

Light passes the section by Beer and Lambert's law: optical density OD = -ln(x) = amounts of dye @ their colours.
Source of the colours: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color
deconvolution". Both shifts change the OD by s times a direction, x * exp(-s * direction): colour images only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws

COLOURS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))  # OD of haematoxylin, eosin, a third dye


def dye_amounts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haematoxylin and eosin in each pixel of x (B, 3, H, W): amounts (B, 2, H, W) and colours (2, 3)."""
    colours = torch.tensor(COLOURS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)  # (3, 3)
    unmix = colours.inverse().to(x.device, x.dtype)  # (3, 3)
    density = -x.clamp_min(1 / 255).log()  # (B, 3, H, W)
    amounts = torch.einsum("bchw,cd->bdhw", density, unmix)  # (B, 3, H, W)
    return amounts[:, :2], colours[:2].to(x.device, x.dtype)


def stain_jitter(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """More or less of each dye: the amounts become (1 + s a) amounts + s b, with a and b drawn per image and dye.

    Source: Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 ...", IEEE TMI
    37(9): HED colour augmentation. Ours jitters haematoxylin and eosin, never the third dye.
    """
    strength = (0.1, 0.18, 0.28, 0.42, 0.6)[severity - 1]
    amounts, colours = dye_amounts(x)  # (B, 2, H, W), (2, 3)
    sign = torch.where(draws.uniform(x, 2, 2, 1, 1) < 0.5, -1.0, 1.0).to(x.dtype)
    size = sign * draws.uniform(x, 2, 2, 1, 1, low=0.5, high=1.0)  # (B, 2, 2, 1, 1): a and b of each dye
    more = size[:, 0] * amounts + 0.1 * size[:, 1]  # (B, 2, H, W)
    return x * torch.exp(-strength * torch.einsum("bdhw,dc->bchw", more, colours))


def stain_vectors(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Dyes of another maker, or another scanner's light: each dye's colour moves by a random vector per image.

    Source: the differences between laboratories that Macenko et al. 2009, "A method for normalizing histology
    slides for quantitative analysis", ISBI, take away.
    """
    strength = (0.08, 0.14, 0.22, 0.32, 0.46)[severity - 1]
    amounts, _ = dye_amounts(x)  # (B, 2, H, W)
    away = torch.nn.functional.normalize(draws.normal(x, 2, 3), dim=-1)  # (B, 2, 3)
    return x * torch.exp(-strength * torch.einsum("bdhw,bdc->bchw", amounts, away))
