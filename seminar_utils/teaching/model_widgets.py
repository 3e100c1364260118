"""Figures to touch about the models: depth (lesson 01) and patch size (lesson 02). See `widgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..runtime import SeminarError
from .explore import explore
from .style import PALETTE, STYLES, CourseFigure, draw_picture, new_figure, one_picture, panels, styled

# ---- depth (lesson 01) ------------------------------------------------------------------------------

DepthTable = Mapping[int, Mapping[str, Sequence[float]]]


def _draw_depth(ax, depth: int, table: DepthTable, xlabel: str, log: bool) -> None:
    for i, (name, values) in enumerate(table[depth].items()):
        ax.plot(
            range(1, len(values) + 1), values, STYLES[i % len(STYLES)], color=PALETTE[i % len(PALETTE)], label=name
        )
    ax.set(title=f"{depth} layers", xlabel=xlabel, yscale="log" if log else "linear")


@styled
def depth_figure(
    depth: int, table: DepthTable, xlabel: str = "epoch", ylabel: str = "training loss", log: bool = False
) -> CourseFigure:
    """Plain against residual networks of one depth. `table`: depth -> {name: values over epochs or layers}."""
    if depth not in table:
        raise SeminarError(f"the table holds no depth {depth!r}, it has {list(table)}")
    figure, axes = new_figure()
    _draw_depth(axes[0, 0], depth, table, xlabel, log)
    axes[0, 0].set_ylabel(ylabel)
    axes[0, 0].legend()
    return figure


@styled
def depth_static(table: DepthTable, xlabel: str = "epoch", ylabel: str = "training loss", log: bool = False):
    """The static twin: all depths side by side on one scale."""
    figure, axes = new_figure(1, len(table), 3.2 * len(table) + 0.6, 3.4, sharey=True)
    for ax, depth in zip(axes[0], table):
        _draw_depth(ax, depth, table, xlabel, log)
    axes[0, 0].set_ylabel(ylabel)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def residual_explorer(
    table: DepthTable, xlabel: str = "epoch", ylabel: str = "training loss", log: bool = False
) -> Any:
    """How depth hurts a plain network and not a residual one: a slider over depth, or all depths."""
    if not table:
        raise SeminarError("the depth table is empty")
    options = {"xlabel": xlabel, "ylabel": ylabel, "log": log}
    return explore(
        lambda depth: depth_figure(depth, table, **options),
        lambda: depth_static(table, **options),
        depth=list(table),
    )


# ---- patches (lesson 02) ----------------------------------------------------------------------------


def _draw_grid(ax, picture: np.ndarray, patch_size: int) -> None:
    height, width = picture.shape[:2]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise SeminarError(f"patches of {patch_size} pixels do not tile an image of {(height, width)}")
    tokens = (height // patch_size) * (width // patch_size)
    draw_picture(ax, picture, f"patch {patch_size}: {tokens} tokens,\n{tokens**2:,} pairs")
    for edge in range(patch_size, height, patch_size):
        ax.axhline(edge - 0.5, color=PALETTE[4], linewidth=1)
    for edge in range(patch_size, width, patch_size):
        ax.axvline(edge - 0.5, color=PALETTE[4], linewidth=1)


@styled
def patch_figure(patch_size: int, image: Any, shown: int = 8) -> CourseFigure:
    """An image under its grid of patches; beside it the sequence's middle `shown` patches, row by row."""
    picture = one_picture(image)
    figure, axes = new_figure(1, 2, 8.5, 3.8, photo=True, gridspec_kw={"width_ratios": [1, 1.4]})
    _draw_grid(axes[0, 0], picture, patch_size)
    rows, columns = picture.shape[0] // patch_size, picture.shape[1] // patch_size
    patches = [
        picture[r * patch_size : (r + 1) * patch_size, c * patch_size : (c + 1) * patch_size]
        for r in range(rows)
        for c in range(columns)
    ]  # N of (p, p[, 3])
    first = max(0, (len(patches) - shown) // 2)
    axes[0, 1].set_axis_off()
    axes[0, 1].set_title(f"tokens {first} to {min(first + shown, len(patches)) - 1}", fontsize=12)
    for i, patch in enumerate(patches[first : first + shown]):
        inset = axes[0, 1].inset_axes([0.25 * (i % 4), 0.5 - 0.5 * (i // 4), 0.23, 0.46])
        draw_picture(inset, patch)
    return figure


@styled
def patch_static(image: Any, patch_sizes: Sequence[int]) -> CourseFigure:
    """The static twin: the grids of all patch sizes side by side."""
    picture = one_picture(image)
    figure, axes = panels(len(patch_sizes), min(len(patch_sizes), 4), 2.3, photo=True)
    for ax, patch_size in zip(axes, patch_sizes):
        _draw_grid(ax, picture, patch_size)
    return figure


def patch_explorer(image: Any, patch_sizes: Sequence[int] = (4, 8, 16, 32)) -> Any:
    """What a ViT reads at each patch size: a slider, or all sizes side by side."""
    return explore(
        lambda patch_size: patch_figure(patch_size, image),
        lambda: patch_static(image, patch_sizes),
        patch_size=list(patch_sizes),
    )
