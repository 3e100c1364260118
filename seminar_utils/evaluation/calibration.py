"""Does a confidence of 80% mean right in 80 of 100? ECE in two binnings, NLL and the Brier score.

Probabilities have shape (N, K) and rows that sum to one, labels are integers (N,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ..runtime import SeminarError
from .checks import check_labels, check_probabilities


def reliability_bins(
    probs: ArrayLike, labels: ArrayLike, bins: int = 15, equal_mass: bool = False
) -> dict[str, np.ndarray]:
    """Confidence (the largest probability) against accuracy in `bins` bins.

    The bins have equal width in (0, 1], or with `equal_mass` equally many samples each (equal confidences stay
    together, so the masses may differ by a tie).
    Returns a dict of arrays of shape (bins,): mean `confidence` and `accuracy` (NaN where a bin is
    empty) and `count`. Source: Guo et al., On calibration of modern neural networks, 2017, section 2.
    """
    if bins < 1:
        raise SeminarError(f"a reliability curve needs at least one bin, got {bins}")
    labels = check_labels(labels)
    probs = check_probabilities(probs, labels)
    confidence = probs.max(axis=1)  # (N,)
    correct = (probs.argmax(axis=1) == labels).astype(float)  # (N,)
    if equal_mass:  # by rank, so that the order of the rows cannot matter
        index = ((rankdata(confidence) - 0.5) * bins / len(confidence)).astype(int)  # (N,)
    else:
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
    return _mean_gap(reliability_bins(probs, labels, bins))


def adaptive_calibration_error(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE in [0, 1] over equal-mass bins: no bin is nearly empty, so it wobbles less where N is small.

    A sure model has most of its confidences in the last equal-width bin, where over- and underconfidence cancel.
    Source: the adaptive bins of Nixon et al., Measuring calibration in deep learning, 2019 (arXiv 1904.01685),
    here for the predicted class alone.
    """
    return _mean_gap(reliability_bins(probs, labels, bins, equal_mass=True))


def _mean_gap(table: dict[str, np.ndarray]) -> float:
    gap = np.abs(table["confidence"] - table["accuracy"])  # (bins,), NaN where a bin is empty
    return float(np.nansum(gap * table["count"]) / table["count"].sum())


def negative_log_likelihood(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p(label) in nats, at least 0: punishes a sure mistake hardest.

    Probabilities are floored at 2.2e-16 (as scikit-learn does), so that one sure mistake costs 36 nats and not
    the whole set's mean.
    """
    labels = check_labels(labels)
    probs = check_probabilities(probs, labels)
    of_label = probs[np.arange(len(labels)), labels]  # (N,)
    return float(-np.log(of_label.clip(np.finfo(np.float64).eps, 1)).mean()) + 0.0


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance between the probabilities and the one-hot label, summed over classes, in [0, 2].

    For two classes this is twice the one-column form that some libraries report.
    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    labels = check_labels(labels)
    probs = check_probabilities(probs, labels)
    one_hot = np.eye(probs.shape[1])[labels]  # (N, K)
    return float(((probs - one_hot) ** 2).sum(axis=1).mean())
