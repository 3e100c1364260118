"""What every metric shares: one clear error for bad input, and a NaN that says why it is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..runtime import SeminarError


class Undefined(float):
    """NaN with its reason: what a metric returns when its formula divides by nothing.

    It is a float like any NaN (arithmetic, numpy and the results store treat it so); printed it tells the reason.
    """

    reason: str

    def __new__(cls, reason: str) -> Undefined:
        """A NaN; `reason` completes the sentence "it is undefined because ..."."""
        value = super().__new__(cls, "nan")
        value.reason = reason
        return value

    def __getnewargs__(self) -> tuple[str]:
        return (self.reason,)  # for pickle and copy: a plain float's arguments would lose the reason

    def __repr__(self) -> str:
        return f"nan ({self.reason})"

    __str__ = __repr__


def reasons(metrics: Mapping[str, Any]) -> dict[str, str]:
    """name -> reason of every metric in `metrics` that is undefined: what to write beside a row's NaN."""
    return {name: value.reason for name, value in metrics.items() if isinstance(value, Undefined)}


def mean_of_defined(values: list[float], what: str) -> float:
    """Mean over the defined values; Undefined, with the first reason, when there is none."""
    defined = [value for value in values if not np.isnan(value)]
    if defined:
        return float(np.mean(defined))
    first = next((value.reason for value in values if isinstance(value, Undefined)), "there is no class")
    return Undefined(f"{what} is undefined for every class: {first}")


def as_numpy(values: Any) -> np.ndarray:
    """A list, array or tensor of any device as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def check_labels(values: ArrayLike, what: str = "labels") -> np.ndarray:
    """Integer array of shape (N,) from an array, list or tensor."""
    array = as_numpy(values)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise SeminarError(f"{what} should be integers of shape (N,), N > 0; got {array.dtype} {array.shape}")
    return array


def check_pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions, integers (N,) of one length."""
    labels, predictions = check_labels(labels), check_labels(predictions, "predictions")
    if len(labels) != len(predictions):
        raise SeminarError(f"labels and predictions differ in length: {len(labels)} and {len(predictions)}")
    return labels, predictions


def check_probabilities(probs: ArrayLike, labels: np.ndarray | None = None) -> np.ndarray:
    """Float array (N, K) whose rows are distributions and, if labels come, cover them."""
    probs = as_numpy(probs).astype(np.float64)
    if probs.ndim != 2 or not np.isfinite(probs).all() or not np.allclose(probs.sum(1), 1, atol=1e-3):
        raise SeminarError(f"probabilities should be finite (N, K) rows that sum to 1; got shape {probs.shape}")
    if (probs < -1e-6).any():
        raise SeminarError(f"probabilities should not be negative; got a {probs.min():.3g} (logits? softmax them)")
    if labels is not None and (len(labels) != len(probs) or labels.min() < 0 or labels.max() >= probs.shape[1]):
        raise SeminarError(f"labels should be {len(probs)} integers in [0, {probs.shape[1]}), one a row")
    return probs


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 / 1 as a boolean array (N,) and finite float scores (N,): the higher, the more class 1."""
    labels, scores = check_labels(labels), as_numpy(scores)
    if scores.shape != labels.shape or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise SeminarError(f"scores should be {len(labels)} finite numbers; got {scores.dtype} {scores.shape}")
    if labels.min() < 0 or labels.max() > 1:
        raise SeminarError(f"binary labels are 0 or 1; got {labels.min()} to {labels.max()}")
    return labels == 1, scores.astype(np.float64)
