"""The look of the course's figures: large enough for a projector, safe for colour-blind readers, small to store.

A `CourseFigure` is no pyplot figure: it shows itself once, where it ends a cell or is passed to
`display`, and nothing stays open. Photographs are stored as JPEG (a quarter of the PNG), curves as PNG.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import sys
from collections.abc import Callable
from typing import TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..runtime import SeminarError

T = TypeVar("T")
VISIBLE = 0.25  # mean error of a pixel, of 255: drawings stay below, what holds photographs does not

# Okabe and Ito, Color universal design, 2008; yellow left out, it is lost on a white wall
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# told apart in black and white too
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":", "-", "--", "-.")

# one colour per method, the same in every lesson
METHOD_COLOURS = {"source": PALETTE[6], "bn": PALETTE[0], "tent": PALETTE[1], "neighbour": PALETTE[2]}

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE, linestyle=STYLES),
}


def small_png(png: bytes) -> bytes:
    """A drawing with at most 128 colours, about half the size; a photograph, which would show it, as it is."""
    picture, stored = Image.open(io.BytesIO(png)), io.BytesIO()
    if picture.mode == "P":
        return png
    picture = picture.convert("RGB")
    few = picture.quantize(128, dither=Image.Dither.NONE)
    if np.abs(np.asarray(few.convert("RGB"), float) - np.asarray(picture, float)).mean() > VISIBLE:
        return png
    few.save(stored, "PNG", optimize=True)
    return min(png, stored.getvalue(), key=len)


class CourseFigure(Figure):
    """A figure that knows how it is stored: `photo` figures as JPEG, the others as PNG."""

    photo = False
    told = ""  # a sentence for those who do not see it; none: what its titles say

    def encoded(self) -> tuple[str, bytes]:
        """The MIME type and the bytes that a notebook stores: JPEG, or PNG with 128 colours (half the size)."""
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi="figure", facecolor="white")
        if self.photo:
            Image.open(drawn).convert("RGB").save(stored, "JPEG", quality=85, optimize=True)
            return "image/jpeg", stored.getvalue()
        return "image/png", small_png(drawn.getvalue())

    def description(self) -> str:
        """One line for those who do not see the picture: titles, else what is drawn over what."""
        if self.told:
            return f"Figure: {self.told}"
        names = [self.get_suptitle()]
        for axes in self.axes:
            over = " over ".join(label for label in (axes.get_ylabel(), axes.get_xlabel()) if label)
            names.append(axes.get_title() or over)
        return "Figure: " + "; ".join(name.replace("\n", " ") for name in names if name)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        kind, content = self.encoded()
        data = {kind: base64.b64encode(content).decode(), "text/plain": self.description()}
        display(data, raw=True)


def use_course_style() -> None:
    """Give plain pyplot figures the course's look as well; under IPython store them as PNG."""
    matplotlib.rcParams.update(STYLE)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png")


def styled(draw: Callable[..., T]) -> Callable[..., T]:
    """Decorator: what `draw` draws has the course's look, whatever the notebook's own settings are."""

    @functools.wraps(draw)
    def in_style(*arguments, **options):
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return in_style


@styled
def new_figure(
    rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 4.2, photo: bool = False, **options
) -> tuple[CourseFigure, np.ndarray]:
    """A styled figure and its axes, an array (rows, columns); width and height in inches."""
    figure = CourseFigure(figsize=(width, height))
    figure.photo = photo
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panels(count: int, columns: int | None, size: float, photo: bool = False, **options):
    """A grid of `count` square panels of `size` inches; returns the figure and `count` axes."""
    columns = columns or min(count, 6)
    rows = math.ceil(count / columns)
    figure, axes = new_figure(rows, columns, size * columns, size * rows, photo, **options)
    for unused in axes.ravel()[count:]:
        unused.set_axis_off()
    return figure, list(axes.ravel()[:count])


def numbers(values: object, what: str, ndim: int = 1) -> np.ndarray:
    """A float array of `ndim` axes, not empty (NaN leaves a gap in the plot). Raises SeminarError otherwise."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise SeminarError(f"{what} should be numbers, got {type(values).__name__}") from None
    if array.ndim != ndim or array.size == 0:
        raise SeminarError(f"{what} should have {ndim} axes and not be empty, got shape {array.shape}")
    return array


def one_picture(image: object, what: str = "an image") -> np.ndarray:
    """An image as (H, W) or (H, W, 3), float in [0, 1], from numpy (channels last) or torch (channels first).

    uint8 is divided by 255. Raises SeminarError for another shape, and for floats outside of [0, 1] or NaN.
    """
    is_tensor = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu() if is_tensor else image)
    if is_tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)  # (C, H, W) -> (H, W, C)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)) or array.size == 0:
        layout = "(H, W) or (C, H, W)" if is_tensor else "(H, W) or (H, W, C)"
        raise SeminarError(f"{what} should be {layout} with 1 or 3 channels, got shape {tuple(np.shape(image))}")
    if array.dtype == np.uint8:
        return array / 255.0
    array = array.astype(float)
    if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
        raise SeminarError(f"{what} should be uint8, or floats in [0, 1] without NaN")
    return array.clip(0, 1)


def draw_picture(axes: Axes, image: object, title: str = "") -> None:
    """Show one image on axes without ticks or grid."""
    picture = one_picture(image)
    axes.imshow(picture, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=12)
