"""After the device: compression and loss of resolution on the way to the archive."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...runtime import SeminarError
from .draws import Draws

MODES = {1: "L", 3: "RGB"}


def jpeg(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """JPEG (ITU-T T.81) through Pillow, at a lower and lower quality; the pixels pass through 8 bits."""
    from PIL import Image

    if x.shape[1] not in MODES:
        raise SeminarError(f"JPEG holds 1 or 3 channels, got images of {x.shape[1]}")
    quality = (45, 22, 12, 6, 2)[severity - 1]
    pixels = (x.detach() * 255).round().to("cpu", torch.uint8).movedim(1, -1)  # (B, H, W, C)
    seen = []
    for image in pixels.numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if x.shape[1] == 1 else image).save(file, "JPEG", quality=quality)
        seen.append(np.asarray(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(seen)).movedim(-1, 1).to(x.device, x.dtype) / 255  # (B, C, H, W)


def pixelate(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """A coarser pixel matrix: the mean of each large pixel, shown as a flat square."""
    share = (0.7, 0.46, 0.3, 0.18, 0.1)[severity - 1]
    coarse = [max(1, round(share * side)) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, coarse, mode="area"), x.shape[-2:], mode="nearest-exact")
