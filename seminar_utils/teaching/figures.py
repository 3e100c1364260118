"""The figures that lessons share. Each returns a figure: end the cell with the call, or `display` it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..runtime import SeminarError
from .style import (
    MARKERS,
    METHOD_COLOURS,
    PALETTE,
    STYLES,
    CourseFigure,
    draw_picture,
    new_figure,
    numbers,
    one_picture,
    panels,
    styled,
    use_course_style,
)

__all__ = [
    "attention_overlay",
    "bars_with_intervals",
    "grouped_bars",
    "histograms",
    "image_grid",
    "lines_with_intervals",
    "reliability_diagram",
    "training_curves",
    "use_course_style",
]


def method_colour(name: str, index: int) -> str:
    """The colour of a method, the same in every lesson; other names take the palette in order."""
    return METHOD_COLOURS.get(name.lower().split()[0] if name.strip() else name, PALETTE[index % len(PALETTE)])


@styled
def image_grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: float = 1.7,
    heading: str = "",
) -> CourseFigure:
    """Images side by side: numpy (N, H, W[, C]), torch (N, C, H, W) or a list of single images.

    Values: uint8, or floats in [0, 1]. `size`: inches per image. Raises SeminarError for an empty list,
    for images that are none, or when there are not as many titles as images.
    """
    if len(images) == 0:
        raise SeminarError("image_grid needs at least one image")
    titles = [""] * len(images) if titles is None else list(titles)
    if len(titles) != len(images):
        raise SeminarError(f"image_grid got {len(images)} images and {len(titles)} titles")
    figure, axes = panels(len(images), columns, size, photo=True)
    for ax, image, title in zip(axes, images, titles):
        draw_picture(ax, image, title)
    figure.suptitle(textwrap.fill(heading, max(20, int(8 * figure.get_figwidth()))))
    return figure


@styled
def training_curves(
    history: Sequence[Mapping[str, float]] | Mapping[str, Sequence[float]], heading: str = ""
) -> CourseFigure:
    """Loss and accuracy over epochs, from what `fit` returns (one dict per epoch) or a mapping of lists.

    Curves with "loss" in the name go to the left panel, accuracies to the right, others are left out.
    """
    if not isinstance(history, Mapping):
        names = list(dict.fromkeys(name for row in history for name in row))
        history = {name: [row.get(name, np.nan) for row in history] for name in names}
    groups = {
        "loss": {k: v for k, v in history.items() if "loss" in k},
        "accuracy": {k: v for k, v in history.items() if "acc" in k},
    }
    shown = {kind: curves for kind, curves in groups.items() if curves}
    if not shown:
        raise SeminarError(f"no loss or accuracy in this history, it has {sorted(history)}")
    figure, axes = new_figure(1, len(shown), 4.5 * len(shown), 3.6)
    for ax, (kind, curves) in zip(axes[0], shown.items()):
        for i, (name, values) in enumerate(curves.items()):
            values = numbers(values, name)
            ax.plot(range(1, len(values) + 1), values, STYLES[i], color=PALETTE[i], label=name.replace("_", " "))
        ax.set(xlabel="epoch", ylabel=kind)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()
    figure.suptitle(heading)
    return figure


@styled
def attention_overlay(image: Any, attention_map: Any, title: str = "attention") -> CourseFigure:
    """An image beside itself under an attention map (h, w) >= 0 of any grid that divides its sides evenly.

    Weights are scaled to their largest. Attention shows where values came from, not why the model decided.
    """
    picture = one_picture(image)
    weights = numbers(
        attention_map.detach().cpu() if hasattr(attention_map, "detach") else attention_map, "the attention map", 2
    )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise SeminarError("an attention map holds finite weights of at least 0")
    height, width = picture.shape[:2]
    if height % weights.shape[0] or width % weights.shape[1]:
        raise SeminarError(f"a map of {weights.shape} does not divide an image of {(height, width)}")
    figure, axes = panels(2, 2, 3.0, photo=True)
    draw_picture(axes[0], picture, "image")
    draw_picture(axes[1], picture, title)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[1].imshow(weights / max(weights.max(), 1e-12), cmap="viridis", alpha=0.55, extent=extent, vmin=0, vmax=1)
    return figure


@styled
def reliability_diagram(bins: Mapping[str, Any], title: str = "", ax: Axes | None = None) -> CourseFigure:
    """Accuracy against confidence, from `evaluation.metrics.reliability_bins`; below, how many per bin.

    Points under the diagonal are over-confident. The area of a point is its share of the samples; bins of fewer
    than ten are shown, not joined.
    Pass `ax` to draw into a figure of your own.
    """
    missing = {"confidence", "accuracy", "count"} - set(bins)
    if missing:
        raise SeminarError(f"reliability_diagram needs confidence, accuracy and count; missing {sorted(missing)}")
    confidence, accuracy, count = (numbers(bins[k], k) for k in ("confidence", "accuracy", "count"))
    if not len(confidence) == len(accuracy) == len(count) or count.sum() <= 0:
        raise SeminarError("the bins should have equal lengths and at least one sample")
    if ax is None:
        _, axes = new_figure(1, 1, 4.6, 4.4)
        ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], ":", color="#666666", label="perfectly calibrated")
    full = count > 0
    many = count >= 10  # smaller bins wobble
    ax.plot(confidence[many], accuracy[many], "-", color=PALETTE[0], linewidth=1.5)
    ax.scatter(confidence[full], accuracy[full], s=30 + 400 * count[full] / count.sum(), color=PALETTE[0])
    gap = float((np.abs(confidence - accuracy)[full] * count[full]).sum() / count.sum())
    ax.text(0.97, 0.05, f"ECE {gap:.3f}", transform=ax.transAxes, ha="right")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title=title)
    ax.legend(loc="upper left")
    return ax.figure


@styled
def bars_with_intervals(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]] | None = None,
    ylabel: str = "balanced accuracy",
    title: str = "",
    chance: float | None = None,
) -> CourseFigure:
    """One bar per label with its (low, high) interval and the number above; a dotted line at chance."""
    values = numbers(values, "values")
    if len(labels) != len(values):
        raise SeminarError(f"bars_with_intervals got {len(labels)} labels and {len(values)} values")
    errors = None if intervals is None else _error_lengths(values, intervals)  # (2, N)
    figure, axes = new_figure(1, 1, max(4.0, 1.3 * len(values) + 1.5))
    ax = axes[0, 0]
    colours = [method_colour(label, i) for i, label in enumerate(labels)]
    ax.bar(range(len(values)), values, color=colours, width=0.65)
    if errors is not None:
        ax.errorbar(range(len(values)), values, errors, fmt="none", color="#555555", capsize=6, linewidth=2)
    tops = values + (errors[1] if errors is not None else 0)
    for i, (value, top) in enumerate(zip(values, tops)):
        ax.annotate(f"{value:.3g}", (i, top), xytext=(0, 4), textcoords="offset points", ha="center")
    if chance is not None:
        ax.axhline(chance, linestyle=":", color="#666666")
    ax.set_xticks(range(len(values)), labels)
    ax.set(ylabel=ylabel, title=title)
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
    return figure


@styled
def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[Any]],
    ylabel: str = "balanced accuracy",
    title: str = "",
    chance: float | None = None,
) -> CourseFigure:
    """For every group one bar per name, with its interval; a dotted line at chance.

    `series` maps a name (a method) to one `Interval` per group: anything with mean, low and high.
    Raises SeminarError when a series has not one interval per group.
    """
    wrong = {name: len(found) for name, found in series.items() if len(found) != len(groups)}
    if wrong or not series or not groups:
        raise SeminarError(
            f"grouped_bars needs {len(groups)} intervals in each series, got {wrong or dict(series)}"
        )
    figure, axes = new_figure(1, 1, min(13.0, max(7.0, 1.6 * len(groups))), 4.2)
    ax, width = axes[0, 0], 0.8 / len(series)
    for i, (name, found) in enumerate(series.items()):
        means = np.array([interval.mean for interval in found])
        lengths = _error_lengths(means, [(interval.low, interval.high) for interval in found])
        places = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        ax.bar(places, means, width, label=name, color=method_colour(name, i))
        ax.errorbar(places, means, lengths, fmt="none", ecolor="#777777", capsize=3, linewidth=1.5)
    if chance is not None:
        ax.axhline(chance, linestyle=":", color="#555555")
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylabel=ylabel, title=title, ylim=(0, 1.05))
    ax.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=len(series))
    return figure


def _error_lengths(values: np.ndarray, intervals: Any) -> np.ndarray:
    """Distances (2, N) from values down to the lows and up to the highs. Raises SeminarError if low > high."""
    bounds = numbers(intervals, "intervals", 2)  # (N, 2)
    if bounds.shape != (len(values), 2) or (bounds[:, 0] > bounds[:, 1]).any():
        raise SeminarError(f"intervals should be {len(values)} pairs (low, high) with low <= high")
    return np.stack([values - bounds[:, 0], bounds[:, 1] - values]).clip(0)


@styled
def draw_lines(ax: Axes, x: Sequence[float], series: Mapping[str, Any], marker_x: float | None = None) -> None:
    """Lines with shaded intervals on given axes; `series` maps a name to values or (values, intervals)."""
    x = numbers(x, "x")
    if not series:
        raise SeminarError("there is no series to draw")
    for i, (name, entry) in enumerate(series.items()):
        values, intervals = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
        values = numbers(values, f"series {name!r}")
        if len(values) != len(x):
            raise SeminarError(f"series {name!r} has {len(values)} values for {len(x)} places on the x axis")
        colour = method_colour(name, i)
        ax.plot(
            x,
            values,
            STYLES[i % 7],
            color=colour,
            marker=MARKERS[i % 7],
            markevery=max(1, len(x) // 10),
            label=name,
        )
        if intervals is not None:
            below, above = _error_lengths(values, intervals)
            ax.fill_between(x, values - below, values + above, color=colour, alpha=0.15, linewidth=0)
    if marker_x is not None:
        ax.axvline(marker_x, color="#666666", linestyle=":", linewidth=1.5)


@styled
def lines_with_intervals(
    x: Sequence[float],
    series: Mapping[str, Any],
    xlabel: str = "",
    ylabel: str = "balanced accuracy",
    title: str = "",
    ylim: tuple[float, float] | None = None,
) -> CourseFigure:
    """Lines over x: `series` maps a name to values (N,), or to (values, [(low, high), ...])."""
    figure, axes = new_figure()
    ax = axes[0, 0]
    draw_lines(ax, x, series)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if ylim is not None:
        ax.set_ylim(*ylim)
    ax.legend()
    return figure


@styled
def histograms(samples: Mapping[str, Any], bins: int = 40, xlabel: str = "", title: str = "") -> CourseFigure:
    """Outlined histograms over common bins, each scaled to area one. `samples` maps a name to values (N,)."""
    flat = {name: numbers(np.ravel(values), f"sample {name!r}") for name, values in samples.items()}
    if not flat or not all(np.isfinite(values).all() for values in flat.values()):
        raise SeminarError("histograms need at least one sample, of finite values")
    edges = np.histogram_bin_edges(np.concatenate(list(flat.values())), bins)
    figure, axes = new_figure()
    ax = axes[0, 0]
    for i, (name, values) in enumerate(flat.items()):
        density, _ = np.histogram(values, edges, density=True)
        ax.stairs(density, edges, fill=True, color=PALETTE[i % 7], alpha=0.2)
        ax.stairs(density, edges, color=PALETTE[i % 7], linestyle=STYLES[i % 7], linewidth=2, label=name)
    ax.set(xlabel=xlabel, ylabel="density", title=title)
    ax.legend()
    return figure
