"""Metrics for a classifier that will meet patients: skill, fairness over groups, and a collapse alarm.

All functions take numpy arrays, lists or tensors; labels and predictions are integers of shape (N,). What is
undefined is NaN, never a silent zero: `checks.Undefined` where one number comes back, it carries the reason.
Beside this file: `ranking` (AUROC, AUPRC, sensitivity), `calibration` (ECE, NLL, Brier), `segmentation` (Dice,
IoU, boundary distances), `cost` (time, memory, passes), `intervals` and `differences` (how sure are we?).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import ArrayLike

from ..runtime import SeminarError
from .calibration import expected_calibration_error, reliability_bins
from .checks import Undefined, as_numpy, check_labels, check_pair, check_probabilities

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "expected_calibration_error",
    "gain_rate",
    "harm_rate",
    "per_class_recall",
    "per_group",
    "predicted_class_entropy",
    "reliability_bins",
    "summary",
    "worst_group",
]


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of correct predictions, in [0, 1]."""
    labels, predictions = check_pair(labels, predictions)
    return float((labels == predictions).mean())


def per_class_recall(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Recall of each class, shape (K,); NaN for a class that has no sample.

    Raises SeminarError for a label outside [0, num_classes).
    """
    labels, predictions = check_pair(labels, predictions)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise SeminarError(f"labels should lie in [0, {num_classes}), got {labels.min()} to {labels.max()}")
    with np.errstate(invalid="ignore"):
        hits = np.bincount(labels[labels == predictions], minlength=num_classes)
        return hits / np.bincount(labels, minlength=num_classes)


def balanced_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean recall over the classes that occur in `labels`, in [0, 1]; prevalence cannot buy it."""
    labels, predictions = check_pair(labels, predictions)
    num_classes = int(max(labels.max(), predictions.max())) + 1
    return float(np.nanmean(per_class_recall(labels, predictions, num_classes)))


def predicted_class_entropy(predictions: ArrayLike, num_classes: int) -> float:
    """Entropy of the histogram of predicted classes in units of ln K: 1 = all classes, 0 = one class.

    A model that collapses under adaptation predicts fewer and fewer classes, so a falling value is an
    alarm that needs no label. Raises SeminarError for predictions outside [0, num_classes).
    """
    predictions = check_labels(predictions, "predictions")
    if num_classes < 2 or predictions.min() < 0 or predictions.max() >= num_classes:
        raise SeminarError(f"predictions should lie in [0, {num_classes}) with at least two classes")
    share = np.bincount(predictions, minlength=num_classes) / len(predictions)  # (K,)
    seen = share[share > 0]
    return float(-(seen * np.log(seen)).sum() / np.log(num_classes)) + 0.0


def harm_rate(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Share of all samples that were right before adaptation and are wrong after it, in [0, 1]."""
    labels, before = check_pair(labels, before)
    labels, after = check_pair(labels, after)
    return float(((before == labels) & (after != labels)).mean())


def gain_rate(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Share of all samples that were wrong before adaptation and are right after it, in [0, 1].

    Gain - harm is the change of accuracy; a small change may hide many patients who swapped places.
    """
    labels, before = check_pair(labels, before)
    labels, after = check_pair(labels, after)
    return float(((before != labels) & (after == labels)).mean())


def per_group(metric: Callable[..., float], groups: ArrayLike, *arrays: ArrayLike) -> dict[Hashable, float]:
    """group -> metric of the rows of that group; `groups` (N,) are words or numbers, one a row of `arrays`.

    Example: `per_group(accuracy, domains, labels, predictions)`. Raises SeminarError for unequal lengths.
    """
    groups, arrays = as_numpy(groups), [as_numpy(array) for array in arrays]
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    if groups.ndim != 1 or len(groups) == 0 or lengths != {len(groups)}:
        raise SeminarError(f"groups name one group a row: got shape {groups.shape} for {sorted(lengths)} rows")
    names = np.unique(groups)
    return {name.item(): metric(*(array[groups == name] for array in arrays)) for name in names}


def worst_group(
    metric: Callable[..., float], groups: ArrayLike, *arrays: ArrayLike, higher_is_better: bool = True
) -> tuple[Hashable | None, float]:
    """The group with the worst value of `metric`, and the value; a mean hides whom a model fails.

    Groups in which the metric is undefined can't be ranked; when none is left the answer is (None, Undefined).
    """
    values = per_group(metric, groups, *arrays)
    defined = {name: value for name, value in values.items() if not np.isnan(value)}
    if not defined:
        return None, Undefined(f"the metric is undefined in every one of {len(values)} groups")
    worst = (min if higher_is_better else max)(defined, key=defined.get)
    return worst, float(defined[worst])


def summary(probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The course's standard row of numbers: accuracy, balanced accuracy, ECE and the collapse alarm."""
    labels = check_labels(labels)
    probs = check_probabilities(probs, labels)
    predictions = probs.argmax(axis=1)
    return {
        "accuracy": accuracy(labels, predictions),
        "balanced_accuracy": balanced_accuracy(labels, predictions),
        "ece": expected_calibration_error(probs, labels),
        "predicted_class_entropy": predicted_class_entropy(predictions, probs.shape[1]),
    }
