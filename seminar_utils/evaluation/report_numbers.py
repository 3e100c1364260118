"""The numbers of the report card: one model on one shift, the threshold fixed on validation images."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from ..runtime import SeminarError
from .calibration import adaptive_calibration_error, expected_calibration_error, reliability_bins
from .checks import Undefined, check_labels, check_probabilities
from .intervals import Interval, bootstrap_interval
from .metrics import balanced_accuracy, per_class_recall, per_group, predicted_class_entropy
from .ranking import OperatingPoint, auroc, sensitivity_at_specificity


@dataclass(frozen=True)
class Numbers:
    """One model's numbers on the shift; undefined ones are NaN and carry their reason."""

    auroc: Interval | Undefined
    balanced_accuracy: Interval
    recall: list[float]
    ece: float
    adaptive_ece: float
    bins: dict[str, np.ndarray] = field(repr=False)
    operating: OperatingPoint
    worst: tuple[Hashable | None, float]
    entropy: float


def operating_point(val_labels, val, labels, probs, positive, specificity) -> OperatingPoint:
    """Threshold from validation, rates on the shifted images; Undefined, with the reason, where that can't be."""
    why = None
    if positive is None:
        why = "with more than two classes, name the class to detect: positive=k"
    elif val_labels is None or val is None:
        why = "a threshold needs validation images, none were given"
    if why:
        return OperatingPoint(Undefined(why), Undefined(why), Undefined(why))
    val_labels = check_labels(val_labels, "val_labels")
    val = check_probabilities(val, val_labels)
    if val.shape[1] != probs.shape[1]:
        raise SeminarError(f"validation has {val.shape[1]} classes, the shifted images {probs.shape[1]}")
    truth, val_truth = ((values == positive).astype(int) for values in (labels, val_labels))
    return sensitivity_at_specificity(val_truth, val[:, positive], truth, probs[:, positive], specificity)


def worst_of(labels, predictions, shift, groups, corruptions, column) -> tuple[Hashable | None, float]:
    """The group of this shift, or the other corruption, with the lowest balanced accuracy."""
    found = {shift: balanced_accuracy(labels, predictions)}
    if groups is not None:
        found |= per_group(balanced_accuracy, groups, labels, predictions)
    for name, arrays in (corruptions or {}).items():
        if len(arrays) > column:
            found[name] = balanced_accuracy(arrays[0], arrays[column])
    if len(found) == 1:
        return None, Undefined("neither groups nor other corruptions were given")
    worst = min(found, key=found.get)
    return worst, found[worst]


def numbers_of(labels, probs, operating, worst, clusters, n_boot, seed) -> Numbers:
    """All numbers of one model from probabilities (N, K), intervals by bootstrap over images or clusters."""
    options = {"clusters": clusters, "n_boot": n_boot, "seed": seed}
    predictions, area = probs.argmax(1), auroc(labels, probs)
    if not isinstance(area, Undefined):
        area = bootstrap_interval(labels, probs, statistic=auroc, **options)
    recall = [
        Undefined("no sample of this class") if np.isnan(value) else float(value)
        for value in per_class_recall(labels, predictions, probs.shape[1])
    ]
    return Numbers(
        auroc=area,
        balanced_accuracy=bootstrap_interval(labels, predictions, statistic=balanced_accuracy, **options),
        recall=recall,
        ece=expected_calibration_error(probs, labels),
        adaptive_ece=adaptive_calibration_error(probs, labels),
        bins=reliability_bins(probs, labels, bins=10, equal_mass=True),
        operating=operating,
        worst=worst,
        entropy=predicted_class_entropy(predictions, probs.shape[1]),
    )


def show(value: float | Interval) -> str:
    """Two decimals, or why there is no number."""
    if isinstance(value, Interval):
        span = f"[{value.low:.2f}, {value.high:.2f}]" if not np.isnan(value.low) else f"({value.note})"
        return f"{value.mean:.2f} {span}"
    return str(value) if isinstance(value, Undefined) else f"{value:.2f}"
