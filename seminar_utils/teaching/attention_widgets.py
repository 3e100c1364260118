"""Figures to touch about attention: whose head looks where (lesson 05). See `widgets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..runtime import SeminarError
from .explore import explore
from .style import CourseFigure, draw_picture, new_figure, one_picture, styled


def class_attention(attentions: Sequence[Tensor], grid: tuple[int, int], block: int = -1) -> np.ndarray:
    """What the class token looks at: weights of one block (B, heads, 1 + N, 1 + N) -> maps (B, heads, H, W).

    Only the patches' shares are kept, scaled to sum to one over the map. Raises SeminarError for another grid.
    """
    weights = attentions[block][:, :, 0, 1:].detach().float().cpu().numpy()  # (B, heads, N)
    if weights.shape[-1] != grid[0] * grid[1]:
        raise SeminarError(f"{weights.shape[-1]} patches do not fill a grid of {tuple(grid)}")
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights.reshape(*weights.shape[:2], *grid)


def _check(images: Sequence[Any], maps: Any) -> np.ndarray:
    maps = np.asarray(maps, float)
    if maps.ndim != 4 or len(maps) != len(images) or len(maps) == 0 or maps.shape[1] == 0:
        raise SeminarError(
            f"a head chooser needs maps (images, heads, H, W), got {maps.shape} for {len(images)} images"
        )
    if not np.isfinite(maps).all() or maps.min() < 0:
        raise SeminarError("attention maps hold finite weights of at least 0")
    return maps


def _draw_map(ax, picture: np.ndarray, weights: np.ndarray, title: str) -> None:
    draw_picture(ax, picture, title)
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    low, high = weights.min(), weights.max()
    scaled = (weights - low) / max(high - low, 1e-12)
    ax.imshow(scaled, cmap="viridis", alpha=0.55, extent=extent, vmin=0, vmax=1)


@styled
def head_figure(image: int, head: int, images: Sequence[Any], maps: Any) -> CourseFigure:
    """One image, and under one head's map of the class token, coloured from its smallest to its largest weight."""
    maps = _check(images, maps)
    if not (0 <= image < maps.shape[0] and 0 <= head < maps.shape[1]):
        raise SeminarError(f"there are {maps.shape[0]} images and {maps.shape[1]} heads, got {image} and {head}")
    picture = one_picture(images[image])
    figure, axes = new_figure(1, 2, 6.4, 3.5, photo=True)
    draw_picture(axes[0, 0], picture, f"image {image}")
    shares = maps[image, head] / max(maps[image, head].sum(), 1e-12)
    title = f"head {head}: shares {shares.min():.1%} to {shares.max():.1%}"
    _draw_map(axes[0, 1], picture, maps[image, head], title)
    return figure


@styled
def head_grid(images: Sequence[Any], maps: Any) -> CourseFigure:
    """The static twin: a row for each image, first as it is, then under every head."""
    maps = _check(images, maps)
    rows, heads = maps.shape[:2]
    figure, axes = new_figure(rows, 1 + heads, 1.7 * (1 + heads), 1.75 * rows + 0.3, photo=True)
    for i, image in enumerate(images):
        picture = one_picture(image)
        draw_picture(axes[i, 0], picture, "" if i else "image")
        for head in range(heads):
            _draw_map(axes[i, 1 + head], picture, maps[i, head], "" if i else f"head {head}")
    return figure


def head_explorer(images: Sequence[Any], maps: Any) -> Any:
    """Choose an image and a head; or all of them at once."""
    maps = _check(images, maps)
    return explore(
        lambda image, head: head_figure(image, head, images, maps),
        lambda: head_grid(images, maps),
        image=list(range(maps.shape[0])),
        head=list(range(maps.shape[1])),
    )
