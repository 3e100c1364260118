"""A figure to touch about MAE: the mask ratio (lesson 06). See `widgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.mae import MaskedAutoencoder, patchify, random_masking, unpatchify
from ..runtime import SeminarError
from .explore import explore
from .style import CourseFigure, draw_picture, new_figure, panels, styled


@dataclass(frozen=True)
class MaskStop:
    """What one mask ratio shows of one image: pictures (C, H, W), and the error of the hidden pixels."""

    original: Tensor
    masked: Tensor
    pasted: Tensor
    visible: int
    patches: int
    error: float  # root mean squared, in pixel values, over the hidden patches


MaskTable = Mapping[float, MaskStop]


def hide_patches(images: Tensor, ratio: float, p: int, seed: int = 0) -> Tensor:
    """Images (B, C, H, W) with a share of their p x p patches white; a larger ratio hides more of the same."""
    patches = patchify(images, p)  # (B, N, p * p * C)
    noise = torch.rand(patches.shape[:2], generator=torch.Generator().manual_seed(seed))
    _, mask, _ = random_masking(patches, ratio, noise)
    grid = images.shape[-2] // p, images.shape[-1] // p
    return unpatchify(patches.masked_fill(mask[:, :, None].bool(), 1.0), p, grid)


def mask_table(model: MaskedAutoencoder, image: Tensor, ratios: Sequence[float], seed: int = 0) -> MaskTable:
    """One stop for each mask ratio, for an image (C, H, W). All share one noise: masks only grow.

    Raises SeminarError for a ratio outside (0, 1) and for a model without decoder.
    """
    noise = torch.rand(1, model.grid**2, generator=torch.Generator().manual_seed(seed))
    table = {}
    for ratio in ratios:
        seen = model.reconstruct(image[None], ratio, noise, fill=1.0)
        square = (seen.painted - image[None]).square().mean(dim=1)[0]  # (H, W)
        p, grid = model.patch_size, model.grid
        hidden = seen.mask.view(grid, grid).repeat_interleave(p, 0).repeat_interleave(p, 1).bool()  # (H, W)
        visible = int((seen.mask == 0).sum())
        error = float(square[hidden].mean().sqrt())
        table[ratio] = MaskStop(image, seen.masked[0], seen.pasted[0], visible, grid**2, error)
    return table


def _picture(image: Tensor) -> np.ndarray:
    """A picture (C, H, W) as (H, W[, C]) in [0, 1]."""
    picture = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return picture[..., 0] if picture.shape[2] == 1 else picture


@styled
def mask_figure(mask_ratio: float, table: MaskTable) -> CourseFigure:
    """One mask ratio: what the encoder sees, what comes back, the original, and where the two differ."""
    if mask_ratio not in table:
        raise SeminarError(f"the table holds no mask ratio {mask_ratio!r}, it has {list(table)}")
    stop = table[mask_ratio]
    figure, axes = panels(4, 4, 2.5, photo=True)
    gap = (stop.pasted - stop.original).abs().mean(dim=0, keepdim=True)
    titles = (
        f"visible: {stop.visible} of {stop.patches}",
        f"painted, error {stop.error:.2f}",
        "original",
        "|difference| x 3",
    )
    for ax, image, title in zip(axes, (stop.masked, stop.pasted, stop.original, 3 * gap), titles):
        draw_picture(ax, _picture(image), title)
    return figure


@styled
def mask_static(table: MaskTable) -> CourseFigure:
    """The static twin: a column for each mask ratio, the encoder's view above, the painting below."""
    figure, axes = new_figure(2, len(table) + 1, 1.9 * (len(table) + 1), 4.2, photo=True)
    for column, (ratio, stop) in enumerate(table.items()):
        draw_picture(axes[0, column], _picture(stop.masked), f"{ratio:.0%} hidden")
        draw_picture(axes[1, column], _picture(stop.pasted), f"error {stop.error:.2f}")
    first = next(iter(table.values()))
    draw_picture(axes[0, -1], _picture(first.original), "original")
    axes[1, -1].set_axis_off()
    return figure


def mask_explorer(table: MaskTable) -> Any:
    """How much can be hidden? A slider over the mask ratio, or all ratios side by side."""
    if not table:
        raise SeminarError("the table of mask ratios is empty")
    return explore(
        lambda mask_ratio: mask_figure(mask_ratio, table), lambda: mask_static(table), mask_ratio=list(table)
    )
