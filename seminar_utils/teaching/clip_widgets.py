"""The prompt playground (lesson 04): menus of words, and how well a sentence fits a few images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Rectangle

from ..models.clip import CLIP
from ..models.zero_shot import Tokenizer
from ..runtime import SeminarError
from .explore import explore
from .style import PALETTE, CourseFigure, draw_picture, new_figure, styled

ANY = "(any)"  # the menu's entry for leaving a word out
Words = tuple[str, str, str, str]  # size, tone, type, place
MENUS = {
    "size": (ANY, "small", "large"),
    "tone": (ANY, "dark", "bright"),
    "kind": (ANY, "round", "elongated", "ring-shaped", "spiculated"),
    "place": (ANY, "upper left", "lower right"),
}


def sentence(size: str = ANY, tone: str = ANY, kind: str = ANY, place: str = ANY) -> str:
    """The words as a caption of the course: `a dark round lesion in the upper left of the organ`."""
    said = " ".join(word for word in (size, tone, kind) if word != ANY)
    where = "" if place == ANY else f" in the {place} of the organ"
    return f"a {said + ' ' if said else ''}lesion{where}"


@dataclass(frozen=True)
class PromptTable:
    """What the playground shows: `cosines` maps the four words to one cosine for each image.

    captions: what each image shows, to be written above it; left out when empty.
    """

    images: Sequence[Any]
    cosines: Mapping[Words, Sequence[float]]
    captions: Sequence[str] = ()

    def __post_init__(self):
        if not self.cosines or any(len(values) != len(self.images) for values in self.cosines.values()):
            raise SeminarError(f"a prompt table needs one cosine for each of its {len(self.images)} images")
        if self.captions and len(self.captions) != len(self.images):
            raise SeminarError(f"{len(self.images)} images take as many captions, got {len(self.captions)}")

    def of(self, words: Words) -> np.ndarray:
        """The cosines of one sentence (N,). Raises SeminarError for words that are not in the table."""
        if words not in self.cosines:
            raise SeminarError(f"the table holds no sentence of {words}, it has {len(self.cosines)} others")
        return np.asarray(self.cosines[words], dtype=float)

    def caption(self, i: int) -> str:
        """The caption of image i in short lines, or nothing."""
        return textwrap.fill(self.captions[i], 13) if self.captions else ""


@torch.no_grad()
def prompt_table(model: CLIP, tokenizer: Tokenizer, x: torch.Tensor, captions: Sequence[str] = ()) -> PromptTable:
    """All sentences of the menus against images x (N, C, H, W), whose own captions stand above them."""
    words = list(product(*MENUS.values()))
    text = model.encode_text(tokenizer([sentence(*chosen) for chosen in words]), normalize=True)  # (M, D)
    cosines = text @ model.encode_image(x, normalize=True).T  # (M, N)
    return PromptTable(list(x), dict(zip(words, cosines.tolist())), captions)


@styled
def prompt_figure(size: str, tone: str, kind: str, place: str, table: PromptTable) -> CourseFigure:
    """The images, best one first, each with the cosine of the chosen sentence below."""
    cosines = table.of((size, tone, kind, place))
    order = np.argsort(-cosines, kind="stable")
    shape = (2, len(order), 1.5 * len(order), 3.7 if table.captions else 3.1)
    figure, axes = new_figure(*shape, sharey="row", photo=True, gridspec_kw={"height_ratios": [2, 1]})
    for column, i in enumerate(order):
        draw_picture(axes[0, column], table.images[i], f"{cosines[i]:.2f}")
        axes[1, column].set_xlabel(table.caption(i), fontsize=8)
        axes[1, column].bar([0], [cosines[i]], color=PALETTE[0 if cosines[i] > 0 else 1])
        axes[1, column].axhline(0, color="#555555", linewidth=1)
        axes[1, column].set(xticks=[], ylim=(-1, 1))
    axes[1, 0].set_ylabel("cosine")
    figure.suptitle(f"“{sentence(size, tone, kind, place)}”: best image first")
    return figure


TWIN: tuple[Words, ...] = (
    (ANY, ANY, ANY, "upper left"),
    (ANY, ANY, ANY, "lower right"),
    (ANY, "dark", ANY, ANY),
    (ANY, "bright", ANY, ANY),
    ("small", ANY, ANY, ANY),
    ("large", ANY, ANY, ANY),
    (ANY, ANY, "round", ANY),
    (ANY, ANY, "ring-shaped", ANY),
    (ANY, ANY, "spiculated", ANY),
    ("large", "dark", "ring-shaped", "upper left"),
)


@styled
def prompt_static(table: PromptTable) -> CourseFigure:
    """The static twin: a grid of some sentences (rows) and all images (columns), the best of each row framed."""
    shown = [words for words in TWIN if words in table.cosines] or list(table.cosines)[: len(TWIN)]
    values = np.stack([table.of(words) for words in shown])  # (M, N)
    count = len(table.images)
    height = 0.42 * len(shown) + (2.6 if table.captions else 1.9)
    figure, _ = new_figure(1, 1, 1.0 * count + 4.6, height, photo=True)
    figure.clear()
    mosaic = [[f"image {i}" for i in range(count)], ["grid"] * count]
    axes = figure.subplot_mosaic(mosaic, height_ratios=[1, 0.42 * len(shown)])
    for i, image in enumerate(table.images):
        draw_picture(axes[f"image {i}"], image)
        axes[f"image {i}"].set_title(table.caption(i), fontsize=8)
    ax = axes["grid"]
    low, high = values.min(), values.max()
    ax.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > low + 0.6 * (high - low) else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    for row, best in enumerate(values.argmax(axis=1)):
        corner = (best - 0.47, row - 0.44)
        ax.add_patch(Rectangle(corner, 0.94, 0.88, fill=False, edgecolor=PALETTE[1], linewidth=2.5))
    ax.set_yticks(range(len(shown)), [sentence(*words) for words in shown])
    ax.set_xticks([])
    ax.grid(visible=False)
    return figure


def prompt_playground(table: PromptTable) -> Any:
    """Choose the words and see which image fits: four menus, or the grid of some sentences."""
    return explore(
        lambda **words: prompt_figure(**words, table=table),
        lambda: prompt_static(table),
        **{name: list(dict.fromkeys(w[i] for w in table.cosines)) for i, name in enumerate(MENUS)},
    )
