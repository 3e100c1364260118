"""A figure to touch about prompts: how tight is the box? (lesson 08). See `widgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.prompted import box_prompts, dice_each, filled_boxes
from ..evaluation.reprompt import Encoded
from ..runtime import SeminarError
from .explore import explore
from .style import CourseFigure, draw_picture, new_figure, styled

FOUND, TRUE, BOX = "#D55E00", "#009E73", "#56B4E9"


@dataclass(frozen=True)
class BoxStop:
    """One image (H, W, C) with one box: masks (H, W), the box (4,), and Dice of the model and of the box."""

    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    box: tuple[float, ...]
    dice: float
    filled: float


BoxTable = Mapping[tuple[str, float], BoxStop]


def box_table(
    encoded: Encoded, images: np.ndarray, masks: np.ndarray, names: Sequence[str], loosen: Sequence[float]
) -> BoxTable:
    """Answers for every image (N, H, W, C) with its mask (N, H, W) and every looseness; no image is encoded anew.

    Raises SeminarError when there are not as many names as images, or two names are the same.
    """
    if len(names) != len(images) or len(set(names)) != len(names):
        raise SeminarError(f"each of the {len(images)} images needs a name of its own, got {list(names)}")
    table = {}
    for share in loosen:
        boxes = box_prompts(masks, share)
        found, filled = encoded.segment(boxes=boxes), filled_boxes(boxes, masks.shape[1:])
        scores = zip(dice_each(masks, found), dice_each(masks, filled))
        for i, (name, (dice, base)) in enumerate(zip(names, scores)):
            truth, box = masks[i] != 0, tuple(boxes[i].tolist())
            table[name, share] = BoxStop(images[i], truth, found[i], box, float(dice), float(base))
    return table


def box_axis(table: BoxTable, position: int) -> list:
    """The names (0) or the loosenesses (1) of a table, in order of appearance."""
    return list(dict.fromkeys(key[position] for key in table))


def _draw(ax, stop: BoxStop, title: str) -> None:
    """The image, the box dashed, the true outline, and the found one."""
    draw_picture(ax, stop.image.squeeze(), title)
    for mask, colour in ((stop.truth, TRUE), (stop.found, FOUND)):
        if mask.any() and not mask.all():
            ax.contour(mask, [0.5], colors=colour, linewidths=1.5)
    x0, y0, x1, y1 = stop.box
    corners = (
        [x0 - 0.5, x1 + 0.5, x1 + 0.5, x0 - 0.5, x0 - 0.5],
        [y0 - 0.5, y0 - 0.5, y1 + 0.5, y1 + 0.5, y0 - 0.5],
    )
    ax.plot(*corners, "--", color=BOX, linewidth=1.5)


@styled
def box_figure(image: str, looseness: float, table: BoxTable) -> CourseFigure:
    """One box: what the model makes of it, and Dice beside the filled box along all loosenesses.

    Raises SeminarError for an image or a looseness that is not in the table.
    """
    if (image, looseness) not in table:
        raise SeminarError(
            f"the table holds no {image!r} with looseness {looseness!r}; it has {box_axis(table, 0)} and "
            f"{box_axis(table, 1)}"
        )
    stop, shares = table[image, looseness], box_axis(table, 1)
    figure, axes = new_figure(1, 2, 8.5, 3.6, photo=True, gridspec_kw={"width_ratios": [1, 1.3]})
    _draw(axes[0, 0], stop, "green: true, orange: found")
    ax = axes[0, 1]
    ax.plot(shares, [table[image, share].dice for share in shares], "o-", color=FOUND, label="model")
    ax.plot(shares, [table[image, share].filled for share in shares], "s--", color=BOX, label="filled box")
    ax.axvline(looseness, linestyle=":", color="#666666")
    title = f"looseness {looseness:+.0%}: model {stop.dice:.2f}, filled box {stop.filled:.2f}"
    ax.set(xlabel="sides moved outwards by this share", ylabel="Dice", ylim=(0, 1.02), title=title)
    ax.legend(loc="lower left")
    return figure


@styled
def box_static(table: BoxTable) -> CourseFigure:
    """The static twin: a row for each image, a column for each looseness."""
    names, shares = box_axis(table, 0), box_axis(table, 1)
    shape = (len(names), len(shares), 1.75 * len(shares), 2.1 * len(names))
    figure, axes = new_figure(*shape, photo=True)
    for row, name in enumerate(names):
        for column, share in enumerate(shares):
            stop = table[name, share]
            above = f"{share:+.0%}\n" if row == 0 else ""
            _draw(axes[row, column], stop, f"{above}{stop.dice:.2f} (box {stop.filled:.2f})")
    return figure


def box_explorer(table: BoxTable) -> Any:
    """How tight must a box be? A menu of images and a slider over the looseness, or all side by side."""
    if not table:
        raise SeminarError("the table of boxes is empty")
    return explore(
        lambda image, looseness: box_figure(image, looseness, table),
        lambda: box_static(table),
        image=box_axis(table, 0),
        looseness=box_axis(table, 1),
    )
