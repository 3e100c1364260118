"""A figure to touch about windows (lesson 03): whom can a patch attend to? See `widgets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb

from ..models.windows import shift_mask, window_partition, window_reverse
from ..runtime import SeminarError
from .explore import explore
from .style import PALETTE, CourseFigure, draw_picture, new_figure, one_picture, styled


def visible_tokens(side: int, window: int, shifted: bool, row: int, column: int) -> np.ndarray:
    """Which tokens of a side x side map one block lets the token (row, column) attend to: booleans (side, side).

    Shifted means by half a window, as in Swin: rolled, masked, rolled back. Where one window covers the map,
    there is no shift. Raises SeminarError if the window does not tile the map or the token is not on it.
    """
    if not (0 <= row < side and 0 <= column < side):
        raise SeminarError(f"a map of {side} x {side} has no token ({row}, {column})")
    shift = window // 2 if shifted and side > window else 0
    asking = torch.zeros(1, side, side, 1, dtype=torch.bool)
    asking[0, row, column] = True
    asking = window_partition(torch.roll(asking, (-shift, -shift), dims=(1, 2)), window)[..., 0]  # (windows, N)
    number, place = asking.nonzero()[0].tolist()
    seen = torch.zeros(asking.shape, dtype=torch.bool)
    seen[number] = shift_mask(side, side, window, (shift, shift))[number, place] == 0
    on_map = window_reverse(seen[..., None], window, side, side)  # (1, side, side, 1)
    return torch.roll(on_map, (shift, shift), dims=(1, 2))[0, ..., 0].numpy()


def _draw_windows(ax, picture: np.ndarray, side: int, window: int, shifted: bool, query: tuple[int, int]) -> None:
    seen = visible_tokens(side, window, shifted, *query)
    height, width = picture.shape[:2]
    if height % side or width % side:
        raise SeminarError(f"a map of {side} x {side} patches does not divide an image of {(height, width)}")
    high, wide = height / side, width / side  # pixels of a patch
    light = np.kron(seen, np.ones((height // side, width // side)))  # (H, W): 1 where it may look
    shade = light if picture.ndim == 2 else light[..., None]
    faded = 1 - (1 - picture) * (0.4 + 0.6 * shade)  # towards white: dark tissue stays readable
    draw_picture(ax, faded, f"window {window}, {'shifted' if shifted else 'no shift'}")
    shift = window // 2 if shifted and side > window else 0
    for edge in range(shift or window, side, window):
        ax.axhline(edge * high - 0.5, color=PALETTE[0], linewidth=1.5)
        ax.axvline(edge * wide - 0.5, color=PALETTE[0], linewidth=1.5)
    corner = (query[1] * wide - 0.5, query[0] * high - 0.5)
    ax.add_patch(_frame(corner, wide, high))


def _frame(corner: tuple[float, float], width: float, height: float):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor=PALETTE[1], linewidth=3)


@styled
def window_figure(window: int, shift: str, query: str, image: Any, side: int = 16) -> CourseFigure:
    """What a patch can attend to in one block: bright, under the windows' borders; the patch is framed.

    shift: "no" or "yes"; query: "row, column" of the patch. Raises SeminarError for another word.
    """
    row, column = _read_place(query)
    if shift not in ("no", "yes"):
        raise SeminarError(f"shift is 'no' or 'yes', got {shift!r}")
    figure, axes = new_figure(1, 1, 4.6, 4.8, photo=True)
    _draw_windows(axes[0, 0], one_picture(image), side, window, shift == "yes", (row, column))
    count = int(visible_tokens(side, window, shift == "yes", row, column).sum())
    figure.suptitle(f"patch ({row}, {column}) sees {count} of {side * side}")
    return figure


@styled
def window_static(image: Any, windows: Sequence[int], queries: Sequence[str], side: int = 16) -> CourseFigure:
    """The static twin: a row for each patch, named at the left; windows of every size, without and with shift."""
    picture = one_picture(image)
    columns = [(window, shifted) for window in windows for shifted in (False, True)]
    size = (2.1 * len(columns) + 0.3, 2.45 * len(queries))
    figure, axes = new_figure(len(queries), len(columns), *size, photo=True)
    for i, query in enumerate(queries):
        for j, (window, shifted) in enumerate(columns):
            ax, place = axes[i, j], _read_place(query)
            _draw_windows(ax, picture, side, window, shifted, place)
            ax.set_title(
                f"{ax.get_title()}\nsees {visible_tokens(side, window, shifted, *place).sum()}", fontsize=12
            )
        axes[i, 0].text(-0.04, 0.5, f"patch ({query})", rotation=90, ha="right", va="center", fontsize=12,
                        transform=axes[i, 0].transAxes)  # fmt: skip
    return figure


@styled
def cyclic_shift(image: Any, side: int = 16, window: int = 4) -> CourseFigure:
    """Figure 4 of the paper: shifted windows, the rolled map with numbered pieces, who sees whom in the corner.

    Piece 1 shows the image, the pieces at the rim have flat colours. Raises SeminarError if the patches do
    not divide the image.
    """
    picture = one_picture(image)
    picture = np.dstack([picture] * 3) if picture.ndim == 2 else picture
    size, shift = picture.shape[0] // side, window // 2  # pixels of a patch
    if picture.shape[:2] != (side * size, side * size):
        raise SeminarError(f"a map of {side} x {side} patches does not divide an image of {picture.shape[:2]}")
    at_rim = np.arange(side) < shift
    piece = 1 + at_rim[None] + 2 * at_rim[:, None]  # (side, side): 1 to 4
    flat = np.array([to_rgb(PALETTE[i]) for i in (0, 4, 2, 3)])
    painted = np.where(np.kron(piece == 1, np.ones((size, size)))[..., None] > 0, picture,
                       np.kron(flat[piece - 1], np.ones((size, size, 1))))  # fmt: skip
    figure, axes = new_figure(1, 3, 12, 5.2, photo=True)
    titles = (
        f"windows shifted by {shift}:\nincomplete ones at the rim",
        "rolled: full windows,\nsome of several pieces",
    )
    for ax, title, roll in zip(axes[0], titles, (0, shift)):
        draw_picture(ax, np.roll(painted, (-roll * size, -roll * size), (0, 1)), title)
        now = np.roll(piece, (-roll, -roll), (0, 1))
        borders = range(shift - roll, side, window)
        for edge in borders:
            ax.axhline(edge * size - 0.5, color="white", linewidth=2)
            ax.axvline(edge * size - 0.5, color="white", linewidth=2)
        stops = sorted({0, side, side - roll, *borders})
        middles = [(a + b) / 2 for a, b in zip(stops, stops[1:])]
        look = {"ha": "center", "va": "center", "color": "white", "fontsize": 13, "weight": "bold"}
        for row in middles:
            for column in middles:
                place = (column * size - 0.5, row * size - 0.5)
                ax.text(*place, str(now[int(row), int(column)]), **look)
    last = shift_mask(side, side, window, (shift, shift))[-1] == 0
    axes[0, 2].imshow(last.numpy(), cmap="gray", vmin=-0.3, vmax=1)
    axes[0, 2].set(title=f"the last window: {window**2} x {window**2} pairs,\nwhite may see each other")
    axes[0, 2].set(xlabel="token j", ylabel="token i")
    axes[0, 2].grid(False)
    return figure


def window_explorer(
    image: Any, windows: Sequence[int] = (2, 4, 8), queries: Sequence[str] = ("7, 7", "15, 15"), side: int = 16
) -> Any:
    """Choose window, shift and patch and see whom it can attend to; or the grid of them all."""
    return explore(
        lambda window, shift, query: window_figure(window, shift, query, image, side),
        lambda: window_static(image, windows, queries, side),
        window=list(windows),
        shift=["no", "yes"],
        query=list(queries),
    )


def _read_place(query: str) -> tuple[int, int]:
    try:
        row, column = (int(number) for number in query.split(","))
    except (ValueError, AttributeError):
        raise SeminarError(f"a patch is written 'row, column', got {query!r}") from None
    return row, column
