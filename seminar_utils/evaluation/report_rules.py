"""The rules of the report card: their limits, each rule in words, and whether it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime import SeminarError
from .intervals import Interval
from .report_numbers import Numbers, show


@dataclass(frozen=True)
class Limits:
    """What is asked of a model before it may meet patients; set them with the clinic, before you look.

    auroc: least LOWER end of its interval; recall: least of every class; ece: most; sensitivity: least, at the
    threshold that gives `specificity` on validation; slack: how far the specificity on the shift may fall below
    that; worst: least balanced accuracy of any group or corruption; harm: most; entropy (collapse alarm): least
    share of the labels' own entropy that the predicted classes have. All in [0, 1].
    """

    auroc: float = 0.85
    recall: float = 0.70
    ece: float = 0.10
    sensitivity: float = 0.80
    specificity: float = 0.90
    slack: float = 0.05
    worst: float = 0.70
    harm: float = 0.02
    entropy: float = 0.50

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in vars(self).items() if not 0 <= value <= 1}
        if wrong:
            raise SeminarError(f"limits of a report card lie in [0, 1], got {wrong}")


@dataclass(frozen=True)
class Check:
    """One rule: in words, with its limit; what was found, in words; and whether it passed."""

    rule: str
    found: str
    passed: bool


def check_rules(
    n: Numbers, harm: float | None, variety: float, names: Sequence[str], positive: int | None, limits: Limits
) -> list[Check]:
    """The rules, written out; NaN compares as False, so what is undefined does not pass."""
    lowest = n.auroc.low if isinstance(n.auroc, Interval) else np.nan
    unseen = [name for name, value in zip(names, n.recall) if np.isnan(value)]
    least = min(zip(n.recall, names)) if not unseen else (np.nan, "")
    point, target = n.operating, names[positive] if positive is not None else "the class to detect"
    place, value = n.worst
    rules = [
        Check(
            f"AUROC: the lower end of its 95% interval is at least {limits.auroc:g}.",
            show(n.auroc),
            lowest >= limits.auroc,
        ),
        Check(
            f"No class is forgotten: every recall is at least {limits.recall:g}.",
            f"no image of {', '.join(unseen)}" if unseen else f"{show(least[0])} for {least[1]}",
            least[0] >= limits.recall,
        ),
        Check(
            f"Its confidence can be read: ECE (15 equal-width bins) is at most {limits.ece:g}.",
            show(n.ece),
            n.ece <= limits.ece,
        ),
        Check(
            f"With the threshold fixed on validation (specificity {limits.specificity:g}) it finds at least "
            f"{limits.sensitivity:g} of {target}, at a specificity that is still at least "
            f"{limits.specificity - limits.slack:g}.",
            f"sensitivity {show(point.sensitivity)}, specificity {show(point.specificity)}",
            point.sensitivity >= limits.sensitivity
            and point.specificity >= limits.specificity - limits.slack - 1e-12,
        ),
        Check(
            "Nobody is left behind: the worst group or corruption has a balanced accuracy of at least "
            f"{limits.worst:g}.",
            show(value) + (f" on {place}" if place is not None else ""),
            value >= limits.worst,
        ),
        Check(
            f"It has not collapsed: predicted-class entropy is at least {limits.entropy:g} of the labels' own.",
            f"{show(n.entropy)}, the labels' is {show(variety)}",
            n.entropy >= limits.entropy * variety,
        ),
    ]
    if harm is not None:
        words = f"Adapting does no harm: at most {limits.harm:g} of all were right before and are wrong after."
        rules.append(Check(words, show(harm), harm <= limits.harm))
    return [Check(check.rule, check.found, bool(check.passed)) for check in rules]
