"""A table of differences as a picture: who gains where, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..evaluation.intervals import Interval
from .style import CourseFigure, new_figure, styled


@styled
def interval_map(
    cells: Mapping[str, Mapping[str, Interval]],
    columns: Sequence[str],
    title: str = "",
    starred: Collection[tuple[str, str]] | None = None,
    higher_is_better: bool = True,
) -> CourseFigure:
    """Differences row by row, {row: {column: Interval}}, drawn in hundredths; an entry may be missing.

    Blue is better, red is worse; in brackets the interval. Bold: those of `starred`, (row, column), with a star;
    without it, where the interval excludes zero and the mean is no 0.0.
    """
    tall = 0.62 if any("\n" in row for row in cells) else 0.46
    figure, axes = new_figure(1, 1, 2.6 + 1.45 * len(columns), 1.3 + tall * len(cells))
    ax, colours = axes[0, 0], np.full((len(cells), len(columns)), np.nan)
    for i, (row, found) in enumerate(cells.items()):
        for j, column in enumerate(columns):
            if column not in found:
                continue
            one, star = found[column], starred is not None and (row, column) in starred
            colours[i, j] = 100 * one.mean * (1 if higher_is_better else -1)
            bold = star if starred is not None else one.excludes_zero() and round(100 * one.mean, 1) != 0
            look = {"color": "white" if abs(one.mean) > 0.3 else "black", "weight": "bold" if bold else None}
            ax.text(j, i, in_points(one, "*" if star else ""), ha="center", va="center", fontsize=8, **look)
    ax.imshow(colours, cmap="RdBu", vmin=-50, vmax=50, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, fontsize=9)
    ax.set_yticks(range(len(cells)), list(cells), fontsize=9)
    ax.xaxis.tick_top()
    ax.grid(False)
    ax.set_title(title, loc="left", fontsize=10)
    figure.told = f"{title}: {sum(map(len, cells.values()))} differences"
    return figure


def in_points(one: Interval, mark: str = "") -> str:
    """A difference and its interval in hundredths; two digits where one would show an end as zero that is none."""
    ends = [100 * end for end in (one.low, one.high)]
    digits = 2 if any(0 < abs(end) < 0.05 for end in ends) and one.excludes_zero() else 1
    mean, low, high = (round(number, digits) + 0.0 for number in (100 * one.mean, *ends))
    return f"{mean:+.{digits}f}{mark}\n[{low:+.{digits}f}, {high:+.{digits}f}]"
