"""Figures to touch, each with a static twin that shows the same point when no kernel runs.

A widget here is a plain function from the positions of its sliders to a figure, tested as such, and a
table computed beforehand: moving a slider only draws. Stored notebooks hold the twin, no widget state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime import SeminarError
from .attention_widgets import class_attention, head_explorer, head_figure, head_grid
from .click_prompts import Prompt, prompt_gallery
from .click_widgets import ClickSession, click_segmenter
from .clip_widgets import PromptTable, prompt_figure, prompt_playground, prompt_static, prompt_table
from .explore import explore
from .figures import draw_lines
from .mae_widgets import hide_patches, mask_explorer, mask_figure, mask_static, mask_table
from .medical_widgets import box_explorer, box_figure, box_static, box_table
from .model_widgets import (
    depth_figure,
    depth_static,
    patch_explorer,
    patch_figure,
    patch_static,
    residual_explorer,
)
from .neighbor_widgets import (
    company_explorer,
    company_figure,
    company_static,
    company_table,
    meta_stage_figure,
)
from .prompt_widgets import ScannerPrompts, scanner_prompt_figure, scanner_prompt_static, scanner_prompts
from .report_widgets import card_table, report_dial, report_dial_figure, report_dial_static
from .style import PALETTE, STYLES, CourseFigure, draw_picture, new_figure, styled
from .swin_widgets import cyclic_shift, visible_tokens, window_explorer, window_figure, window_static
from .ttt_widgets import alignment_dial, alignment_figure, alignment_static, alignment_table

__all__ = [
    "ClickSession",
    "DialTable",
    "Prompt",
    "alignment_dial",
    "alignment_figure",
    "alignment_static",
    "alignment_table",
    "box_explorer",
    "box_figure",
    "box_static",
    "box_table",
    "card_table",
    "class_attention",
    "click_segmenter",
    "company_explorer",
    "company_figure",
    "company_static",
    "company_table",
    "cyclic_shift",
    "PromptTable",
    "ScannerPrompts",
    "depth_figure",
    "depth_static",
    "explore",
    "failure_explorer",
    "hide_patches",
    "failure_figure",
    "failure_grid",
    "head_explorer",
    "head_figure",
    "head_grid",
    "mask_explorer",
    "mask_figure",
    "mask_static",
    "mask_table",
    "meta_stage_figure",
    "patch_explorer",
    "patch_figure",
    "patch_static",
    "prompt_figure",
    "prompt_gallery",
    "prompt_playground",
    "prompt_static",
    "prompt_table",
    "report_dial",
    "report_dial_figure",
    "report_dial_static",
    "residual_explorer",
    "scanner_dial",
    "scanner_dial_figure",
    "scanner_dial_static",
    "scanner_prompt_figure",
    "scanner_prompt_static",
    "scanner_prompts",
    "visible_tokens",
    "window_explorer",
    "window_figure",
    "window_static",
]


# ---- the scanner dial (lessons 00 and 11) -----------------------------------------------------------


@dataclass(frozen=True)
class DialTable:
    """What the scanner dial shows: `series` maps a method to values (S,) or (values, intervals (S, 2)).

    strengths: (S,); images: one per strength, the same patient, or None.
    Raises SeminarError when the lengths differ.
    """

    strengths: Sequence[float]
    series: Mapping[str, Any]
    images: Sequence[Any] | None = None

    def __post_init__(self):
        lengths = {name: len(self.values(name)) for name in self.series}
        if self.images is not None:
            lengths["images"] = len(self.images)
        wrong = {name: n for name, n in lengths.items() if n != len(self.strengths)}
        if wrong or not self.series or len(self.strengths) == 0:
            raise SeminarError(
                f"a dial of {len(self.strengths)} strengths needs as many values each, got {lengths}"
            )

    def values(self, name: str) -> Sequence[float]:
        """The values of one method, without its intervals."""
        entry = self.series[name]
        return entry[0] if isinstance(entry, tuple) else entry


@styled
def scanner_dial_figure(strength: float, table: DialTable, ylabel: str = "balanced accuracy") -> CourseFigure:
    """The curves with a mark at `strength`, the numbers there, and the patient as this scanner sees it.

    Raises SeminarError for a strength that is not in the table.
    """
    found = np.flatnonzero(np.isclose(table.strengths, strength))
    if not len(found):
        raise SeminarError(f"the table has no strength {strength}, it has {list(table.strengths)}")
    place = int(found[0])
    widths = {"gridspec_kw": {"width_ratios": [2.2, 1]}} if table.images is not None else {}
    figure, axes = new_figure(1, 1 if table.images is None else 2, 9.0, 4.0, **widths)
    ax = axes[0, 0]
    draw_lines(ax, table.strengths, table.series, marker_x=strength)
    reading = ", ".join(f"{name} {table.values(name)[place]:.2f}" for name in table.series)
    ax.set(xlabel="strength of the scanner", ylabel=ylabel, title=f"at {strength:g}: {reading}", ylim=(0, 1.02))
    ax.legend(loc="lower left")
    if table.images is not None:
        draw_picture(axes[0, 1], table.images[place], f"strength {strength:g}")
    return figure


@styled
def scanner_dial_static(table: DialTable, ylabel: str = "balanced accuracy") -> CourseFigure:
    """The static twin: all strengths at once, the same patient above (up to six of them)."""
    if table.images is None:
        figure, axes = new_figure()
        ax = axes[0, 0]
    else:
        shown = np.unique(np.linspace(0, len(table.strengths) - 1, 6).round().astype(int))
        mosaic = [[f"image {i}" for i in shown], ["curves"] * len(shown)]
        figure, _ = new_figure(1, 1, 8.5, 5.4)
        figure.clear()
        axes = figure.subplot_mosaic(mosaic, height_ratios=[1, 2.4])
        for i in shown:
            draw_picture(axes[f"image {i}"], table.images[i], f"{table.strengths[i]:g}")
        ax = axes["curves"]
    draw_lines(ax, table.strengths, table.series)
    ax.set(xlabel="strength of the scanner", ylabel=ylabel, ylim=(0, 1.02))
    ax.legend(loc="lower left")
    return figure


def scanner_dial(table: DialTable, ylabel: str = "balanced accuracy") -> Any:
    """Turn up the scanner and watch each method: a slider, or the static twin."""
    return explore(
        lambda strength: scanner_dial_figure(strength, table, ylabel),
        lambda: scanner_dial_static(table, ylabel),
        strength=list(table.strengths),
    )


# ---- the failure explorer (lesson 11) ---------------------------------------------------------------

FailureTable = Mapping[tuple[str, int, float], Mapping[str, Sequence[float]]]


def failure_axis(table: FailureTable, position: int) -> list:
    """The streams (0), batch sizes (1) or learning rates (2) of a table, in order of appearance."""
    return list(dict.fromkeys(key[position] for key in table))


def _draw_failure(ax, curves: Mapping[str, Sequence[float]], colour: str, style: str, label: str = "") -> None:
    for name in ("accuracy", "class_entropy"):
        if name not in curves:
            raise SeminarError(f"each entry of a failure table needs {name!r}, this one has {sorted(curves)}")
    share = np.linspace(0, 1, len(curves["accuracy"]))
    ax.plot(share, curves["accuracy"], style, color=colour, label=label or "accuracy")
    ax.plot(
        share, curves["class_entropy"], ":", color=colour, linewidth=1.5, label="" if label else "class entropy"
    )
    ax.set(ylim=(0, 1.05), xlim=(0, 1))


@styled
def failure_figure(stream: str, batch_size: int, learning_rate: float, table: FailureTable) -> CourseFigure:
    """Accuracy along one stream, and the entropy of the predicted classes (1 = all) that would have warned.

    `table` maps (stream, batch size, learning rate) to {"accuracy": ..., "class_entropy": ...} over batches.
    """
    key = (stream, batch_size, learning_rate)
    if key not in table:
        raise SeminarError(
            f"the table holds no run {key}; it has {len(table)} runs such as {next(iter(table), None)}"
        )
    figure, axes = new_figure()
    _draw_failure(axes[0, 0], table[key], PALETTE[1], "-")
    title = f"{stream} stream, batch {batch_size}, learning rate {learning_rate:g}"
    axes[0, 0].set(xlabel="share of the stream", ylabel="accuracy, class entropy", title=title)
    axes[0, 0].legend(loc="lower left")
    return figure


@styled
def failure_grid(table: FailureTable) -> CourseFigure:
    """The static twin: a row per stream, a column per batch size, a colour per learning rate."""
    streams, sizes, rates = (failure_axis(table, position) for position in range(3))
    shape = (len(streams), len(sizes), 2.9 * len(sizes), 2.3 * len(streams) + 0.5)
    figure, axes = new_figure(*shape, sharex=True, sharey=True)
    for (stream, size, rate), curves in table.items():
        i = rates.index(rate)
        ax = axes[streams.index(stream), sizes.index(size)]
        _draw_failure(ax, curves, PALETTE[i % len(PALETTE)], STYLES[i % len(STYLES)], f"lr {rate:g}")
    for ax, size in zip(axes[0], sizes):
        ax.set_title(f"batch {size}")
    for ax, stream in zip(axes[:, 0], streams):
        ax.set_ylabel(stream)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(rates))
    figure.supxlabel("share of the stream (accuracy; dotted: class entropy)", fontsize=12)
    return figure


def failure_explorer(table: FailureTable) -> Any:
    """Stream, batch size, learning rate -> accuracy and warning; or the grid of them all."""
    if not table:
        raise SeminarError("the failure table is empty")
    names = ("stream", "batch_size", "learning_rate")
    return explore(
        lambda **values: failure_figure(**values, table=table),
        lambda: failure_grid(table),
        **{name: failure_axis(table, i) for i, name in enumerate(names)},
    )
