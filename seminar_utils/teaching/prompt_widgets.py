"""A figure to touch about prompts: choose a question, a prompt and a scanner (lesson 14). See `widgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.calibration import expected_calibration_error
from ..evaluation.metrics import balanced_accuracy
from ..runtime import SeminarError
from .explore import explore
from .style import PALETTE, CourseFigure, draw_picture, new_figure, styled

Chosen = tuple[str, str, str]  # question, prompt, scanner


@dataclass(frozen=True)
class ScannerPrompts:
    """What the playground shows: (question, prompt, scanner) -> probabilities (N, K) of the same patients.

    names: question -> its K class names; labels: question -> (N,), the same patients on every scanner; images:
    scanner -> the first patient as it sees him. Raises SeminarError for what is missing or does not fit.
    """

    names: Mapping[str, Sequence[str]]
    labels: Mapping[str, Any]
    probs: Mapping[Chosen, Any]
    images: Mapping[str, Any]

    def __post_init__(self):
        if not self.probs:
            raise SeminarError("the playground needs at least one question, one prompt and one scanner")
        for question in self.questions:
            shape = (len(self.labels[question]), len(self.names[question]))
            for prompt in self.prompts:
                for scanner in self.scanners:
                    found = np.shape(self.of(question, prompt, scanner))
                    if found != shape:
                        raise SeminarError(
                            f"{question}, {prompt}, {scanner}: expected probabilities {shape}, got {found}"
                        )
        if missing := set(self.scanners) - set(self.images):
            raise SeminarError(f"each scanner needs an image of the first patient, {sorted(missing)} have none")

    @property
    def questions(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(chosen[0] for chosen in self.probs))

    @property
    def prompts(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(chosen[1] for chosen in self.probs))

    @property
    def scanners(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(chosen[2] for chosen in self.probs))

    def of(self, question: str, prompt: str, scanner: str) -> np.ndarray:
        """The probabilities (N, K). Raises SeminarError for a combination that is not in the table."""
        if (question, prompt, scanner) not in self.probs:
            raise SeminarError(f"the table has nothing for {question!r}, {prompt!r}, {scanner!r}")
        return np.asarray(self.probs[question, prompt, scanner], dtype=float)

    def score(self, question: str, prompt: str, scanner: str) -> tuple[float, float]:
        """Balanced accuracy and calibration error over all patients."""
        probs, labels = self.of(question, prompt, scanner), np.asarray(self.labels[question])
        return float(balanced_accuracy(labels, probs.argmax(1))), float(expected_calibration_error(probs, labels))

    def confusion(self, question: str, prompt: str, scanner: str) -> np.ndarray:
        """Shares (K, K): of the patients of each class (row) those who are given each answer (column)."""
        probs, labels = self.of(question, prompt, scanner), np.asarray(self.labels[question])
        counts = np.zeros((probs.shape[1],) * 2)
        np.add.at(counts, (labels, probs.argmax(1)), 1)
        return counts / counts.sum(1, keepdims=True).clip(1)


@styled
def scanner_prompt_figure(question: str, prompt: str, scanner: str, table: ScannerPrompts) -> CourseFigure:
    """The first patient on this scanner, what the prompt says of him, and what it says of all patients."""
    probs, names = table.of(question, prompt, scanner), list(table.names[question])
    shares, truth = table.confusion(question, prompt, scanner), int(np.asarray(table.labels[question])[0])
    figure, axes = new_figure(1, 3, 12.0, 3.8, photo=True, gridspec_kw={"width_ratios": [1, 1.2, 1.3]})
    draw_picture(axes[0, 0], table.images[scanner], f"scanner {scanner}: {names[truth]}")
    colours = [PALETTE[2] if k == truth else PALETTE[1] for k in range(len(names))]
    axes[0, 1].barh(range(len(names)), probs[0], color=colours)
    axes[0, 1].set_yticks(range(len(names)), names)
    axes[0, 1].invert_yaxis()
    axes[0, 1].set(xlim=(0, 1), xlabel="probability", title="this patient (green: right)")
    accuracy, ece = table.score(question, prompt, scanner)
    _shares(axes[0, 2], shares, names, names)
    axes[0, 2].set(xlabel="answer", ylabel="truth", title=f"all: accuracy {accuracy:.2f}, ECE {ece:.2f}")
    axes[0, 2].tick_params(axis="x", rotation=20)
    figure.suptitle(f"{question}, {prompt}")
    return figure


def _shares(ax, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A grid of numbers in [0, 1], the darker the larger."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), columns)
    ax.grid(visible=False)


@styled
def scanner_prompt_static(table: ScannerPrompts) -> CourseFigure:
    """The static twin: balanced accuracy (above) and ECE (below) of each question, prompts by scanners."""
    width, height = 2.4 * len(table.questions) + 3.0, 2 * (0.42 * len(table.prompts) + 0.9)
    figure, axes = new_figure(2, len(table.questions), width, height, photo=True, sharey=True)
    for column, question in enumerate(table.questions):
        scores = np.array(
            [[table.score(question, p, s) for s in table.scanners] for p in table.prompts]
        )  # (P, S, 2)
        for row, what in enumerate(("accuracy", "ECE")):
            _shares(axes[row, column], scores[..., row], table.prompts, table.scanners)
            axes[row, column].set_title(f"{question}: {what}")
    figure.supxlabel("scanner")
    return figure


def scanner_prompts(table: ScannerPrompts) -> Any:
    """Choose question, prompt and scanner; without a kernel: all of them at once."""
    return explore(
        lambda **chosen: scanner_prompt_figure(**chosen, table=table),
        lambda: scanner_prompt_static(table),
        question=table.questions,
        prompt=table.prompts,
        scanner=table.scanners,
    )
