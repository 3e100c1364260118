"""A figure to touch about windows (lesson 03): whom can a patch attend to? See `widgets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

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
    draw_picture(ax, picture * (0.35 + 0.65 * shade), f"window {window}, {'shifted' if shifted else 'no shift'}")
    shift = window // 2 if shifted and side > window else 0
    for edge in range(shift or window, side, window):
        ax.axhline(edge * high - 0.5, color=PALETTE[4], linewidth=1.5)
        ax.axvline(edge * wide - 0.5, color=PALETTE[4], linewidth=1.5)
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
    """The static twin: a row for each patch; windows of every size, without and with shift."""
    picture = one_picture(image)
    columns = [(window, shifted) for window in windows for shifted in (False, True)]
    size = (2.1 * len(columns), 2.25 * len(queries))
    figure, axes = new_figure(len(queries), len(columns), *size, photo=True)
    for i, query in enumerate(queries):
        for j, (window, shifted) in enumerate(columns):
            _draw_windows(axes[i, j], picture, side, window, shifted, _read_place(query))
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
