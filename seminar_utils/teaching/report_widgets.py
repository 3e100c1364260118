"""A figure to touch about the clinical report card: the severity dial (lesson 09). See `widgets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..adaptation import Source
from ..evaluation.intervals import Interval
from ..evaluation.report import ReportCard, report_card, stream_answers
from ..evaluation.shifts import apply_shift
from ..runtime import SeminarError
from .explore import explore
from .report_figure import report_card_figure
from .style import PALETTE, STYLES, CourseFigure, new_figure, styled

CardTable = Mapping[tuple[str, int], ReportCard]  # (adaptation, severity) -> its card; severity 0 is no shift

RULES = (  # the rules of `evaluation.report_rules`, in their order, short enough for an axis
    "AUROC, lower end",
    "every recall",
    "calibration (ECE)",
    "sensitivity, specificity",
    "worst corruption",
    "no collapse",
    "no harm",
)


def card_table(
    methods: Mapping[str, Callable[[nn.Module], Callable]],
    network: nn.Module,
    test: tuple[Tensor, ArrayLike],
    validation: tuple[Tensor, ArrayLike],
    shift: str,
    severities: Sequence[int] = (0, 1, 2, 3, 4, 5),
    others: Sequence[tuple[str, int]] = (),
    batch_size: int = 64,
    seed: int = 0,
    **about: Any,
) -> CardTable:
    """A report card for each method and severity of a shift of ours; severity 0 leaves the test images alone.

    Args: methods: name -> builder of an adapter from the network; test, validation: images (N, C, H, W) in [0, 1]
    and labels, both without shift; others: further (shift, severity) of the same test images, for the worst
    case; about: passed on to `report_card` (class_names, positive, limits, n_boot ...).
    """
    x, labels = test
    conditions = {f"{name} {level}": apply_shift(x, name, level) for name, level in others}
    conditions |= {_called(shift, level): apply_shift(x, shift, level) if level else x for level in severities}
    conditions["validation"] = validation[0]

    def answers(build: Callable) -> dict[str, np.ndarray]:  # condition -> probabilities (N, K)
        return {c: stream_answers(build, network, images, batch_size, seed) for c, images in conditions.items()}

    source = answers(Source)
    adapted = {name: answers(build) for name, build in methods.items() if build is not Source}
    corrupted = [f"{name} {level}" for name, level in others]
    table = {}
    for severity in severities:
        here = _called(shift, severity)
        for name in methods:
            parts = (adapted[name], source) if name in adapted else (source,)  # after, before
            after, before = parts[0], parts[1] if len(parts) == 2 else {}
            table[name, severity] = report_card(
                labels,
                after[here],
                before.get(here),
                val_labels=validation[1],
                val_after=after["validation"],
                val_before=before.get("validation"),
                corruptions={c: (labels, *(part[c].argmax(1) for part in parts)) for c in corrupted},
                adaptation=name,
                shift=here,
                seed=seed,
                **about,
            )
    return table


def _called(shift: str, severity: int) -> str:
    return f"{shift.replace('_', ' ')} {severity}" if severity else "no shift"


def card_axis(table: CardTable, position: int) -> list:
    """The adaptations (0) or severities (1) of a table, in order of appearance."""
    return list(dict.fromkeys(key[position] for key in table))


def report_dial_figure(adaptation: str, severity: int, table: CardTable) -> CourseFigure:
    """The page of one position of the dial."""
    if (adaptation, severity) not in table:
        known = f"{card_axis(table, 0)} at {card_axis(table, 1)}"
        raise SeminarError(f"the table holds no card of {adaptation!r} at severity {severity!r}, it has {known}")
    return report_card_figure(table[adaptation, severity])


@styled
def report_dial_static(table: CardTable) -> CourseFigure:
    """The static twin: for each adaptation four numbers over the severities, and which rules break when."""
    methods, severities = card_axis(table, 0), card_axis(table, 1)
    width = 1.6 + 3.9 * len(methods)
    figure, axes = new_figure(2, len(methods), width, 6.4, height_ratios=[1, 1.15], sharey="row", sharex="col")
    for column, method in enumerate(methods):
        cards = [table[method, severity] for severity in severities if (method, severity) in table]
        places = [severity for severity in severities if (method, severity) in table]
        _draw_numbers(axes[0, column], places, cards, method)
        _draw_rules(axes[1, column], places, cards)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    axes[1, 0].set_yticks(range(len(RULES)), RULES)
    figure.supxlabel("severity (0: no shift)", fontsize=12)
    return figure


def _draw_numbers(ax: Any, places: list[int], cards: list[ReportCard], method: str) -> None:
    lines = {
        "AUROC": [c.numbers.auroc.mean if isinstance(c.numbers.auroc, Interval) else np.nan for c in cards],
        "balanced accuracy": [c.numbers.balanced_accuracy.mean for c in cards],
        "specificity reached": [c.numbers.operating.specificity for c in cards],
        "ECE": [c.numbers.ece for c in cards],
    }
    for i, (name, values) in enumerate(lines.items()):
        ax.plot(places, values, STYLES[i], marker="os^D"[i], markersize=5, color=PALETTE[i], label=name)
    deployed = sum(card.deploy for card in cards)
    ax.set(title=f"{method}: 'yes' {deployed} of {len(cards)} times", ylim=(-0.03, 1.05))


def _draw_rules(ax: Any, places: list[int], cards: list[ReportCard]) -> None:
    """A green dot where a rule is kept, a red cross where it is not; the harm rule needs an adaptation."""
    for place, card in zip(places, cards):
        for row, check in enumerate(card.checks):
            mark, colour = ("o", PALETTE[2]) if check.passed else ("X", PALETTE[1])
            ax.plot(place, row, mark, color=colour, markersize=9)
    ax.set(ylim=(len(RULES) - 0.5, -0.5), xticks=places)


def report_dial(table: CardTable) -> Any:
    """Turn up the shift and read the page: a menu of adaptations and a slider, or the static twin."""
    if not table:
        raise SeminarError("the table of report cards is empty")
    return explore(
        lambda adaptation, severity: report_dial_figure(adaptation, severity, table),
        lambda: report_dial_static(table),
        adaptation=card_axis(table, 0),
        severity=card_axis(table, 1),
    )
