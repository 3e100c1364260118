"""Metrics for a classifier that will meet patients: skill, calibration, and a collapse alarm.

All functions take numpy arrays or tensors. Probabilities have shape (N, K) and rows that sum to one,
labels and predictions are integers of shape (N,). What is undefined is NaN, never a silent zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..runtime import SeminarError


def _labels(values: ArrayLike, what: str) -> np.ndarray:
    """Integer array of shape (N,) from an array, list or tensor."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise SeminarError(f"{what} should be integers of shape (N,), N > 0; got {array.dtype} {array.shape}")
    return array


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = _labels(labels, "labels"), _labels(predictions, "predictions")
    if len(labels) != len(predictions):
        raise SeminarError(f"labels and predictions differ in length: {len(labels)} and {len(predictions)}")
    return labels, predictions


def _probabilities(probs: ArrayLike, labels: np.ndarray | None = None) -> np.ndarray:
    """Float array (N, K) whose rows are distributions and, if labels come, cover them."""
    probs = np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or not np.isfinite(probs).all() or not np.allclose(probs.sum(1), 1, atol=1e-3):
        raise SeminarError(f"probabilities should be finite (N, K) rows that sum to 1; got shape {probs.shape}")
    if labels is not None and (len(labels) != len(probs) or labels.min() < 0 or labels.max() >= probs.shape[1]):
        raise SeminarError(f"labels should be {len(probs)} integers in [0, {probs.shape[1]}), one a row")
    return probs


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of correct predictions, in [0, 1]."""
    labels, predictions = _pair(labels, predictions)
    return float((labels == predictions).mean())


def per_class_recall(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Recall of each class, shape (K,); NaN for a class that has no sample."""
    labels, predictions = _pair(labels, predictions)
    with np.errstate(invalid="ignore"):
        hits = np.bincount(labels[labels == predictions], minlength=num_classes)
        return hits / np.bincount(labels, minlength=num_classes)


def balanced_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean recall over the classes that occur in `labels`, in [0, 1]; prevalence cannot buy it."""
    labels, predictions = _pair(labels, predictions)
    num_classes = int(max(labels.max(), predictions.max())) + 1
    return float(np.nanmean(per_class_recall(labels, predictions, num_classes)))


def reliability_bins(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> dict[str, np.ndarray]:
    """Confidence against accuracy in `bins` equal-width bins of (0, 1].

    Returns a dict of arrays of shape (bins,): mean `confidence` and `accuracy` (NaN where a bin is
    empty) and `count`. Source: Guo et al., On calibration of modern neural networks, 2017, section 2.
    """
    labels = _labels(labels, "labels")
    probs = _probabilities(probs, labels)
    confidence = probs.max(axis=1)  # (N,)
    correct = (probs.argmax(axis=1) == labels).astype(float)  # (N,)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (N,)
    count = np.bincount(index, minlength=bins)  # (bins,)
    with np.errstate(invalid="ignore"):
        mean = {
            "confidence": np.bincount(index, weights=confidence, minlength=bins) / count,
            "accuracy": np.bincount(index, weights=correct, minlength=bins) / count,
        }
    return {**mean, "count": count}


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE in [0, 1]: the gap between confidence and accuracy, averaged over equal-width bins by count."""
    table = reliability_bins(probs, labels, bins)
    gap = np.abs(table["confidence"] - table["accuracy"])
    return float(np.nansum(gap * table["count"]) / table["count"].sum())


def predicted_class_entropy(predictions: ArrayLike, num_classes: int) -> float:
    """Entropy of the histogram of predicted classes in units of ln K: 1 = all classes, 0 = one class.

    A model that collapses under adaptation predicts fewer and fewer classes, so a falling value is an
    alarm that needs no label. Raises SeminarError for predictions outside [0, num_classes).
    """
    predictions = _labels(predictions, "predictions")
    if num_classes < 2 or predictions.min() < 0 or predictions.max() >= num_classes:
        raise SeminarError(f"predictions should lie in [0, {num_classes}) with at least two classes")
    share = np.bincount(predictions, minlength=num_classes) / len(predictions)  # (K,)
    seen = share[share > 0]
    return float(-(seen * np.log(seen)).sum() / np.log(num_classes)) + 0.0


def harm_rate(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Share of all samples that were right before adaptation and are wrong after it, in [0, 1]."""
    labels, before = _pair(labels, before)
    labels, after = _pair(labels, after)
    return float(((before == labels) & (after != labels)).mean())


def summary(probs: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The course's standard row of numbers: accuracy, balanced accuracy, ECE and the collapse alarm."""
    labels = _labels(labels, "labels")
    probs = _probabilities(probs, labels)
    predictions = probs.argmax(axis=1)
    return {
        "accuracy": accuracy(labels, predictions),
        "balanced_accuracy": balanced_accuracy(labels, predictions),
        "ece": expected_calibration_error(probs, labels),
        "predicted_class_entropy": predicted_class_entropy(predictions, probs.shape[1]),
    }
