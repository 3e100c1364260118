"""The clinical report card as one page: verdict, numbers, reliability curve, recalls, rules in words."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..evaluation.report import Check, ReportCard
from .style import PALETTE, CourseFigure, styled

GREEN, RED = PALETTE[2], PALETTE[1]
LINE = 0.26  # inches of one line of the rules
WIDTH = 11.0


@styled
def report_card_figure(card: ReportCard) -> CourseFigure:
    """One page for one `evaluation.report.ReportCard`; its height grows with the classes and rules."""
    rules = [_wrapped(check) for check in card.checks]
    rows = [card.heading(), *card.table(recalls=len(card.class_names) <= 4)]  # more of them: the bars must do
    heights = [0.5, LINE * (len(rows) + 0.5), 2.6, LINE * (sum(map(len, rules)) + 2.4)]
    figure = CourseFigure(figsize=(WIDTH, sum(heights) + 1.2))
    grid = figure.add_gridspec(4, 2, height_ratios=heights)
    _draw_verdict(figure.add_subplot(grid[0, :]), card)
    _draw_table(figure.add_subplot(grid[1, :]), rows)
    _draw_reliability(figure.add_subplot(grid[2, 0]), card)
    _draw_recall(figure.add_subplot(grid[2, 1]), card)
    _draw_rules(figure.add_subplot(grid[3, :]), card, rules)
    figure.suptitle(
        f"Would you deploy it?  {card.model}, {card.adaptation}, on {card.shift} ({card.images} images)",
        fontsize=15,
    )
    return figure


def _wrapped(check: Check) -> list[str]:
    return textwrap.wrap(f"{check.rule} Found: {check.found}.", 118)


def _blank(ax: Axes) -> None:
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))


def _draw_verdict(ax: Axes, card: ReportCard) -> None:
    _blank(ax)
    ax.add_patch(Rectangle((0, 0), 1, 1, color=GREEN if card.deploy else RED, alpha=0.2))
    ax.text(0.5, 0.5, card.verdict, ha="center", va="center", fontsize=15, weight="bold")


def _draw_table(ax: Axes, rows: list[tuple[str, ...]]) -> None:
    """The numbers, line by line: name, source, adapted; every other line shaded."""
    _blank(ax)
    places = (0.01, 0.5, 0.75) if len(rows[0]) == 3 else (0.01, 0.5)
    for i, row in enumerate(rows):
        y = 1 - (i + 0.5) / len(rows)
        if i % 2:
            ax.add_patch(Rectangle((0, y - 0.5 / len(rows)), 1, 1 / len(rows), color="#F2F2F2"))
        for x, words in zip(places, row):
            ax.text(x, y, words, va="center", fontsize=12, weight="bold" if i == 0 else "normal")


def _series(card: ReportCard) -> list[tuple]:
    """(name, numbers, colour, marker) of what is shown: the source model, if it is another one, and the judged."""
    source = [("source", card.source, PALETTE[6], "s")] if card.source is not None else []
    return [*source, (card.adaptation, card.numbers, PALETTE[0], "o")]


def _draw_reliability(ax: Axes, card: ReportCard) -> None:
    ax.plot([0, 1], [0, 1], ":", color="#666666")
    lowest = 1.0
    for name, numbers, colour, marker in _series(card):
        full = numbers.bins["count"] > 0
        confidence, accuracy = numbers.bins["confidence"][full], numbers.bins["accuracy"][full]
        ax.plot(confidence, accuracy, "-", marker=marker, color=colour, label=f"{name}, ECE {numbers.ece:.2f}")
        lowest = min(lowest, confidence.min())
    ax.set(xlim=(max(0.0, lowest - 0.05), 1.02), ylim=(0, 1.04), xlabel="confidence", ylabel="accuracy")
    ax.set_title("calibration (10 equal-mass bins)", fontsize=12)
    ax.legend(fontsize=11, loc="best")


def _draw_recall(ax: Axes, card: ReportCard) -> None:
    series, places = _series(card), np.arange(len(card.class_names))
    width = 0.8 / len(series)
    for i, (name, numbers, colour, _) in enumerate(series):
        shifted = places + (i - (len(series) - 1) / 2) * width
        values = np.array(numbers.recall, dtype=float)
        ax.bar(shifted, np.nan_to_num(values), width * 0.92, color=colour, label=name)
        for x, value in zip(shifted, values):  # an absent class gets a word, not a bar of no height
            words = "no image" if np.isnan(value) else f"{value:.2f}"
            ax.text(x, (0 if np.isnan(value) else value) + 0.02, words, ha="center", fontsize=10)
    ax.axhline(card.limits.recall, linestyle=":", color=RED)
    side = ax.get_yaxis_transform()  # x in axes, y in data
    ax.text(1.0, card.limits.recall, " limit", color=RED, fontsize=10, va="center", transform=side)
    ax.set_xticks(places, [textwrap.shorten(name, 16, placeholder="...") for name in card.class_names])
    if len(places) > 4:
        ax.tick_params(axis="x", labelrotation=40, labelsize=10)
    ax.set(ylim=(0, 1.12), ylabel="recall")
    ax.set_title("recall of each class", fontsize=12)
    ax.grid(axis="x", visible=False)


def _draw_rules(ax: Axes, card: ReportCard, rules: list[list[str]]) -> None:
    """The rules line by line, with a mark before the first line of each; then, is the change real?"""
    _blank(ax)
    total, line = sum(map(len, rules)) + 2.4, 1
    ax.text(0.01, 1 - 0.5 / total, "The rules, and what was found", va="center", fontsize=12, weight="bold")
    for check, words in zip(card.checks, rules):
        mark, colour = ("pass", GREEN) if check.passed else ("FAIL", RED)
        ax.text(0.01, 1 - (line + 0.5) / total, mark, color=colour, va="center", fontsize=11, weight="bold")
        for text in words:
            ax.text(0.065, 1 - (line + 0.5) / total, text, va="center", fontsize=11)
            line += 1
    if card.change is not None:
        words = textwrap.shorten(f"Is the change real? {card.change.sentence}", 170, placeholder=" ...")
        ax.text(0.01, 1 - (line + 0.8) / total, words, va="center", fontsize=10)
