"""Two figures about neighbour labels (lesson 13): the stages of meta-training, and a batch to put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..adaptation import NeighborLabels
from ..models.neighbor_labels import NeighborLabelNet
from ..runtime import SeminarError
from .explore import explore
from .style import PALETTE, CourseFigure, draw_picture, new_figure, styled

# ---- the stages, drawn -------------------------------------------------------------------------------

SEES_LABELS, NO_LABELS, MOVES = PALETTE[1], PALETTE[0], PALETTE[2]
BOXES = {  # name -> (x, y, text, colour): the upper row is meta-training, the lower one test time
    "source": (0.0, 3.2, "meta-source\nscanner: X, Y", SEES_LABELS),
    "erm": (2.1, 3.2, "(a) CE(Y; θ)\nplain training", MOVES),
    "target": (0.0, 1.7, "meta-target\nscanner: X', Y'", SEES_LABELS),
    "q": (2.1, 2.1, "posterior q(w | X', Y')\nsees the labels", SEES_LABELS),
    "p": (2.1, 1.1, "prior p(w | X')\nsees pseudo-labels", NO_LABELS),
    "labels": (4.4, 2.1, "(b) draw w from q,\nlabels ŷ from w, x'", SEES_LABELS),
    "inner": (6.6, 2.1, "(c) inner step\nθ' = θ - λ ∇CE(ŷ; θ)", MOVES),
    "outer": (8.9, 2.1, "(d) outer loss\nCE(Y'; θ')", SEES_LABELS),
    "kl": (4.4, 1.1, "+ KL(q || p)", SEES_LABELS),
    "e": (6.6, 1.1, "(e, ours)\n+ CE(Y'; ŷ)", SEES_LABELS),
    "batch": (0.0, -0.4, "new scanner: X\nno label", NO_LABELS),
    "p test": (2.1, -0.4, "prior p(w | X)", NO_LABELS),
    "labels test": (4.4, -0.4, "draw w from p,\nlabels ŷ from w, x", NO_LABELS),
    "inner test": (6.6, -0.4, "the same step\nθ' = θ - λ ∇CE(ŷ; θ)", MOVES),
    "answer": (8.9, -0.4, "answer with θ',\nback to θ", NO_LABELS),
}
ARROWS = (
    ("source", "erm"),
    ("target", "q"),
    ("target", "p"),
    ("q", "labels"),
    ("labels", "inner"),
    ("inner", "outer"),
    ("labels", "e"),
    ("q", "kl"),
    ("p", "kl"),
    ("batch", "p test"),
    ("p test", "labels test"),
    ("labels test", "inner test"),
    ("inner test", "answer"),
)
GRADIENT = "gradient to φ: (d), back through the step and the labels"  # what the dashed arrow says


@styled
def meta_stage_figure() -> CourseFigure:
    """Meta-training above, test time below: who sees which labels, what moves, and where the losses stand."""
    figure, axes = new_figure(1, 1, 12.5, 5.2)
    ax = axes[0, 0]
    drawn = {}
    for name, (x, y, text, colour) in BOXES.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": colour, "linewidth": 2.2}
        drawn[name] = ax.text(x, y, text, ha="center", va="center", fontsize=11, bbox=box).get_bbox_patch()
    for start, end in ARROWS:  # from edge to edge of the boxes
        style = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 2}
        style |= {"patchA": drawn[start], "patchB": drawn[end]}
        ax.annotate("", BOXES[end][:2], BOXES[start][:2], arrowprops=style)
    back = {"arrowstyle": "-|>", "color": SEES_LABELS, "linewidth": 1.8, "linestyle": "--"}
    back |= {"patchA": drawn["outer"], "patchB": drawn["q"], "connectionstyle": "arc3,rad=0.22"}
    ax.annotate("", BOXES["q"][:2], BOXES["outer"][:2], arrowprops=back)
    ax.text(5.5, 3.05, GRADIENT, ha="center", fontsize=11, color=SEES_LABELS)
    ax.axhline(0.35, color="#AAAAAA", linestyle=":")
    for y, text in ((3.75, "meta-training: two labelled scanners"), (0.15, "test time")):
        ax.text(-0.9, y, text, fontsize=12, style="italic")
    for y, (text, colour) in enumerate(
        (("sees labels", SEES_LABELS), ("no label", NO_LABELS), ("θ moves", MOVES))
    ):
        ax.text(9.8, 3.7 - 0.32 * y, text, color=colour, fontsize=12, ha="right")
    ax.set(xlim=(-1, 9.9), ylim=(-0.9, 4.0), title="practise the arrival of a new scanner, with two known ones")
    ax.set_axis_off()
    return figure


# ---- a batch to put together -----------------------------------------------------------------------

COMPANY = ("all classes", "own class only", "other classes only")


@dataclass(frozen=True)
class CompanyStop:
    """What one batch says about one patient, each (K,): the model before and after its step, labels (S, K)."""

    before: np.ndarray
    labels: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class CompanyTable:
    """Stops by (neighbours, company); the patient's image (C, H, W), true class, and the names of the classes."""

    stops: Mapping[tuple[int, str], CompanyStop]
    image: Tensor
    truth: int
    class_names: Sequence[str]


def choose_company(labels: np.ndarray, truth: int, count: int, company: str, seed: int = 0) -> np.ndarray:
    """Indices (count,) of neighbours of that kind, drawn without repeats. Raises SeminarError for too few.

    Fewer neighbours are the first of more: only the number changes.
    """
    if company not in COMPANY:
        raise SeminarError(f"company is one of {COMPANY}, got {company!r}")
    fits = {"all classes": labels >= 0, "own class only": labels == truth, "other classes only": labels != truth}
    found = np.random.default_rng(seed).permutation(np.flatnonzero(fits[company]))
    if len(found) < count:
        raise SeminarError(f"{count} neighbours ({company}) asked for, the pool has {len(found)}")
    return found[:count]


def company_table(
    model: NeighborLabelNet,
    patient: tuple[Tensor, int],
    pool: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    counts: Sequence[int] = (3, 15, 31),
    draws: int = 8,
    seed: int = 0,
) -> CompanyTable:
    """What the method says about one patient in every company.

    Args: patient: image (C, H, W) and its class; pool: other images (N, C, H, W) and their classes (N,), which
    only serve to put the company together: the method does not see them.
    """
    (image, truth), (x, labels), stops = patient, pool, {}
    for company in COMPANY:
        for count in counts:
            chosen = torch.as_tensor(choose_company(labels.numpy(), truth, count, company, seed))
            batch = torch.cat([image[None], x[chosen]])  # (1 + count, C, H, W)
            method = NeighborLabels(model, samples=draws, seed=seed)
            with torch.no_grad():
                logits, features = method.model(batch, with_features=True)
                labels_drawn = method.infer_labels(features, logits)  # (S, B, K)
            method.reset()
            after = method(batch)[0].softmax(dim=0)
            parts = (logits[0].softmax(dim=0), labels_drawn[:, 0], after)
            stops[count, company] = CompanyStop(*(part.numpy() for part in parts))
    return CompanyTable(stops, image, truth, class_names)


def _draw_company(ax: Axes, stop: CompanyStop, table: CompanyTable) -> None:
    places = np.arange(len(table.class_names))
    ax.axvspan(table.truth - 0.5, table.truth + 0.5, color="#EEEEEE", zorder=0)
    ax.bar(places - 0.25, stop.before, 0.24, color=PALETTE[6], label="model before")
    ax.bar(places, stop.labels.mean(axis=0), 0.24, color=PALETTE[0], label="label, mean of the draws")
    ax.bar(places + 0.25, stop.after, 0.24, color=PALETTE[1], label="model after the step")
    across = np.broadcast_to(places, stop.labels.shape)
    ax.plot(across.ravel(), stop.labels.ravel(), "o", color="white", markeredgecolor="#333333", markersize=4)
    ax.set(ylim=(0, 1.05), xticks=places)
    ax.set_xticklabels([name.replace(" ", "\n") for name in table.class_names], fontsize=9)
    ax.grid(axis="x", visible=False)


def _legend_below(figure: CourseFigure, ax: Axes) -> None:
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=10)


@styled
def company_figure(neighbors: int, company: str, table: CompanyTable) -> CourseFigure:
    """One batch: the patient, what the model said, the drawn labels (circles), and what it says after the step."""
    if (neighbors, company) not in table.stops:
        raise SeminarError(f"the table holds no batch {(neighbors, company)}, it has {list(table.stops)}")
    figure, axes = new_figure(1, 2, 9.5, 3.8, gridspec_kw={"width_ratios": [1, 2.6]})
    draw_picture(axes[0, 0], table.image, f"truth: {table.class_names[table.truth]}")
    _draw_company(axes[0, 1], table.stops[neighbors, company], table)
    _legend_below(figure, axes[0, 1])
    axes[0, 1].set(title=f"{neighbors} neighbours, {company}", ylabel="probability")
    return figure


@styled
def company_static(table: CompanyTable) -> CourseFigure:
    """The static twin: a row for each company, a column for each number of neighbours."""
    counts = list(dict.fromkeys(count for count, _ in table.stops))
    figure, axes = new_figure(len(COMPANY), len(counts), 4.2 * len(counts), 2.5 * len(COMPANY), sharey=True)
    for row, company in enumerate(COMPANY):
        for column, count in enumerate(counts):
            ax = axes[row, column]
            _draw_company(ax, table.stops[count, company], table)
            ax.set_title(f"{count} neighbours, {company}", fontsize=11)
        axes[row, 0].set_ylabel("probability")
    _legend_below(figure, axes[0, 0])
    return figure


def company_explorer(table: CompanyTable) -> Any:
    """Put a batch together around one patient: number and kind of neighbours, or all batches at once."""
    counts = list(dict.fromkeys(count for count, _ in table.stops))
    return explore(
        lambda neighbors, company: company_figure(neighbors, company, table),
        lambda: company_static(table),
        neighbors=counts,
        company=list(COMPANY),
    )
