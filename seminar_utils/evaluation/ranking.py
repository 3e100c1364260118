"""How well do scores rank? AUROC, AUPRC, and sensitivity where the specificity was fixed beforehand.

These ask nothing of the scale of the scores, so a model may rank perfectly and still be badly calibrated
(`calibration`) or need another threshold. A class without samples, or without any other sample, has no ranking:
its value is `Undefined`, a NaN that carries its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ..runtime import SeminarError
from .checks import Undefined, as_numpy, check_labels, check_probabilities, check_scores, mean_of_defined


def binary_auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a random positive scores above a random negative (ties count half), in [0, 1].

    labels: 0 / 1 (N,); scores (N,), any scale. Undefined when one of the two is absent.
    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982 (the Mann-Whitney form).
    """
    positive, scores = check_scores(labels, scores)
    count = int(positive.sum())
    if count in (0, len(positive)):
        return Undefined(f"AUROC needs positives and negatives, here are {count} and {len(positive) - count}")
    ranks = rankdata(scores)  # (N,), 1 for the lowest
    wins = ranks[positive].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(positive) - count)))


def binary_auprc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision, the step-wise area under the precision-recall curve, in (0, 1].

    Chance level is the prevalence, not 0.5: never compare it between sets of different prevalence.
    Undefined without a positive, and without a negative (where it would be 1 whatever the scores).
    """
    positive, scores = check_scores(labels, scores)
    count = int(positive.sum())
    if count in (0, len(positive)):
        return Undefined(f"AUPRC needs positives and negatives, here are {count} and {len(positive) - count}")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores are called positive together
    hits = np.cumsum(positive[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / count)


def per_class_auroc(labels: ArrayLike, probs: ArrayLike) -> list[float]:
    """AUROC of each class against the rest, K values; Undefined for a class with no sample or no rest."""
    return _one_against_rest(binary_auroc, labels, probs)


def per_class_auprc(labels: ArrayLike, probs: ArrayLike) -> list[float]:
    """Average precision of each class against the rest, K values; Undefined as for `per_class_auroc`."""
    return _one_against_rest(binary_auprc, labels, probs)


def _one_against_rest(metric: Callable, labels: ArrayLike, probs: ArrayLike) -> list[float]:
    labels = check_labels(labels)
    probs = check_probabilities(probs, labels)
    return [metric((labels == k).astype(int), probs[:, k]) for k in range(probs.shape[1])]


def auroc(labels: ArrayLike, probs: ArrayLike) -> float:
    """AUROC in [0, 1]: binary for scores (N,) or probabilities (N, 2) (class 1), else macro one against rest.

    The macro mean is over the classes that occur in `labels`, as in balanced accuracy; it is Undefined when
    only one does. Values over different sets of classes are not comparable: look at `per_class_auroc` there.
    """
    return _binary_or_macro(binary_auroc, per_class_auroc, labels, probs, "AUROC")


def auprc(labels: ArrayLike, probs: ArrayLike) -> float:
    """Average precision in (0, 1]: binary for scores (N,) or probabilities (N, 2), else macro; see `auroc`."""
    return _binary_or_macro(binary_auprc, per_class_auprc, labels, probs, "AUPRC")


def _binary_or_macro(
    binary: Callable, per_class: Callable, labels: ArrayLike, probs: ArrayLike, name: str
) -> float:
    array = as_numpy(probs)
    if array.ndim == 1:
        return binary(labels, array)
    if array.ndim == 2 and array.shape[1] == 2:
        return binary(labels, check_probabilities(array, check_labels(labels))[:, 1])
    return mean_of_defined(per_class(labels, array), name)


def threshold_at_specificity(labels: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """The lowest threshold t whose rule "positive if score > t" keeps `specificity` on these (validation) images.

    labels: 0 / 1 (N,), scores (N,), specificity in [0, 1]. Undefined without negatives.
    """
    if not 0 <= specificity <= 1:
        raise SeminarError(f"a specificity lies in [0, 1], got {specificity}")
    positive, scores = check_scores(labels, scores)
    negatives = np.sort(scores[~positive])
    if len(negatives) == 0:
        return Undefined("a threshold for a specificity needs negatives, validation has none")
    keep = int(np.ceil(specificity * len(negatives) - 1e-9))  # so many negatives must stay at or under it
    return float(negatives[keep - 1]) if keep else -np.inf


@dataclass(frozen=True)
class OperatingPoint:
    """What a fixed threshold does on new images: both rates in [0, 1], Undefined where a class is absent."""

    threshold: float
    sensitivity: float
    specificity: float


def at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float) -> OperatingPoint:
    """Sensitivity and specificity of "positive if score > threshold"; labels 0 / 1 (N,), scores (N,)."""
    positive, scores = check_scores(labels, scores)
    if np.isnan(threshold):
        why = getattr(threshold, "reason", "the threshold is NaN")
        return OperatingPoint(threshold, Undefined(why), Undefined(why))
    called = scores > threshold
    sensitivity = float(called[positive].mean()) if positive.any() else Undefined("there is no positive sample")
    negative = ~positive
    specificity = float((~called[negative]).mean()) if negative.any() else Undefined("there is no negative sample")
    return OperatingPoint(threshold, sensitivity, specificity)


def sensitivity_at_specificity(
    val_labels: ArrayLike, val_scores: ArrayLike, labels: ArrayLike, scores: ArrayLike, specificity: float = 0.9
) -> OperatingPoint:
    """Fix the threshold on validation images, then apply it, unchanged, to test images.

    A threshold chosen on the test images would know their labels. The specificity that is reached on the test
    images is reported too: under shift it is often not the one that was asked for, and that is a finding.
    """
    return at_threshold(labels, scores, threshold_at_specificity(val_labels, val_scores, specificity))
