"""The figures of a benchmark: who ranks where, how far a shift carries, what a gain costs, who beats a control.

Each function returns a figure and a sentence for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..evaluation.bench_cells import AXES
from ..evaluation.bench_store import Row, newest
from ..evaluation.bench_table import LOWER_IS_BETTER, UNBOUNDED, Table, aggregate
from ..evaluation.bench_text import spoken
from ..evaluation.intervals import Interval, seed_interval
from ..runtime import SeminarError
from .figures import draw_lines, method_colour
from .interval_map import in_points, interval_map
from .style import MARKERS, CourseFigure, new_figure, styled

Drawn = tuple[CourseFigure, str]


def overall(rows: Sequence[Row], metric: str) -> tuple[dict[str, Interval], int, int]:
    """method -> mean over all conditions with its interval over seeds; how many counted, and of how many.

    Only conditions in which every method has a number for every seed count: a method that failed on the hard ones
    would look the better for it. Raises SeminarError when there is none.
    """
    others = [axis for axis in AXES if axis != "method"]
    values = aggregate(newest(rows).values(), metric, ["method"], others)
    methods = list(dict.fromkeys(row[0] for row, _ in values))
    conditions = list(dict.fromkeys(column for _, column in values))
    seeds = sorted({seed for value in values.values() for seed in value.by_seed})
    whole = [c for c in conditions if all(set(_by_seed(values, m, c)) >= set(seeds) for m in methods)]
    if not whole:
        raise SeminarError(
            f"no condition has a result of every method for every seed ({len(conditions)} conditions)"
        )
    found = {}
    for method in methods:
        means = [float(np.mean([_by_seed(values, method, c)[seed] for c in whole])) for seed in seeds]
        bounds = (0, math.inf if metric in UNBOUNDED else 1)
        found[method] = (
            seed_interval(means, bounds=bounds) if len(seeds) > 1 else Interval(means[0], means[0], means[0])
        )
    return found, len(whole), len(conditions)


def _by_seed(values, method: str, condition: tuple) -> dict[int, float]:
    value = values.get(((method,), condition))
    return dict(value.by_seed) if value else {}


@styled
def ranking(rows: Sequence[Row], metric: str = "balanced_accuracy") -> Drawn:
    """Methods from best to worst, a point and its interval over seeds each, over all complete conditions."""
    found, counted, total = overall(rows, metric)
    low_first = metric in LOWER_IS_BETTER
    order = sorted(found, key=lambda method: found[method].mean, reverse=low_first)  # the best ends on top
    figure, axes = new_figure(1, 1, 7.5, 1.2 + 0.5 * len(order))
    ax = axes[0, 0]
    for place, method in enumerate(order):
        one = found[method]
        lengths = [[one.mean - one.low], [one.high - one.mean]]
        ax.errorbar([one.mean], [place], xerr=lengths, fmt="o", capsize=5, color=method_colour(method, place))
    ax.set_yticks(range(len(order)), order)
    what = metric.replace("_", " ")
    ax.set(xlabel=f"{what} (lower is better)" if low_first else what, ylim=(-0.6, len(order) - 0.4))
    ax.set_title(f"mean over {counted} of {total} conditions", loc="left")
    said = ", ".join(f"{method} {found[method]}" for method in reversed(order))
    return figure, f"Methods ranked by {what} over {counted} of {total} conditions, best first: {said}."


@styled
def severity_curves(rows: Sequence[Row], metric: str = "balanced_accuracy") -> Drawn:
    """The metric against the severity, a panel a shift; the mean over all else but method and seed."""
    rows = list(newest(rows).values())
    shifts = sorted({row["params"]["shift"] for row in rows} - {"none"})
    if not shifts:
        raise SeminarError("severity curves need rows with a shift, these have none")
    figure, axes = new_figure(1, len(shifts), 4.4 * len(shifts) + 1, 4.2, sharey=True)
    said = []
    for ax, shift in zip(axes[0], shifts):
        severities, curves = _curves(rows, shift, metric)
        draw_lines(ax, severities, curves)
        ax.set(xlabel="severity", title=shift)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ends = ", ".join(f"{m} {v[0]:.2f} to {v[-1]:.2f}" for m, (v, _) in curves.items())
        said.append(f"{shift}, severity {severities[0]} to {severities[-1]}: {ends}")
    axes[0, 0].set_ylabel(metric.replace("_", " "))
    axes[0, 0].legend()
    return figure, f"{metric.replace('_', ' ')} as the shift grows. " + "; ".join(said) + "."


def _curves(rows: Sequence[Row], shift: str, metric: str) -> tuple[list[int], dict]:
    """Severities (0: no shift) at which something is complete, and method -> (means, intervals) there."""
    there = {row["params"]["severity"] for row in rows if row["params"]["shift"] == shift}
    severities = sorted(there | {0 for row in rows if row["params"]["shift"] == "none"})
    points: dict[str, dict[int, Interval]] = {}
    for severity in severities:
        name = shift if severity else "none"
        here = [row for row in rows if (row["params"]["shift"], row["params"]["severity"]) == (name, severity)]
        try:
            found = overall(here, metric)[0]
        except SeminarError:
            continue  # no condition there is complete
        for method, interval in found.items():
            points.setdefault(method, {})[severity] = interval
    drawn = [severity for severity in severities if points and all(severity in found for found in points.values())]
    if not drawn:
        raise SeminarError(f"the shift {shift!r} has no severity at which every method has every seed")
    curves = {m: [found[severity] for severity in drawn] for m, found in points.items()}
    return drawn, {m: ([i.mean for i in found], [(i.low, i.high) for i in found]) for m, found in curves.items()}


@styled
def harm_against_gain(rows: Sequence[Row]) -> Drawn:
    """Who was helped, who was harmed: a point a method; on the diagonal nothing is won."""
    harm, gain = overall(rows, "harm")[0], overall(rows, "gain")[0]
    figure, axes = new_figure(1, 1, 6.0, 5.0 + 0.15 * len(harm))
    ax = axes[0, 0]
    top = 1.1 * max([0.02, *(one.high for one in [*harm.values(), *gain.values()])])
    ax.plot([0, top], [0, top], ":", color="#666666", label="as many harmed as helped")
    methods = [method for method in harm if method in gain]
    for i, method in enumerate(methods):
        x, y = harm[method], gain[method]
        errors = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
        style = {"fmt": MARKERS[i % 7], "color": method_colour(method, i), "capsize": 3, "label": method}
        ax.errorbar([x.mean], [y.mean], **errors, **style)
    ax.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel="harm: right before, wrong after",
        ylabel="gain: wrong before, right after",
    )
    figure.legend(loc="outside lower center", ncols=2)
    said = ", ".join(f"{m} helps {gain[m].mean:.3f} and harms {harm[m].mean:.3f}" for m in methods)
    return figure, f"Share of images helped against share harmed, compared with the source model: {said}."


def difference_map(table: Table, title: str = "") -> CourseFigure:
    """A table of differences to a control (`bench_table(..., over=...)`) as an `interval_map`.

    Stars are the table's; `told` says where they stand. Raises SeminarError when the table holds no difference.
    """
    found = {key: value for key, value in table.values.items() if value.difference is not None}
    if not found:
        raise SeminarError("a map of differences needs a table made with over=..., and two seeds of both")
    rows = {row: spoken(row) for row in table.rows if any(key[0] == row for key in found)}
    columns = {c: spoken(c).replace(" / ", "\n") for c in table.columns if any(key[1] == c for key in found)}
    cells: dict[str, dict[str, Interval]] = {name: {} for name in rows.values()}
    starred, said = set(), []
    for (row, column), value in found.items():
        cells[rows[row]][columns[column]] = one = value.difference.interval
        if value.starred:
            starred.add((rows[row], columns[column]))
            said.append(f"{rows[row]} at {spoken(column)} {in_points(one, '*').splitlines()[0]}")
    better = table.metric not in LOWER_IS_BETTER
    heading = title or f"{table.metric.replace('_', ' ')}, {table.notes[0]}"
    figure = interval_map(cells, list(columns.values()), heading, starred, better)
    stars = "; ".join(said) or "none has one"
    figure.told = f"{title or table.metric}: {len(found)} differences, {table.notes[0]}; {stars}."
    return figure
